"""`Codec`: the decoder of EnCodec, from codes to audio.

The weights and the architecture are those of a transformers `EncodecModel` (`engine.seanet`). It
computes in float32: the noise of bfloat16 changed the bandwidth of clips by four standard
deviations, and some 16-bit convolutions give wrong results on some processors.

The LSTM, which has to read all its weights for every frame, processes several clips at once,
without any clip depending on another. The convolutions process one clip at a time, so that their
kernels are selected by the clip's own length, and 25 clips need no more memory than one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from musicgen_lab.engine.cudnn import exact_convolutions
from musicgen_lab.engine.linear import HalfWeightLinear, Linear, half_weights_are_fast
from musicgen_lab.engine.seanet import CodecConfig, build_decoder, read_codebooks
from musicgen_lab.errors import ModelUnavailable
from musicgen_lab.models.checkpoint import Checkpoint, TensorReader
from musicgen_lab.models.config import WEIGHTS_FILE, load_part_config

ROWWISE_CLIPS = 8  # that the LSTM takes at once on the CPU
FIXED_CLIPS, FIXED_FRAMES = 32, 100  # that it takes at once on a GPU

Lstm = Callable[[Sequence[Tensor]], list[Tensor]]
"""An LSTM with its input added, over clips of (1, D, frames) each."""


class CodecFiles:
    """A transformers `EncodecModel` folder, opened but not loaded onto a device.

    Parameters
    ----------
    folder : Path

    Attributes
    ----------
    folder : Path
    config : CodecConfig
    weights : Checkpoint
        Including the encoder, which is not used.

    Raises
    ------
    ModelUnavailable
        When a file is missing or damaged.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = load_part_config(CodecConfig, folder)
        self.weights = Checkpoint(folder / WEIGHTS_FILE)


