"""Classifiers of a clip's attributes, trained on the synthesiser's clips after the codec."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional as F

from musicgen_lab.demo.composition import ATTRIBUTES
from musicgen_lab.demo.descriptors import describe
from musicgen_lab.demo.pieces import draw_piece
from musicgen_lab.demo.synthesiser import synthesise

HEARD = {name: values for name, values in ATTRIBUTES.items() if name not in ("bass", "swing")}
"""The attributes that have a classifier, and their values."""

_SEED = 10
ACCURACY_MIN = 0.9  # on clips not trained on; an attribute below it is not counted


@dataclass(frozen=True)
class AttributeClassifiers:
    """One classifier per attribute.

    Attributes
    ----------
    heads : dict of str to torch.nn.Module
        From standardised descriptors to the attribute's values.
    mean, scale : Tensor
        (d,) of the descriptors.
    accuracy : dict of str to float
        On clips that were not trained on.
    """

    heads: dict[str, nn.Module]
    mean: torch.Tensor
    scale: torch.Tensor
    accuracy: dict[str, float]

    @property
    def counted(self) -> list[str]:
        """The attributes that are recognised well enough to be counted."""
        return [name for name, share in self.accuracy.items() if share >= ACCURACY_MIN]

    @torch.no_grad()
    def recognise(self, samples: npt.NDArray[np.float32]) -> dict[str, Any]:
        """Return the likeliest value of every attribute of a clip (n,)."""
        x = (torch.from_numpy(describe(samples)).float() - self.mean) / self.scale
        return {name: HEARD[name][int(head(x[None]).argmax())] for name, head in self.heads.items()}


def train_classifiers(codec: Any, *, clips: int, duration_s: float) -> AttributeClassifiers:
    """Train classifiers on pieces as they sound after the codec.

    Parameters
    ----------
    codec : audiocraft.models.CompressionModel
        With its encoder.
    clips : int
        To synthesise; a tenth of them measures the accuracy.
    duration_s : float
        Their length in seconds, that of the clips to be recognised.

    Returns
    -------
    AttributeClassifiers
    """
    rng = np.random.default_rng(_SEED)
    pieces = [draw_piece(rng, held_out=rng.random() < 0.1) for _ in range(clips)]
    rows = [describe(_through_codec(codec, synthesise(p, duration_s, rng))) for p in pieces]
    x = torch.from_numpy(np.stack(rows)).float()
    tested = clips // 10
    mean, scale = x[tested:].mean(0), x[tested:].std(0) + 1e-3
    x = (x - mean) / scale
    heads, accuracy = {}, {}
    for name, values in HEARD.items():
        y = torch.tensor([values.index(getattr(piece, name)) for piece in pieces])
        head = _fit(x[tested:], y[tested:], len(values))
        with torch.no_grad():
            accuracy[name] = float((head(x[:tested]).argmax(1) == y[:tested]).float().mean())
        heads[name] = head
    return AttributeClassifiers(heads, mean, scale, accuracy)


def _fit(x: torch.Tensor, y: torch.Tensor, values: int) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_SEED)
        head = nn.Sequential(
            nn.Dropout(0.3), nn.Linear(x.shape[1], 64), nn.GELU(), nn.Linear(64, values)
        )
        optimizer = torch.optim.AdamW(head.parameters(), lr=3e-3, weight_decay=0.05)
        for _ in range(250):
            optimizer.zero_grad()
            F.cross_entropy(head(x), y).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    return head.eval()


@torch.no_grad()
def _through_codec(codec: Any, sound: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    codes, _ = codec.encode(torch.from_numpy(sound)[None, None])
    decoded: npt.NDArray[np.float32] = codec.decode(codes)[0, 0].numpy()
    return decoded[: len(sound)]
