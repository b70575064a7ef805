"""`Beginnings`: the codes that clips begin with."""

from __future__ import annotations

import math
from collections import OrderedDict

import numpy as np
import torch
from torch import Tensor

from musicgen_lab.clip import Samples
from musicgen_lab.engine.codec import CodecFiles
from musicgen_lab.engine.codec_encoder import CodecEncoder
from musicgen_lab.errors import InvalidRequest
from musicgen_lab.models.config import ModelConfig
from musicgen_lab.request import GenerationRequest
from musicgen_lab.source import Source

_KEPT = 32
_RESAMPLING_WINDOW = "kaiser", 8.0  # which suppresses aliases by 80 dB
_ROUNDING = 1e-6  # of a frame, which a product of seconds and frame rate may be off by

Part = tuple[str, float, float | None]  # digest of the source, begin_at, begin_s


class Beginnings:
    """The codes that clips begin with, encoded once for all clips of the same beginning.

    Parameters
    ----------
    config : ModelConfig
    files : CodecFiles
    codec : str
        Identity of the codec: given codes must be its own.
    device : torch.device
        Where to encode, and where the codes are wanted.
    """

    def __init__(
        self, config: ModelConfig, files: CodecFiles, codec: str, device: torch.device
    ) -> None:
        self._config, self._files, self._codec, self._device = config, files, codec, device
        self._encoder: CodecEncoder | None = None
        self._codes: OrderedDict[Part, Tensor] = OrderedDict()  # of the last few beginnings
        self._none = torch.empty(config.codebooks, 0, dtype=torch.long, device=device)

    def count_frames(self, request: GenerationRequest) -> int:
        """Return the codec frames that a request gives; 0 where the source's length is unknown."""
        return whole_frames(request.given_s or 0.0, self._config.frame_rate)

    def codes(self, request: GenerationRequest) -> Tensor:
        """Return the codes that a request begins with.

        Returns
        -------
        Tensor
            (K, frames), with no frames for a request without `begin_with`.

        Raises
        ------
        InvalidRequest
            When the source's content is not here, when its codes are those of another codec, or
            when a sound is longer than the model's window.
        """
        source = request.begin_with
        if source is None:
            return self._none
        part = (source.digest, request.begin_at, request.begin_s)
        if part not in self._codes:
            read = self._read_codes if source.is_codes else self._encode
            self._codes[part] = read(request, source).to(self._device)
        self._codes.move_to_end(part)
        while len(self._codes) > _KEPT:
            self._codes.popitem(last=False)
        return self._codes[part]

    def describe(self, request: GenerationRequest) -> str:
        """Return how the sound that a clip begins with was converted; empty if it was not."""
        source, config = request.begin_with, self._config
        if source is None or source.sample_rate is None or source.channels is None:
            return ""
        changes = []
        if source.sample_rate != config.sample_rate:
            changes.append(f"resampled from {source.sample_rate:,} to {config.sample_rate:,} Hz")
        if source.channels != config.channels:
            changes.append("mixed to mono" if config.channels == 1 else "mono on both channels")
        return ", ".join(changes)

    def _read_codes(self, request: GenerationRequest, source: Source) -> Tensor:
        """Return the part of the codes of a clip: (K, frames)."""
        stored, config = source.codes(), self._config
        if stored.codec != self._codec or len(stored.codes) != config.codebooks:
            raise InvalidRequest(
                f"begin_with {source.name or source.digest[:12]} has {len(stored.codes)} codebooks "
                f"of the codec {stored.codec}, and this model has {config.codebooks} of "
                f"{self._codec}; begin with its sound, or use its model",
                field="begin_with",
                value=source.digest,
            )
        first = whole_frames(request.begin_at, config.frame_rate)
        codes = stored.codes[:, first : first + self.count_frames(request)].astype(np.int64)
        if codes.max(initial=0) >= config.card:
            raise InvalidRequest(
                f"begin_with must have codes below {config.card:,}, got {codes.max():,}",
                field="begin_with",
                value=source.digest,
            )
        return torch.from_numpy(codes)

    def _encode(self, request: GenerationRequest, source: Source) -> Tensor:
        """Encode the part of a sound: (K, frames)."""
        config, frames = self._config, self.count_frames(request)
        if frames > config.count_frames(config.window_s):
            raise InvalidRequest(
                f"a clip can begin with at most {config.window_s:g} seconds of a sound, got "
                f"{frames / config.frame_rate:g}; choose a part with begin_at and begin_s",
                field="begin_s",
                value=request.begin_s,
            )
        samples, rate = source.sound()
        first = round(request.begin_at * rate)
        part = samples[:, first : first + math.ceil(frames / config.frame_rate * rate)]
        wanted = round(frames / config.frame_rate * config.sample_rate)
        converted = _resample(_mix(part, config.channels), rate, config.sample_rate)[:, :wanted]
        missing = wanted - converted.shape[1]  # where the source ends within its last frame
        padded = np.pad(converted, ((0, 0), (0, missing)))
        if self._encoder is None:
            self._encoder = CodecEncoder(
                self._files,
                channels=config.channels,
                codebooks=config.codebooks,
                device=self._device,
            )
        return self._encoder.encode(torch.from_numpy(padded))


def whole_frames(seconds: float, frame_rate: float) -> int:
    """Return the codec frames that lie within some seconds as a whole."""
    return math.floor(seconds * frame_rate + _ROUNDING)


def _mix(samples: Samples, channels: int) -> Samples:
    """Return 1 or 2 channels: the mean of two, or one of them twice."""
    if len(samples) == channels:
        return samples
    return samples.mean(axis=0, keepdims=True) if channels == 1 else np.repeat(samples, 2, axis=0)


def _resample(samples: Samples, rate: int, new_rate: int) -> Samples:
    """Resample (channels, n) from one rate in Hz to another."""
    if rate == new_rate:
        return samples
    from scipy.signal import resample_poly

    common = math.gcd(rate, new_rate)
    resampled = resample_poly(
        samples, new_rate // common, rate // common, axis=1, window=_RESAMPLING_WINDOW
    )
    return np.ascontiguousarray(resampled, dtype=np.float32)
