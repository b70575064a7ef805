"""`Codec`: the decoder half of EnCodec, from codes to sound.

The weights and the architecture are those of a transformers `EncodecModel`; only what decoding
needs is built. Four changes make it fast without changing what it computes:

- weight normalisation is folded into the weights once;
- the LSTM, which has to read all its weights for every frame, runs over several clips at once,
  with linear layers in which no row depends on another;
- on the CPU, transposed convolutions are products (`engine.upsampling`);
- everything else runs clip by clip, so that a clip's samples never depend on its company and 25
  clips need no more memory than one.

Some 16-bit convolutions are plainly wrong on some processors. The convolutions run in 16 bits only
where a trial of the whole decoder says nearly the same as in float32; on the CPU the LSTM never
does. bfloat16 fails it: its noise moved the bandwidth of clips by four standard deviations.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, Field, ValidationError
from torch import Tensor, nn
from torch.nn import functional as F

from musicgen_lab.engine.checkpoint import Checkpoint
from musicgen_lab.engine.cudnn import exact_convolutions
from musicgen_lab.engine.linear import HalfWeightLinear, Linear, half_weights_are_fast
from musicgen_lab.engine.quiet import quiet
from musicgen_lab.engine.upsampling import Upsampling
from musicgen_lab.errors import ModelUnavailable

WEIGHTS_FILE = "model.safetensors"
CLIPS_AT_ONCE = 8
TRIAL_FRAMES, TRIAL_COSINE_MIN = 50, 0.99999  # what differs is 47 dB below the sound


class _CodecLimits(BaseModel):
    """The sizes of a codec's configuration that could be absurd."""

    hidden_size: int = Field(ge=1, le=8192)
    num_filters: int = Field(ge=1, le=1024)
    num_lstm_layers: int = Field(ge=1, le=16)
    num_residual_layers: int = Field(ge=0, le=16)
    codebook_size: int = Field(ge=2, le=65_536)
    upsampling_ratios: list[int] = Field(min_length=1, max_length=8)
    audio_channels: int = Field(ge=1, le=2)
    kernel_size: int = Field(ge=1, le=63)
    last_kernel_size: int = Field(ge=1, le=63)
    residual_kernel_size: int = Field(ge=1, le=63)
    num_quantizers: int = Field(ge=1, le=64)


