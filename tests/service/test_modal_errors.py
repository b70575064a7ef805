"""What Modal's own errors are turned into: one sentence, with what to type."""

import pytest
from modal import exception

from musicgen_lab.backends.modal_errors import failure_of, raise_unavailable
from musicgen_lab.errors import BackendUnavailable
from musicgen_lab.request import GenerationRequest

REQUEST = GenerationRequest(prompt="x", seed=1)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (exception.AuthError("Token missing"), r"Token missing.*run `modal token new`"),
        (exception.PermissionDeniedError("no"), r"denies access to 'app'.*`modal profile current`"),
        (exception.NotFoundError("gone"), r"no app 'app' is deployed in the environment 'staging'"),
        (
            exception.NotFoundError("gone"),
            r"`modal deploy service/app\.py`.*`modal environment list`",
        ),
        (exception.ConnectionError("refused"), "cannot be reached.*run again to resume"),
        (exception.ServiceError("down"), "cannot be reached.*run again to resume"),
        (exception.VersionError("old"), "run `pip install --upgrade modal`"),
        (BackendUnavailable("this backend was closed"), "^this backend was closed$"),
    ],
)
def test_what_concerns_every_request_is_raised_in_one_sentence(error, said):
    with pytest.raises(BackendUnavailable, match=said) as raised:
        raise_unavailable(error, "app", "staging")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("error", "kind", "way_out"),
    [
        (exception.FunctionTimeoutError("600 s"), "Timeout", "MUSICGEN_TIMEOUT"),
        (exception.OutputExpiredError(), "ResultExpired", "run the sweep again"),
        (exception.InternalFailure("preempted"), "ContainerLost", "run the sweep again"),
        (exception.ResourceExhaustedError("quota"), "ResourceExhausted", "at_once"),
        (exception.RemoteError("line 1\nline 2"), "RemoteError", "modal app logs"),
        (ValueError("something else"), "ValueError", "something else"),
    ],
)
def test_what_ended_one_request_is_that_requests_failure(error, kind, way_out):
    raise_unavailable(error, "app", None)  # it does not concern the others
    failure = failure_of(REQUEST, error)
    assert failure.error_type == kind
    assert way_out in failure.message and "\n" not in failure.message
    assert type(error).__name__ in failure.traceback
