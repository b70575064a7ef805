"""The LSTM of EnCodec's decoder over many clips, none of which depends on another.

It reads a clip in one piece or in parts: an `LstmState` carries what it remembers from one part of
a clip to the next.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from musicgen_lab.engine.cudnn import exact_convolutions
from musicgen_lab.engine.linear import HalfWeightLinear, Linear, half_weights_are_fast

ROWWISE_CLIPS = 8  # at once on the CPU
FIXED_CLIPS, FIXED_FRAMES = 32, 100  # at once on a GPU


@dataclass(eq=False)
class LstmState:
    """What an LSTM remembers of a clip after some of its frames.

    Attributes
    ----------
    hidden, cell : Tensor
        (layers, D)
    pending : Tensor
        (1, D, n) the latest inputs that are not in `hidden` and `cell` yet.
    """

    hidden: Tensor
    cell: Tensor
    pending: Tensor

    @classmethod
    def first(cls, layers: int, width: int, device: torch.device) -> LstmState:
        """Return the state before the first frame of a clip."""
        zeros = torch.zeros(layers, width, device=device)
        return cls(zeros, zeros, zeros.new_zeros(1, width, 0))


class Lstm(Protocol):
    """An LSTM whose output has its input added."""

    def __call__(self, parts: Sequence[Tensor], states: Sequence[LstmState]) -> list[Tensor]:
        """Run over the next part of each clip and update the clips' states.

        Parameters
        ----------
        parts : sequence of Tensor
            (1, D, n) each, of any lengths.
        states : sequence of LstmState
            Of the same clips.

        Returns
        -------
        list of Tensor
            Of the same shapes.
        """


def choose_lstm(lstm: nn.LSTM, device: torch.device) -> Lstm:
    """Return the fastest LSTM on a device in which no clip depends on another."""
    if half_weights_are_fast(device, torch.float32):
        return RowwiseLstm(lstm)
    lstm = lstm.to(device)
    lstm.flatten_parameters()
    if device.type == "cuda":
        fixed = FixedShapeLstm(lstm)
        with exact_convolutions(device):  # as it will run
            if fixed.rows_are_independent():
                return fixed
    return OneByOneLstm(lstm)


def _batched(count: int, size: int) -> Iterator[slice]:
    """Split a number of clips into batches of a maximum size."""
    return (slice(first, first + size) for first in range(0, count, size))


class OneByOneLstm:
    """torch's LSTM, one clip at a time."""

    def __init__(self, lstm: nn.LSTM) -> None:
        self._lstm = lstm

    def __call__(self, parts: Sequence[Tensor], states: Sequence[LstmState]) -> list[Tensor]:
        """Run over the next part of each clip, as in `Lstm`."""
        return [self._run(x, state) for x, state in zip(parts, states, strict=True)]

    def _run(self, x: Tensor, state: LstmState) -> Tensor:
        before = (state.hidden.unsqueeze(1), state.cell.unsqueeze(1))
        y, (hidden, cell) = self._lstm(x.permute(2, 0, 1), before)
        state.hidden, state.cell = hidden.squeeze(1), cell.squeeze(1)
        outputs: Tensor = y.permute(1, 2, 0) + x
        return outputs