class Codec:
    """EnCodec's decoder.

    Parameters
    ----------
    folder : Path
        A transformers `EncodecModel` folder; its encoder is not read.
    channels : int
        1, or 2 for two channels whose codebooks are interleaved and that are decoded one by one.
    codebooks : int
        Codebooks of all channels together.
    card : int
        Codes per codebook.
    device, dtype : torch.device, torch.dtype
        Where and in what precision to compute. 16 bits that fail the trial become float32.

    Attributes
    ----------
    dtype : torch.dtype
        Of the convolutions.
    sample_rate : int
        In Hz.
    samples_per_frame : int

    Raises
    ------
    ModelUnavailable
        When the folder is damaged, or does not fit the language model.
    """

    def __init__(
        self,
        folder: Path,
        *,
        channels: int,
        codebooks: int,
        card: int,
        device: torch.device,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        if not folder.is_dir():
            raise ModelUnavailable(f"{folder} is missing; prepare the model again")
        self._device, self._channels = device, channels
        decoder, quantizer, self.sample_rate = _load(folder)
        self._tables = torch.stack(
            [layer.codebook.embed for layer in quantizer.layers[: codebooks // channels]]
        ).to(device)  # (K, card, D)
        self.samples_per_frame = 1
        self._layers: list[Any] = []
        for layer in decoder.layers:
            lstm = getattr(layer, "lstm", None)
            if lstm is not None and _is_silent(lstm):
                continue
            if lstm is not None and half_weights_are_fast(device, torch.float32):
                self._layers.append(_BatchedLstm(lstm))
            else:
                layer = _fold_weight_norm(layer).to(device).eval()
                conv: Any = getattr(layer, "conv", None)
                if isinstance(conv, nn.ConvTranspose1d):
                    self.samples_per_frame *= conv.stride[0]
                    if device.type == "cpu" and Upsampling.fits(conv):
                        layer.conv = Upsampling(conv)
                self._layers.append(layer)
        if self._tables.shape[:2] != (codebooks // channels, card):
            raise ModelUnavailable(
                f"{folder} has {len(quantizer.layers)} codebooks of {self._tables.shape[1]} codes, "
                f"but the language model makes {codebooks // channels} of {card}"
            )
        self.dtype = torch.float32
        if dtype != torch.float32:
            with exact_convolutions(device):
                self._try(dtype)

    @torch.inference_mode()
    def _try(self, dtype: torch.dtype) -> None:
        """Change to a precision, if what comes out is the same."""
        codebooks, card, _ = self._tables.shape
        generator = torch.Generator().manual_seed(0)
        trial = torch.randint(card, (codebooks, TRIAL_FRAMES), generator=generator)
        layers, expected = self._layers, self._decode_some([trial])[0]
        self._layers = [
            layer if isinstance(layer, _BatchedLstm) else copy.deepcopy(layer).to(dtype)
            for layer in layers
        ]
        self.dtype = dtype
        heard = self._decode_some([trial])[0]
        if not F.cosine_similarity(heard, expected).item() >= TRIAL_COSINE_MIN:
            self._layers, self.dtype = layers, torch.float32

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
            (channels, n) samples each, float32, on the CPU; the same for a clip by itself.
        """
        mono = [codes[channel :: self._channels] for codes in clips for channel in self._each()]
        sounds: list[Tensor] = []
        with exact_convolutions(self._device):
            for first in range(0, len(mono), CLIPS_AT_ONCE):
                sounds += self._decode_some(mono[first : first + CLIPS_AT_ONCE])
        return [
            torch.cat(sounds[first : first + self._channels])
            for first in range(0, len(sounds), self._channels)
        ]

    def decode_each(self, clips: Sequence[Tensor]) -> list[Tensor | Exception]:
        """Decode clips like `decode`, with an error in place of each that cannot be."""
        try:
            return list(self.decode(clips))
        except Exception:  # one by one, so that only those at fault are lost
            return [self._attempt(codes) for codes in clips]

    def _attempt(self, codes: Tensor) -> Tensor | Exception:
        try:
            return self.decode([codes])[0]
        except Exception as error:
            return error

    def _each(self) -> range:
        return range(self._channels)

    def _decode_some(self, clips: Sequence[Tensor]) -> list[Tensor]:
        """Decode a few clips of one channel: (K, frames) to (1, n) each."""
        hidden = [self._embed(codes.to(self._device)) for codes in clips]  # (1, D, frames) each
        done: list[Tensor] = []
        start = 0
        for end in [i for i, layer in enumerate(self._layers) if isinstance(layer, _BatchedLstm)]:
            hidden = [self._run(x, start, end) for x in hidden]
            hidden = [x.to(self.dtype) for x in self._layers[end]([x.float() for x in hidden])]
            start = end + 1
        while hidden:
            done.append(self._run(hidden.pop(0), start, len(self._layers))[0].float().cpu())
        return done

    def _embed(self, codes: Tensor) -> Tensor:
        """Add up the codebooks' vectors: (K, frames) to (1, D, frames)."""
        total = self._tables[0, codes[0]]
        for k in range(1, len(codes)):
            total = total + self._tables[k, codes[k]]
        return total.T.unsqueeze(0).to(self.dtype)

    def _run(self, x: Tensor, start: int, end: int) -> Tensor:
        for layer in self._layers[start:end]:
            x = layer(x)
        return x


class _BatchedLstm:
    """An LSTM with a skip connection, over clips of any lengths at once, on the CPU."""

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
        """Run over (1, D, frames) each; a clip never sees what fills up a shorter one."""
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
    """Compute the sigmoid by tanh: torch's own has other last bits at the end of an array."""
    return torch.tanh(x * 0.5) * 0.5 + 0.5


def _is_silent(lstm: nn.LSTM) -> bool:
    """Say whether an LSTM adds nothing; a codec without one is kept with zeros in its place."""
    return not any(parameter.any() for parameter in lstm.parameters())


def _fold_weight_norm(layer: nn.Module) -> nn.Module:
    for module in layer.modules():
        if hasattr(module, "parametrizations"):
            nn.utils.parametrize.remove_parametrizations(module, "weight")
    return layer


def _load(folder: Path) -> tuple[Any, Any, int]:
    """Build the decoder and the quantizer of a transformers folder."""
    with quiet():
        from transformers import EncodecConfig
        from transformers.models.encodec import modeling_encodec

        checkpoint = Checkpoint(folder / WEIGHTS_FILE)
        try:
            config = EncodecConfig.from_pretrained(folder, local_files_only=True)
            sizes = {name: getattr(config, name) for name in _CodecLimits.model_fields}
            _CodecLimits.model_validate(sizes)
            with torch.random.fork_rng(devices=[]):  # the first values are thrown away
                decoder = modeling_encodec.EncodecDecoder(config)
                quantizer = modeling_encodec.EncodecResidualVectorQuantizer(config)
            for part, module in (("decoder", decoder), ("quantizer", quantizer)):
                names = [name for name in checkpoint if name.startswith(f"{part}.")]
                state = {name.removeprefix(f"{part}."): checkpoint[name].float() for name in names}
                module.load_state_dict(state)
        except ValidationError as error:
            detail = error.errors(include_url=False)[0]
            raise ModelUnavailable(
                f"{folder} is damaged: {detail['loc'][0]}: {detail['msg']}"
            ) from None
        except (OSError, RuntimeError, ValueError, KeyError, AttributeError, TypeError) as error:
            reason = " ".join(str(error).split())[:160]
            raise ModelUnavailable(
                f"{folder} is damaged ({reason}); prepare the model again"
            ) from None
    return decoder, quantizer, int(config.sampling_rate)
