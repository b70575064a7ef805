"""The `Backend` protocol, and `connect`, which returns the backend at an address."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, runtime_checkable

from musicgen_lab.errors import BackendUnavailable

if TYPE_CHECKING:
    from musicgen_lab.clip import Clip, Failure, Provenance
    from musicgen_lab.models.prompt_tokens import PromptTokens
    from musicgen_lab.request import GenerationRequest
    from musicgen_lab.streaming import SoundChunk


OnProgress: TypeAlias = "Callable[[float], None]"
"""Called with the seconds of audio that were made since the last call."""


@runtime_checkable
class Backend(Protocol):
    """Something that makes clips: requests in, clips or failures out.

    Examples
    --------
    >>> import musicgen_lab as lab
    >>> backend = lab.connect("local")
    >>> request = lab.GenerationRequest(prompt="jazzy piano solo", duration=1, seed=0)
    >>> (clip,) = backend.generate([backend.resolve(request)])
    >>> clip.duration_s
    1.0
    """

    @property
    def name(self) -> str:
        """A short description for plans and messages."""

    def resolve(self, request: GenerationRequest) -> GenerationRequest:
        """Return the request with its model and revision filled in.

        Parameters
        ----------
        request : GenerationRequest

        Raises
        ------
        ModelUnavailable
            When this backend cannot serve that model.
        """

    def generate(
        self, requests: Iterable[GenerationRequest], on_progress: OnProgress | None = None
    ) -> Iterator[Clip | Failure]:
        """Make a clip or a failure for every resolved request, in the order in which they finish.

        Requests are taken lazily, as capacity becomes free. Not every backend reports progress.

        Parameters
        ----------
        requests : iterable of GenerationRequest
        on_progress : callable, optional
            Called with the seconds of sound that were made since the last call.
        """

    def estimate_s(self, requests: Sequence[GenerationRequest]) -> float | None:
        """Return the estimated seconds for making these, or None if unknown.

        Parameters
        ----------
        requests : sequence of GenerationRequest
            Resolved.
        """


@runtime_checkable
class Streams(Protocol):
    """A backend that hands out the sound of clips while they are made.

    Examples
    --------
    >>> import musicgen_lab as lab
    >>> backend = lab.connect("local")
    >>> request = lab.GenerationRequest(prompt="jazzy piano solo", duration=1, seed=0)
    >>> chunks = list(backend.stream(request))
    >>> chunks[0].start_s, chunks[-1].clip.duration_s
    (0.0, 1.0)
    """

    def stream(self, request: GenerationRequest) -> Iterator[SoundChunk]:
        """Yield the sound of a request while it is made; the last chunk has the clip.

        A caller that stops iterating, or closes the iterator, frees the clip's slot.

        Parameters
        ----------
        request : GenerationRequest

        Raises
        ------
        ModelUnavailable
            When this backend cannot serve the request's model.
        ClipFailed
            While iterating, when the clip cannot be finished.
        """

    def stream_all(
        self, requests: Sequence[GenerationRequest]
    ) -> Iterator[tuple[int, SoundChunk | Failure]]:
        """Yield the sound of several requests while they are made together.

        Parameters
        ----------
        requests : sequence of GenerationRequest
            Of one model.

        Yields
        ------
        tuple of int and SoundChunk or Failure
            The index of a request and its next chunk, or its failure. A request ends with the chunk
            that has its clip, or with its failure.
        """


@runtime_checkable
class KnowsCodebooks(Protocol):
    """A backend that knows the codebooks of its models before it makes a clip."""

    def codebook_size(self, model: str) -> int:
        """Return the tokens in a codebook of a resolved model, or the most that any model has."""


@runtime_checkable
class ReadsPrompts(Protocol):
    """A backend that knows what its models read of prompts before it makes a clip."""

    def read_prompts(self, model: str, prompts: Sequence[str]) -> list[PromptTokens] | None:
        """Return what a resolved model's text encoder reads of each prompt; None if unknown.

        Parameters
        ----------
        model : str
            "name@revision".
        prompts : sequence of str
            Of at least one character that is seen.

        Raises
        ------
        BackendUnavailable
            When the backend is asked and cannot say it now.
        """


@runtime_checkable
class KnowsModels(KnowsCodebooks, ReadsPrompts, Protocol):
    """A backend that knows what its models can do and how it computes, before it makes a clip."""

    def mismatch(self, provenance: Provenance) -> str | None:
        """Return how a clip was made differently from this backend; None if equally.

        Parameters
        ----------
        provenance : Provenance
            As in a clip's record.
        """


def connect(address: str = "local", **options: Any) -> Backend:
    """Return the backend at an address.

    Parameters
    ----------
    address : str
        "local" for the embedded model in this process, or "local:MODEL" for another one: a Hub id
        such as "facebook/musicgen-small", or the path of a model or checkpoint folder. "modal" for
        the service deployed on Modal, or "modal:APP" where its app has another name. "https://…"
        for a service anywhere.
    **options
        The backend's own options; see `LocalBackend`, `ModalBackend` and `HttpBackend`.

    Raises
    ------
    BackendUnavailable
        When the address is unknown, or the backend's extra is not installed.
    ModelUnavailable
        When there is no such model.

    Examples
    --------
    >>> backend = connect("local")
    """
    if not isinstance(address, str):
        raise _unknown(address)
    kind, _, model = address.partition(":")
    if kind == "local":
        from musicgen_lab.backends.local import LocalBackend
        from musicgen_lab.models.locate import EMBEDDED

        return LocalBackend(model or EMBEDDED, **options)
    if kind == "modal":
        from musicgen_lab.backends.modal import APP, ModalBackend

        return ModalBackend(model or APP, **options)
    if kind in ("http", "https"):
        from musicgen_lab.backends.http import HttpBackend

        return HttpBackend(address, **options)
    raise _unknown(address)


def _unknown(address: object) -> BackendUnavailable:
    return BackendUnavailable(
        f"no backend is called {address!r}; use local, local:MODEL, modal, modal:APP, "
        "or the address of a service, https://…"
    )