class FixedShapeLstm:
    """An LSTM over clips of different lengths, always in batches of the same shape.

    cuDNN selects its kernels by shape only, so with a fixed shape, zero padding, and the state
    carried from block to block, a clip's result does not depend on the others. Blocks begin at
    multiples of `FIXED_FRAMES` of a clip, so that it does not depend on its parts either: the
    inputs of a block that is not complete are read again with the next part.
    """

    def __init__(self, lstm: nn.LSTM) -> None:
        self._lstm = lstm

    def __call__(self, parts: Sequence[Tensor], states: Sequence[LstmState]) -> list[Tensor]:
        """Run over the next part of each clip, as in `Lstm`."""
        batches = _batched(len(parts), FIXED_CLIPS)
        return [y for some in batches for y in self._run(parts[some], states[some])]

    def _run(self, parts: Sequence[Tensor], states: Sequence[LstmState]) -> list[Tensor]:
        inputs = [
            torch.cat([state.pending, x], dim=2) for x, state in zip(parts, states, strict=True)
        ]
        longest = max(x.shape[-1] for x in inputs)
        frames = -(-longest // FIXED_FRAMES) * FIXED_FRAMES
        batch = inputs[0].new_zeros(frames, FIXED_CLIPS, self._lstm.hidden_size)
        hidden = batch.new_zeros(self._lstm.num_layers, FIXED_CLIPS, self._lstm.hidden_size)
        cell = torch.zeros_like(hidden)
        for index, (x, state) in enumerate(zip(inputs, states, strict=True)):
            batch[: x.shape[-1], index] = x[0].T
            hidden[:, index], cell[:, index] = state.hidden, state.cell
        outputs = []
        for block, x_block in enumerate(torch.split(batch, FIXED_FRAMES), 1):
            y, (hidden, cell) = self._lstm(x_block, (hidden, cell))
            outputs.append(y)
            for index, (x, state) in enumerate(zip(inputs, states, strict=True)):
                if x.shape[-1] // FIXED_FRAMES == block:
                    state.hidden, state.cell = hidden[:, index].clone(), cell[:, index].clone()
        y = torch.cat(outputs) + batch
        results = []
        for index, (x, state) in enumerate(zip(inputs, states, strict=True)):
            given, length = state.pending.shape[-1], x.shape[-1]
            state.pending = x[..., length // FIXED_FRAMES * FIXED_FRAMES :]
            results.append(y[given:length, index].T.unsqueeze(0))
        return results

    @torch.inference_mode()
    def rows_are_independent(self) -> bool:
        """Return whether a clip has equal bits at every position in every batch."""
        generator = torch.Generator().manual_seed(0)
        layers, width = self._lstm.num_layers, self._lstm.hidden_size
        device = next(self._lstm.parameters()).device
        shape = (FIXED_CLIPS, 1, width, FIXED_FRAMES)
        clips = list(torch.randn(shape, generator=generator).to(device))

        def run(some: list[Tensor]) -> list[Tensor]:
            return self(some, [LstmState.first(layers, width, device) for _ in some])

        together, moved = run(clips), run(clips[1:] + clips[:1])
        return all(map(torch.equal, together[1:] + together[:1], moved))


class RowwiseLstm:
    """An LSTM over clips of different lengths, built from linear layers with independent rows."""

    def __init__(self, lstm: nn.LSTM) -> None:
        self._width = lstm.hidden_size
        self._layers: list[tuple[Linear, Linear]] = []
        for index in range(lstm.num_layers):
            weight_ih, weight_hh, bias_ih, bias_hh = (
                getattr(lstm, f"{name}_l{index}").detach()
                for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
            )
            from_input = HalfWeightLinear(weight_ih, bias_ih + bias_hh)
            self._layers.append((from_input, HalfWeightLinear(weight_hh)))

    def __call__(self, parts: Sequence[Tensor], states: Sequence[LstmState]) -> list[Tensor]:
        """Run over the next part of each clip, as in `Lstm`; padding never influences a clip."""
        batches = _batched(len(parts), ROWWISE_CLIPS)
        return [y for some in batches for y in self._run(parts[some], states[some])]

    def _run(self, parts: Sequence[Tensor], states: Sequence[LstmState]) -> list[Tensor]:
        lengths = [x.shape[-1] for x in parts]
        frames = max(lengths)
        batch = torch.zeros(frames, len(parts), self._width)
        for index, x in enumerate(parts):
            batch[: lengths[index], index] = x[0].T
        hidden = torch.stack([state.hidden for state in states], dim=1)  # (layers, B, D)
        cell = torch.stack([state.cell for state in states], dim=1)
        y = batch
        for layer, (from_input, from_state) in enumerate(self._layers):
            gates = from_input(y.flatten(0, 1)).view(frames, len(parts), -1)
            y = self._recur(gates, from_state, hidden[layer], cell[layer], lengths)
        for index, state in enumerate(states):
            state.hidden, state.cell = hidden[:, index], cell[:, index]
        y = y + batch
        return [y[:length, index].T.unsqueeze(0) for index, length in enumerate(lengths)]

    def _recur(
        self,
        gates: Tensor,
        from_state: Linear,
        hidden: Tensor,
        cell: Tensor,
        lengths: Sequence[int],
    ) -> Tensor:
        """Run one layer: (frames, B, 4 * D) of input gates to (frames, B, D) of outputs.

        `hidden` and `cell`, (B, D), are those before the first frame; afterwards they are those
        after each clip's own last frame, of `lengths`.
        """
        outputs, h, c = [], hidden.clone(), cell.clone()
        for frame, frame_gates in enumerate(gates, 1):
            enter, forget, candidate, leave = (frame_gates + from_state(h)).chunk(4, dim=-1)
            c = _sigmoid(forget) * c + _sigmoid(enter) * torch.tanh(candidate)
            h = _sigmoid(leave) * torch.tanh(c)
            outputs.append(h)
            for index in (i for i, length in enumerate(lengths) if length == frame):
                hidden[index], cell[index] = h[index], c[index]
        return torch.stack(outputs)


def _sigmoid(x: Tensor) -> Tensor:
    """Compute the sigmoid by tanh: torch's has different last bits at the end of an array."""
    return torch.tanh(x * 0.5) * 0.5 + 0.5