class Codec:
    """EnCodec's decoder.

    Parameters
    ----------
    files : CodecFiles
    channels : int
        1, or 2 for two channels with interleaved codebooks, which are decoded separately.
    codebooks : int
        Codebooks of all channels together.
    card : int
        Codes per codebook.
    device : torch.device
        Where to compute, in float32.

    Attributes
    ----------
    sample_rate : int
        In Hz.
    samples_per_frame : int

    Raises
    ------
    ModelUnavailable
        When the weights do not match their configuration or the language model.
    """

    def __init__(
        self, files: CodecFiles, *, channels: int, codebooks: int, card: int, device: torch.device
    ) -> None:
        config = files.config
        self._device, self._channels = device, channels
        self.sample_rate, self.samples_per_frame = config.sampling_rate, config.samples_per_frame
        try:
            tensors = TensorReader(files.weights)
            tables = read_codebooks(tensors, codebooks // channels)
            before, lstm, after = build_decoder(tensors, config)
            foreign = tensors.unread(ignore=("encoder.", "quantizer."))
            if foreign:
                raise ValueError(f"{foreign[0]} does not belong there")
        except (RuntimeError, ValueError, KeyError) as error:
            reason = " ".join(str(error).split())[:160]
            raise ModelUnavailable(
                f"{files.folder} is damaged ({reason}); prepare the model again"
            ) from None
        if tables.shape[1] != card:
            raise ModelUnavailable(
                f"{files.folder} has codebooks of {tables.shape[1]} codes, but the language model "
                f"makes {card}"
            )
        self._tables = tables.to(device)  # (K, card, D)
        self._before, self._after = before.to(device), after.to(device)
        self._lstm = None if lstm is None else _choose_lstm(lstm, device)

    @property
    def frame_rate(self) -> float:
        """Frames per second."""
        return self.sample_rate / self.samples_per_frame

    @torch.inference_mode()
    def decode(self, clips: Sequence[Tensor]) -> list[Tensor]:
        """Decode clips of any lengths.

        Parameters
        ----------
        clips : sequence of Tensor
            (K, frames) codes each, the channels' codebooks interleaved.

        Returns
        -------
        list of Tensor
            (channels, n) samples each, float32, on the CPU; equal to those of a clip decoded alone.
        """
        channels = range(self._channels)
        mono = [codes[channel :: self._channels] for codes in clips for channel in channels]
        with exact_convolutions(self._device):
            hidden = [self._before(x) for x in self._embed(mono)]  # (1, D, frames) each
            if self._lstm is not None:
                hidden = self._lstm(hidden)
            sounds = [self._after(x)[0] for x in hidden]  # (1, n) each
            sounds = [sound.cpu() for sound in sounds]  # each synchronises with the device
        return [
            torch.cat(sounds[first : first + self._channels])
            for first in range(0, len(sounds), self._channels)
        ]

    def decode_each(self, clips: Sequence[Tensor]) -> list[Tensor | Exception]:
        """Decode clips like `decode`, with an exception in place of each that fails."""
        try:
            return list(self.decode(clips))
        except Exception:  # one by one, so that only the failing ones are lost
            return [self._attempt(codes) for codes in clips]

    def _attempt(self, codes: Tensor) -> Tensor | Exception:
        try:
            return self.decode([codes])[0]
        except Exception as error:
            return error

    def _embed(self, clips: Sequence[Tensor]) -> list[Tensor]:
        """Add up the codebooks' vectors: (K, frames) to (1, D, frames) each."""
        codes = torch.cat(list(clips), dim=1).to(self._device)
        total = self._tables[0, codes[0]]
        for k in range(1, len(codes)):
            total = total + self._tables[k, codes[k]]
        frames = [each.shape[1] for each in clips]
        return [vectors.T.unsqueeze(0) for vectors in torch.split(total, frames)]


def _batched(clips: Sequence[Tensor], size: int) -> Iterator[Sequence[Tensor]]:
    """Split clips into batches of a maximum size."""
    return (clips[first : first + size] for first in range(0, len(clips), size))


def _choose_lstm(lstm: nn.LSTM, device: torch.device) -> Lstm:
    """Return the fastest LSTM on a device in which no clip depends on another."""
    if half_weights_are_fast(device, torch.float32):
        return _RowwiseLstm(lstm)
    lstm = lstm.to(device)
    lstm.flatten_parameters()
    if device.type == "cuda":
        fixed = _FixedShapeLstm(lstm)
        if fixed.rows_are_independent():
            return fixed
    return lambda clips: [_run_lstm(lstm, x) for x in clips]


def _run_lstm(lstm: nn.LSTM, x: Tensor) -> Tensor:
    """Run over one clip: (1, D, frames) to the same shape."""
    y: Tensor = lstm(x.permute(2, 0, 1))[0]
    return y.permute(1, 2, 0) + x


class _FixedShapeLstm:
    """An LSTM over clips of different lengths, always in batches of the same shape.

    cuDNN selects its kernels by shape only, so with a fixed shape, zero padding, and the state
    carried from chunk to chunk, a clip's result does not depend on the others.
    """

    def __init__(self, lstm: nn.LSTM) -> None:
        self._lstm = lstm

    def __call__(self, clips: Sequence[Tensor]) -> list[Tensor]:
        """Run over (1, D, frames) each."""
        return [y for some in _batched(clips, FIXED_CLIPS) for y in self._run(some)]

    def _run(self, clips: Sequence[Tensor]) -> list[Tensor]:
        width, longest = self._lstm.hidden_size, max(x.shape[-1] for x in clips)
        frames = -(-longest // FIXED_FRAMES) * FIXED_FRAMES
        batch = clips[0].new_zeros(frames, FIXED_CLIPS, width)
        for index, x in enumerate(clips):
            batch[: x.shape[-1], index] = x[0].T
        state, outputs = None, []
        for chunk in torch.split(batch, FIXED_FRAMES):
            y, state = self._lstm(chunk, state)
            outputs.append(y)
        y = torch.cat(outputs) + batch
        return [y[: x.shape[-1], index].T.unsqueeze(0) for index, x in enumerate(clips)]

    @torch.inference_mode()
    def rows_are_independent(self) -> bool:
        """Return whether a clip has equal bits at every position in every batch."""
        generator = torch.Generator().manual_seed(0)
        shape = (FIXED_CLIPS, 1, self._lstm.hidden_size, FIXED_FRAMES)
        device = next(self._lstm.parameters()).device
        clips = list(torch.randn(shape, generator=generator).to(device))
        together, moved = self(clips), self(clips[1:] + clips[:1])
        return all(map(torch.equal, together[1:] + together[:1], moved))


class _RowwiseLstm:
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

    def __call__(self, clips: Sequence[Tensor]) -> list[Tensor]:
        """Run over (1, D, frames) each; padding never influences a clip."""
        return [y for some in _batched(clips, ROWWISE_CLIPS) for y in self._run(some)]

    def _run(self, clips: Sequence[Tensor]) -> list[Tensor]:
        frames = max(x.shape[-1] for x in clips)
        batch = torch.zeros(frames, len(clips), self._width)
        for index, x in enumerate(clips):
            batch[: x.shape[-1], index] = x[0].T
        y = batch
        for from_input, from_state in self._layers:
            gates = from_input(y.flatten(0, 1)).view(frames, len(clips), -1)
            y = self._recur(gates, from_state)
        y = y + batch
        return [y[: x.shape[-1], index].T.unsqueeze(0) for index, x in enumerate(clips)]

    def _recur(self, gates: Tensor, from_state: Linear) -> Tensor:
        """Run one layer: (frames, B, 4 * D) of input gates to (frames, B, D) of states."""
        state = torch.zeros(gates.shape[1], self._width)
        cell = torch.zeros_like(state)
        states = []
        for frame in gates:
            enter, forget, candidate, leave = (frame + from_state(state)).chunk(4, dim=-1)
            cell = _sigmoid(forget) * cell + _sigmoid(enter) * torch.tanh(candidate)
            state = _sigmoid(leave) * torch.tanh(cell)
            states.append(state)
        return torch.stack(states)


def _sigmoid(x: Tensor) -> Tensor:
    """Compute the sigmoid by tanh: torch's has different last bits at the end of an array."""
    return torch.tanh(x * 0.5) * 0.5 + 0.5
