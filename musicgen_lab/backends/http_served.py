"""`Served`: the models that a service at a URL serves, and its limits, as it says them itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from musicgen_lab.backends.wire import check_format
from musicgen_lab.errors import BackendUnavailable, InvalidRequest
from musicgen_lab.fields import MODEL_MAX_CHARACTERS, TOP_K_MAX
from musicgen_lab.limits import WINDOW_S
from musicgen_lab.request import GenerationRequest
from musicgen_lab.source import SOURCE_MAX_BYTES

MODELS_MAX = 100  # that a service may serve


@dataclass(frozen=True)
class Served:
    """What a service serves, and its limits.

    Attributes
    ----------
    host : str
        For messages.
    codebook_sizes : dict of str to int
        By model, "name@revision", the default one first.
    duration_max_s : int or float
        Of a clip.
    source_max_bytes : int or float
        Of a sound to begin with.
    """

    host: str
    codebook_sizes: dict[str, int]
    duration_max_s: int | float
    source_max_bytes: int | float

    @classmethod
    def read(cls, body: dict[str, Any], host: str) -> Served:
        """Read the answer to GET /models, possibly of an untrusted service.

        Raises
        ------
        BackendUnavailable
            When it is something else, or of another format.
        """
        models = body.get("models")
        if (
            not isinstance(models, list)
            or not 1 <= len(models) <= MODELS_MAX
            or not all(isinstance(model, str) and model.strip() for model in models)
        ):
            raise BackendUnavailable(f"{host} answers, but is not a MusicGen Lab service")
        check_format(body.get("format"))
        sizes = body.get("codebook_sizes")
        sizes = sizes if isinstance(sizes, dict) else {}
        served = {}
        for model in models:
            size = sizes.get(model)
            if type(size) is not int or not 1 <= size <= TOP_K_MAX:
                size = TOP_K_MAX
            served[model[:MODEL_MAX_CHARACTERS]] = size
        return cls(
            host,
            served,
            _limit(body, "duration_max_s", WINDOW_S),
            _limit(body, "source_max_bytes", SOURCE_MAX_BYTES),
        )

    def check(self, request: GenerationRequest) -> None:
        """Raise for what the service would refuse.

        Raises
        ------
        InvalidRequest
        """
        if request.duration > self.duration_max_s:
            raise InvalidRequest(
                f"duration must be at most the {self.duration_max_s:g} s that {self.host} "
                f"makes, got {request.duration:g}",
                field="duration",
                value=request.duration,
            )
        source = request.begin_with
        if source is not None and source.nbytes > self.source_max_bytes:
            raise InvalidRequest(
                f"{source.name} has {source.nbytes:,} bytes, and {self.host} takes "
                f"{self.source_max_bytes:,}; cut out the part to begin with, or store it as FLAC",
                field="begin_with",
                value=source.name,
            )


def _limit(body: dict[str, Any], name: str, default: int | float) -> int | float:
    """Return a limit of a service, which may be of an earlier version that does not name it."""
    value = body.get(name, default)
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and value > 0
    return value if is_number else default
