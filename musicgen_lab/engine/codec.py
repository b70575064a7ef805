"""`Codec`: the decoder of EnCodec, from codes to audio.

The weights and the architecture are those of a transformers `EncodecModel` (`engine.seanet`). It
computes in float32: the noise of bfloat16 changed the bandwidth of clips by four standard
deviations, and some 16-bit convolutions give wrong results on some processors.

The LSTM, which has to read all its weights for every frame, processes several clips at once,
without any clip depending on another. The convolutions process one clip at a time, so that their
kernels are selected by the clip's own length, and 25 clips need no more memory than one.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from musicgen_lab.engine.codec_lstm import LstmState, choose_lstm
from musicgen_lab.engine.cudnn import exact_convolutions
from musicgen_lab.engine.seanet import (
    CodecConfig,
    build_decoder,
    context_frames,
    read_codebooks,
)
from musicgen_lab.errors import ModelUnavailable
from musicgen_lab.models.checkpoint import Checkpoint, TensorReader
from musicgen_lab.models.codec_identity import identify_codebooks
from musicgen_lab.models.config import WEIGHTS_FILE, load_part_config

PART_FRAMES = 1500  # decoded at once: a window of the released models


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
        Of the decoder, and of the encoder that `CodecEncoder` reads.

    Raises
    ------
    ModelUnavailable
        When a file is missing or damaged.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = load_part_config(CodecConfig, folder)
        self.weights = Checkpoint(folder / WEIGHTS_FILE)


@dataclass(eq=False)
class Decoding:
    """A clip that is decoded in parts, in the order of its frames. Made by `Codec.start`.

    Attributes
    ----------
    frames : int
        Of the whole clip.
    codes : Tensor
        (K, n) the latest codes, as far back as the next part needs them.
    read : int
        Frames of codes read so far.
    states : list of LstmState
        One per channel; none if the decoder has no LSTM.
    hidden : list of Tensor
        (1, D, n) per channel: what the last layers read, as far back as the next part needs it.
    ran : int
        Frames of `hidden` computed so far.
    decoded : int
        Frames decoded to sound so far.
    """

    frames: int
    codes: Tensor
    states: list[LstmState]
    hidden: list[Tensor]
    read: int = 0
    ran: int = 0
    decoded: int = 0

    def copy(self) -> Decoding:
        """Return the same place in the clip, which decoding on from this one leaves as it is."""
        return replace(self, states=[replace(state) for state in self.states])


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
    identity : str
        Digest of the codebooks: codes mean nothing to a codec of another identity.

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
        self.identity = identify_codebooks(tables.numpy())
        self._tables = tables.to(device)  # (K, card, D)
        self._before, self._after = before.to(device), after.to(device)
        self._before_context, self._after_context = context_frames(before), context_frames(after)
        self._lstm = None if lstm is None else choose_lstm(lstm, device)
        self._lstm_shape = (0, 0) if lstm is None else (lstm.num_layers, lstm.hidden_size)

    @property
    def frame_rate(self) -> float:
        """Frames per second."""
        return self.sample_rate / self.samples_per_frame

    @torch.inference_mode()
    def decode(self, clips: Sequence[Tensor]) -> list[Tensor]:
        """Decode clips of any lengths, long ones in parts, in the memory of one part.

        Parameters
        ----------
        clips : sequence of Tensor
            (K, frames) codes each, the channels' codebooks interleaved.

        Returns
        -------
        list of Tensor
            (channels, n) samples each, float32, on the CPU; equal to those of a clip decoded alone.
        """
        short = [codes for codes in clips if codes.shape[1] <= PART_FRAMES]
        long = [(self.start(c.shape[1]), c) for c in clips if c.shape[1] > PART_FRAMES]
        whole, in_parts = iter(self._decode_whole(short)), iter(self.decode_parts(long))
        return [next(whole if c.shape[1] <= PART_FRAMES else in_parts) for c in clips]

    def _decode_whole(self, clips: Sequence[Tensor]) -> list[Tensor]:
        """Decode clips, each in one go."""
        if not clips:
            return []
        channels = range(self._channels)
        mono = [codes[channel :: self._channels] for codes in clips for channel in channels]
        with exact_convolutions(self._device):
            hidden = [self._before(x) for x in self._embed(mono)]  # (1, D, frames) each
            if self._lstm is not None:
                hidden = self._lstm(hidden, [self._new_state() for _ in hidden])
            sounds = [self._after(x)[0] for x in hidden]  # (1, n) each
            sounds = [sound.cpu() for sound in sounds]  # each synchronises with the device
        return self._join_channels(sounds)

    def decode_each(self, clips: Sequence[Tensor]) -> list[Tensor | Exception]:
        """Decode clips like `decode`, with an exception in place of each that fails."""
        with suppress(Exception):
            return list(self.decode(clips))
        # So that only the failing ones are lost.
        return [attempt(partial(self.decode, [codes])) for codes in clips]

    def start(self, frames: int) -> Decoding:
        """Return the beginning of a clip that is decoded in parts.

        Parameters
        ----------
        frames : int
            Of the whole clip.
        """
        codebooks = len(self._tables) * self._channels
        return Decoding(
            frames,
            codes=torch.zeros(codebooks, 0, dtype=torch.long, device=self._device),
            states=[self._new_state() for _ in range(self._channels) if self._lstm is not None],
            hidden=[],
        )

    def decodable(self, decoding: Decoding, read: int) -> int:
        """Return the frames of a clip that can be decoded once its first `read` ones have codes.

        A frame's sound depends on the codes of a few frames after it.
        """
        ran = _known(read, self._before_context[1], decoding.frames)
        return _known(ran, self._after_context[1], decoding.frames)

    @torch.inference_mode()
    def decode_parts(self, parts: Sequence[tuple[Decoding, Tensor]]) -> list[Tensor]:
        """Decode as much as the next codes of each clip complete, in the memory of one part.

        Together the parts are the whole clip within 1e-5 of full scale, a third of a 16-bit step:
        convolutions add in another order at another length.

        Parameters
        ----------
        parts : sequence of (Decoding, Tensor)
            A clip, and its (K, n) codes that follow those read so far.

        Returns
        -------
        list of Tensor
            (channels, m) samples each, float32, on the CPU, that follow those decoded so far; m may
            be 0.
        """
        pieces = [torch.split(codes, PART_FRAMES, dim=1) for _, codes in parts]
        sounds: list[list[Tensor]] = [[] for _ in parts]
        for turn in range(max(map(len, pieces), default=0)):
            longer = [index for index, split in enumerate(pieces) if turn < len(split)]
            decoded = self._decode_next([(parts[i][0], pieces[i][turn]) for i in longer])
            for index, sound in zip(longer, decoded, strict=True):
                sounds[index].append(sound)
        return [torch.cat(each, dim=1) for each in sounds]

    def _decode_next(self, parts: Sequence[tuple[Decoding, Tensor]]) -> list[Tensor]:
        """Decode the next codes of each clip in one go, at most `PART_FRAMES` of them."""
        for decoding, codes in parts:
            decoding.codes = torch.cat([decoding.codes, codes.to(self._device)], dim=1)
            decoding.read += codes.shape[1]
        with exact_convolutions(self._device):
            self._run_first_layers([decoding for decoding, _ in parts])
            sounds = [sound for decoding, _ in parts for sound in self._run_last_layers(decoding)]
        return self._join_channels(sounds)

    def _run_first_layers(self, decodings: Sequence[Decoding]) -> None:
        """Extend `hidden` of each clip as far as the codes read allow."""
        left, right = self._before_context
        stops = [_known(each.read, right, each.frames) for each in decodings]
        longer = [
            (each, stop) for each, stop in zip(decodings, stops, strict=True) if stop > each.ran
        ]
        inputs: list[Tensor] = []
        for each, stop in longer:
            begin = each.read - each.codes.shape[1]
            for x in self._embed([each.codes[c :: self._channels] for c in range(self._channels)]):
                inputs.append(self._before(x)[..., each.ran - begin : stop - begin])
            each.codes = each.codes[:, max(stop - left, 0) - begin :]
        if self._lstm is not None and longer:
            inputs = self._lstm(inputs, [state for each, _ in longer for state in each.states])
        for index, (each, stop) in enumerate(longer):
            new = inputs[index * self._channels : (index + 1) * self._channels]
            pairs = zip(each.hidden, new, strict=True)
            each.hidden = [torch.cat(pair, dim=2) for pair in pairs] if each.ran else new
            each.ran = stop

    def _run_last_layers(self, decoding: Decoding) -> list[Tensor]:
        """Return the sound of each channel that `hidden` completes: (1, m)."""
        left, right = self._after_context
        stop = _known(decoding.ran, right, decoding.frames)
        if stop == decoding.decoded:
            return [torch.zeros(1, 0)] * self._channels
        begin = decoding.ran - decoding.hidden[0].shape[-1]
        first, last = decoding.decoded - begin, stop - begin
        samples = slice(first * self.samples_per_frame, last * self.samples_per_frame)
        sounds = [self._after(x)[0][:, samples] for x in decoding.hidden]
        decoding.hidden = [x[..., max(stop - left, 0) - begin :] for x in decoding.hidden]
        decoding.decoded = stop
        return [sound.cpu() for sound in sounds]

    def _new_state(self) -> LstmState:
        return LstmState.first(*self._lstm_shape, self._device)

    def _join_channels(self, sounds: Sequence[Tensor]) -> list[Tensor]:
        """Join the channels of each clip: (1, n) each to (channels, n) each."""
        return [
            torch.cat(list(sounds[first : first + self._channels]))
            for first in range(0, len(sounds), self._channels)
        ]

    def _embed(self, clips: Sequence[Tensor]) -> list[Tensor]:
        """Add up the codebooks' vectors: (K, frames) to (1, D, frames) each."""
        codes = torch.cat(list(clips), dim=1).to(self._device)
        total = self._tables[0, codes[0]]
        for k in range(1, len(codes)):
            total = total + self._tables[k, codes[k]]
        frames = [each.shape[1] for each in clips]
        return [vectors.T.unsqueeze(0) for vectors in torch.split(total, frames)]


def attempt(decode: Callable[[], list[Tensor]]) -> Tensor | Exception:
    """Return the one sound that is decoded, or the exception."""
    try:
        (sound,) = decode()
    except Exception as error:
        traceback.clear_frames(error.__traceback__)  # whose variables would keep memory
        return error
    return sound


def _known(frames: int, context: int, total: int) -> int:
    """Return of how many frames the neighbours after them are known too."""
    return total if frames == total else max(frames - context, 0)
