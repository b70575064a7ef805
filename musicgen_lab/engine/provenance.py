"""The provenance of the engine's clips."""

from __future__ import annotations

import torch

from musicgen_lab.clip import CODEC, Provenance
from musicgen_lab.engine.device import describe_device
from musicgen_lab.engine.kernels.support import triton_works
from musicgen_lab.engine.transformer import Transformer
from musicgen_lab.version import VERSION


def describe_engine(
    transformer: Transformer, *, max_clips: int, cuda_graphs: bool, codec: str
) -> Provenance:
    """Return the provenance of an engine's clips.

    Parameters
    ----------
    transformer : Transformer
    max_clips : int
        Clips made at once.
    cuda_graphs : bool
        Whether steps are recorded and replayed.
    codec : str
        Identity of the codec that a clip's codes belong to.

    Returns
    -------
    Provenance
        Including everything that can change the last bits of a clip.
    """
    return Provenance(
        engine=f"musicgen-lab {VERSION}",
        device=describe_device(transformer.device),
        dtype=str(transformer.dtype).removeprefix("torch."),
        lab_version=VERSION,
        details={
            "torch": str(torch.__version__),  # a TorchVersion, which only torch can unpickle
            "threads": torch.get_num_threads(),
            "cpu": torch.backends.cpu.get_cpu_capability(),
            "max_clips": max_clips,
            "kernels": _kernels_of(transformer.device),
            "cuda_graphs": cuda_graphs,
            CODEC: codec,
        },
    )


def _kernels_of(device: torch.device) -> str:
    """Return which kernels run a step on a device, since their last bits differ."""
    if triton_works(device):
        return "triton"
    return "numba" if device.type == "cpu" else "torch"
