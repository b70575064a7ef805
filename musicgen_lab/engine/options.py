"""`EngineOptions`: the options of an engine that do not depend on the requests."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from musicgen_lab.errors import InvalidRequest


@dataclass(frozen=True)
class EngineOptions:
    """The options of an engine that do not depend on the requests.

    Attributes
    ----------
    device : str
        "auto", "cpu", "cuda" or any other of torch's.
    dtype : {"auto", "float32", "bfloat16", "float16"}
        "auto" is bfloat16 on a GPU that supports it, float32 elsewhere.
    max_clips : int or "auto"
        The most clips generated at once; "auto" is as many as the memory holds, at most 64 on a
        GPU and 32 elsewhere. How many it is at a time follows from their lengths: those that do not
        fit wait.
    cuda_graphs : bool
        Whether a step is recorded once and replayed, on a CUDA device.

    Raises
    ------
    InvalidRequest
        When `max_clips` is neither "auto" nor a number from 1 on.
    """

    device: str = "auto"
    dtype: str = "auto"
    max_clips: int | Literal["auto"] = "auto"
    cuda_graphs: bool = True

    def __post_init__(self) -> None:
        if self.max_clips != "auto" and not (
            isinstance(self.max_clips, int) and self.max_clips >= 1
        ):
            raise InvalidRequest(
                f"max_clips must be auto or at least 1, got {self.max_clips}",
                field="max_clips",
                value=self.max_clips,
            )


DEFAULT_OPTIONS = EngineOptions()
