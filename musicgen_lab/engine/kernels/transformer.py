"""`TritonStep`: a step of the transformer in few kernels, for GPUs on which Triton works.

It computes the same function as `engine.transformer.TorchStep` in eleven kernels per layer. The
partial results of the products of `kernels.linear` are added by the kernel that reads them:
attention, or the residual with the next layer norm. The residual stream is float32. A row's bits do
not depend on other rows or their number.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor

from musicgen_lab.engine.attention import Attend, store
from musicgen_lab.engine.capacity import ROWS_PER_CLIP_MAX
from musicgen_lab.engine.kernels.attention import Attention
from musicgen_lab.engine.kernels.linear import SplitLinear
from musicgen_lab.engine.kernels.norm import Norm, add_and_normalise, embed
from musicgen_lab.engine.positions import sinusoidal_positions
from musicgen_lab.engine.rows import AttentionSpans, StepRows
from musicgen_lab.models.config import ModelConfig


class _Layer:
    """The weights of one layer, pre-norm."""

    def __init__(self, weights: _Weights, prefix: str) -> None:
        self.self_norm, self.cross_norm, self.ffn_norm = (
            weights.norm(f"{prefix}.{name}") for name in ("self_norm", "cross_norm", "ffn_norm")
        )
        self.self_qkv = weights.linear(f"{prefix}.self_qkv")
        self.self_out = weights.linear(f"{prefix}.self_out")
        self.cross_q = weights.linear(f"{prefix}.cross_q")
        self.cross_out = weights.linear(f"{prefix}.cross_out")
        self.ffn_in = weights.linear(f"{prefix}.ffn_in", split=False, gelu=True)
        self.ffn_out = weights.linear(f"{prefix}.ffn_out")


@dataclass(frozen=True)
class _Weights:
    """A model's tensors, on the device and in the precision of the step."""

    tensors: Mapping[str, Tensor]
    device: torch.device
    dtype: torch.dtype

    def __getitem__(self, name: str) -> Tensor:
        return self.tensors[name].to(self.device, self.dtype).contiguous()

    def norm(self, name: str) -> Norm:
        return self[f"{name}.weight"], self[f"{name}.bias"]

    def linear(
        self, name: str, *, biased: bool = False, split: bool = True, gelu: bool = False
    ) -> SplitLinear:
        bias = self[f"{name}.bias"] if biased else None
        return SplitLinear(self[f"{name}.weight"], bias, split=split, gelu=gelu)


class TritonStep:
    """One step of every row, on a GPU.

    Parameters
    ----------
    config : ModelConfig
    tensors : mapping of str to Tensor
        As in `lm.safetensors`; taken one by one.
    device, dtype : torch.device, torch.dtype
        Where and in what precision to compute.
    rows : int
        The most rows that a step may have.
    """

    prefill_clips = 4  # one clip's chunk takes as long to launch as to compute

    def __init__(
        self,
        config: ModelConfig,
        tensors: Mapping[str, Tensor],
        *,
        device: torch.device,
        dtype: torch.dtype,
        rows: int,
    ) -> None:
        weights = _Weights(tensors, device, dtype)
        self._config, self._device = config, device
        self._embedding = weights["embedding"]  # (K, card + 1, dim)
        self._positions = sinusoidal_positions(config).to(device, dtype)  # (steps, dim)
        self._layers = [_Layer(weights, f"layers.{i}") for i in range(config.layers)]
        self._heads = weights.linear("heads", biased=config.bias_proj, split=False)  # K * card
        # The norm after each layer's residual: the next layer's first one, or the output's.
        self._next_norms = [layer.self_norm for layer in self._layers[1:]]
        self._next_norms.append(weights.norm("out_norm"))
        # A clip that mixes prompts may be alone where two rows are the most otherwise.
        shape = (max(rows, ROWS_PER_CLIP_MAX), config.heads, config.head_dim, config.max_steps)
        self._attend = Attention(*shape, device)
        self._attend_stored = Attention(
            *shape, device, dependent=False
        )  # keys that were just written

    def __call__(self, rows: StepRows, cache: Tensor) -> Tensor:
        """Run a step, see `Transformer.step`; the logits are valid until the next one."""
        with self._on_device():
            normed = self._run_layers(rows, cache, self._attend)
            logits = self._heads(normed)[0]
        return logits.view(len(normed), self._config.codebooks, self._config.card)

    def prefill(self, rows: StepRows, cache: Tensor) -> None:
        """Run many steps, see `Transformer.prefill`."""
        with self._on_device():
            self._run_layers(rows, cache, self._attend_among)

    def _on_device(self) -> AbstractContextManager[object]:
        """Make the device the current one, on which Triton starts kernels."""
        return torch.cuda.device(self._device) if self._device.type == "cuda" else nullcontext()

    def _attend_among(self, qkv: Tensor, cache: Tensor, spans: AttentionSpans) -> Tensor:
        """Attend like `_attend`, with the keys and values of all rows written first."""
        width = qkv.shape[2] // 3
        keys_values = qkv[..., width:].sum(0)  # (B, 2 * H * D), of all splits
        store(keys_values.view(qkv.shape[1], 2, self._config.heads, -1), cache, spans)
        return self._attend_stored(qkv[..., :width].contiguous(), cache, spans)

    def _run_layers(self, rows: StepRows, cache: Tensor, attend: Attend) -> Tensor:
        """Run all layers: the rows' last hidden states, normalised, (B, dim)."""
        first = self._layers[0].self_norm
        lengths = rows.spans.context_lens
        x, normed = embed(rows.tokens, lengths, self._embedding, self._positions, first)  # (B, dim)
        prompted = len(rows.prompt_spans.context_lens)
        for index, (layer, next_norm) in enumerate(
            zip(self._layers, self._next_norms, strict=True)
        ):
            attended = attend(layer.self_qkv(normed), cache[index], rows.spans)
            added = layer.self_out(attended)
            if prompted:
                normed = add_and_normalise(added, x, layer.cross_norm)
                query = layer.cross_q(normed[:prompted])
                attended = self._attend(query, cache[index], rows.prompt_spans)
                added = layer.cross_out(attended)
            normed = add_and_normalise(added, x, layer.ffn_norm)
            hidden = layer.ffn_in(normed, normed.dtype)[0]
            normed = add_and_normalise(layer.ffn_out(hidden), x, next_norm)
        return normed
