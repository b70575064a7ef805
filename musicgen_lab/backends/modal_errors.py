"""Modal's errors translated into one sentence each, with the command that helps."""

from __future__ import annotations

from dataclasses import replace

from musicgen_lab.clip import Failure
from musicgen_lab.errors import BackendUnavailable
from musicgen_lab.request import GenerationRequest

_MESSAGE_MAX = 500


def raise_unavailable(error: Exception, app: str, environment: str | None) -> None:
    """Raise `BackendUnavailable` if an error concerns every request, or is one; otherwise return.

    Raises
    ------
    BackendUnavailable
    """
    from modal import exception as modal

    if isinstance(error, BackendUnavailable):
        raise error
    reason = _one_line(error)
    where = f" in the environment {environment!r}" if environment else ""
    if isinstance(error, modal.AuthError):
        message = f"Modal rejected the token ({reason}); run `modal token new`"
    elif isinstance(error, modal.PermissionDeniedError):
        message = f"Modal denies access to {app!r}{where} ({reason}); check `modal profile current`"
    elif isinstance(error, modal.NotFoundError):
        message = (
            f"no app {app!r} is deployed{where} ({reason}); run `modal deploy service/app.py`, or "
            "name its environment: connect('modal', environment=…), see `modal environment list`"
        )
    elif isinstance(error, modal.ConnectionError | modal.ServiceError):
        message = f"Modal cannot be reached ({reason}); check the network, then run again to resume"
    elif isinstance(error, modal.VersionError):
        message = f"Modal requires a newer client ({reason}); run `pip install --upgrade modal`"
    else:
        return
    raise BackendUnavailable(message) from error


def failure_of(request: GenerationRequest, error: Exception) -> Failure:
    """Return a request's failure for a Modal error, with its traceback."""
    error_type, message = describe_failure(error)
    return replace(Failure.from_error(request, error), error_type=error_type, message=message)


def describe_failure(error: Exception) -> tuple[str, str]:
    """Return the type of an error that ended one request, and a sentence on what to do."""
    from modal import exception as modal

    kinds: tuple[tuple[type[Exception], str, str], ...] = (
        (
            modal.FunctionTimeoutError,
            "Timeout",
            "the clip took longer than the service allows: ask for a shorter one, or deploy with "
            "a larger MUSICGEN_TIMEOUT",
        ),
        (
            modal.OutputExpiredError,
            "ResultExpired",
            "Modal keeps results for a limited time and no longer has it: run the sweep again",
        ),
        (
            modal.InternalFailure,
            "ContainerLost",
            "its container was lost before the clip was made: run the sweep again",
        ),
        (
            modal.ResourceExhaustedError,
            "ResourceExhausted",
            "Modal has no capacity for it now: run the sweep again later, or with at_once=…",
        ),
        (
            modal.RemoteError,
            "RemoteError",
            "the container failed: see `modal app logs`, then run the sweep again",
        ),
    )
    for kind, name, way_out in kinds:
        if isinstance(error, kind):
            return name, f"{way_out} ({_one_line(error) or 'Modal gave no details'})"
    return type(error).__name__, _one_line(error)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:_MESSAGE_MAX]
