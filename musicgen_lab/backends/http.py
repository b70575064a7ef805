"""`HttpBackend`: clips from a MusicGen Lab service at a URL."""

from __future__ import annotations

import asyncio
import base64
import math
import os
import queue
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote, urlsplit

from musicgen_lab.backends.api_key import KEY_ADDRESS, is_loopback, keys_are_for, read_api_key
from musicgen_lab.backends.event_loop import EventLoop
from musicgen_lab.backends.events import read_events
from musicgen_lab.backends.submitting import (
    LOST,
    RETRY_AFTER_S,
    TRIES,
    Result,
    RetryLater,
    SubmittedStreams,
    generate_by_submitting,
    resolve_served,
)
from musicgen_lab.backends.wire import FORMAT, check_format, unpack, unpack_chunk
from musicgen_lab.clip import Clip, Failure, checked
from musicgen_lab.errors import BackendUnavailable, InvalidRequest
from musicgen_lab.limits import WINDOW_S
from musicgen_lab.request import MODEL_MAX_CHARACTERS, TOP_K_MAX, GenerationRequest
from musicgen_lab.source import SOURCE_MAX_BYTES, Source
from musicgen_lab.streaming import OnChunk

if TYPE_CHECKING:
    import httpx2

    from musicgen_lab.backends import OnProgress

PROXY_KEY, PROXY_SECRET = "MUSICGEN_PROXY_KEY", "MUSICGEN_PROXY_SECRET"
CONNECT_TIMEOUT_S = 10.0
READ_TIMEOUT_S = 900.0  # Modal answers 303 after 150 s; a service on a laptop may take its time
CONNECT_ATTEMPTS = 4
REDIRECTS_MAX = 100
RETRY_AFTER_MAX_S = 60
POLL_MIN_S, POLL_MAX_S, POLL_GROWTH = 0.1, 2.0, 1.5  # between two polls of a job
POLL_ERRORS_MAX = 10  # in a row
CANCEL_S = 5.0  # for sending cancellations to the service
LOST_HERE = (*LOST, "JobLost")
ANSWER_MAX_BYTES = 160 * 1024**2  # 300 s of stereo at 48 kHz in base64 are 154 million
JOB_ID_MAX_CHARACTERS = 200
MODELS_MAX = 100  # that a service may serve
MALFORMED = (ArithmeticError, KeyError, TypeError, ValueError)  # what reading a body may raise
EXACT = {"sample_format": "FLOAT"}
EVENTS = "text/event-stream"
T = TypeVar("T")


@dataclass(frozen=True)
class _Served:
    """What a service serves, and its limits."""

    codebook_sizes: dict[str, int]  # by model
    duration_max_s: float
    source_max_bytes: float


@dataclass
class _Making:
    request: GenerationRequest
    report: Callable[[float], None] | None = None  # takes seconds of audio
    on_chunk: OnChunk | None = None
    reported_s: float = 0.0
    sent: int = 0  # samples per channel that `on_chunk` got

    def tell(self, job: dict[str, Any]) -> None:
        """Report the audio made since the last report; audio that is made again counts once."""
        steps_done, steps = job.get("steps_done"), job.get("steps")
        if self.report is None or not steps or steps_done is None:
            return
        if not 0 <= steps_done <= steps:
            raise ValueError("more steps are done than there are")
        made_s = self.request.new_s * float(steps_done) / float(steps)
        if made_s > self.reported_s:
            self.report(made_s - self.reported_s)
            self.reported_s = made_s


class HttpBackend(SubmittedStreams):
    """A MusicGen Lab service at a URL: on Modal, or `musicgen-lab serve` anywhere.

    A request becomes a job of the service and is polled until it has ended; a service without jobs
    may answer with the clip itself. A request that may have arrived at the service is not sent
    again, unless the service reports it as lost: then at most twice more. Requests that could not
    be sent, or were refused because the service was full or starting, are sent again. A job that
    makes no progress is given up as a failure, `Stalled`.

    Parameters
    ----------
    address : str
        "https://…" or "http://…", without a path.
    api_key : str, optional
        Sent as a bearer token; by default that of the environment variable MUSICGEN_API_KEY, or
        of the file that MUSICGEN_API_KEY_FILE names.
    proxy_key, proxy_secret : str, optional
        A proxy auth token of Modal's, its id and its secret, for a service deployed with
        MUSICGEN_PROXY_AUTH; by default those of the environment variables MUSICGEN_PROXY_KEY and
        MUSICGEN_PROXY_SECRET. Keys of the environment are sent to the address that
        MUSICGEN_KEY_ADDRESS names, and without it to this machine alone.
    plain_http : bool
        Allow keys given here to be sent unencrypted to another machine.
    at_once : int
        Requests in flight at once.
    patience_s : float
        How long to keep retrying while the service is full, in seconds.
    stalled_s : float
        How long a job may make no progress, in seconds: a running one by its own steps, a queued
        one by those of all jobs of this backend.

    Raises
    ------
    BackendUnavailable
        When the address is invalid, or httpx2 is not installed.
    InvalidRequest
        When a variable is set but empty, one half of the proxy token is missing, or a key would be
        sent unencrypted to another machine.
    """

    def __init__(
        self,
        address: str,
        *,
        api_key: str | None = None,
        proxy_key: str | None = None,
        proxy_secret: str | None = None,
        plain_http: bool = False,
        at_once: int = 32,
        patience_s: float = 900.0,
        stalled_s: float = 900.0,
    ) -> None:
        try:
            import httpx2
        except ImportError:
            raise BackendUnavailable(
                "a service at a web address needs httpx2, not installed here: pip install httpx2"
            ) from None
        parts = urlsplit(address)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise BackendUnavailable(
                f"{address!r} is not the address of a service; one looks like "
                "http://127.0.0.1:8000 or https://….modal.run"
            )
        if at_once < 1:
            raise InvalidRequest(
                f"at_once must be 1 or more, got {at_once}", field="at_once", value=at_once
            )
        self._host, self._at_once, self._patience_s = parts.netloc, at_once, patience_s
        self._stalled_s, self._progressed_s = stalled_s, 0.0  # the latest progress of any job
        self._environment_keys_sent = keys_are_for(address)
        given = any((api_key, proxy_key, proxy_secret))
        if (
            given
            and parts.scheme == "http"
            and not (plain_http or self._environment_keys_sent or is_loopback(parts.hostname))
        ):
            raise InvalidRequest(
                f"the key would be sent unencrypted to {parts.netloc}: give an https address, or a "
                "tunnel's on 127.0.0.1, or allow it: connect(address, …, plain_http=True)",
                field="plain_http",
                value=plain_http,
            )
        environment = os.environ if self._environment_keys_sent else {}
        headers = {"Accept": "application/json"}
        key = api_key or read_api_key(environment)
        if key:
            headers["Authorization"] = f"Bearer {key}"
        proxy = (
            proxy_key or environment.get(PROXY_KEY, "").strip(),
            proxy_secret or environment.get(PROXY_SECRET, "").strip(),
        )
        if any(proxy):
            if not all(proxy):
                raise InvalidRequest(
                    "a proxy auth token of Modal's has two parts: give both proxy_key and "
                    f"proxy_secret, or set both {PROXY_KEY} and {PROXY_SECRET}"
                )
            headers |= {"Modal-Key": proxy[0], "Modal-Secret": proxy[1]}
        self._client = httpx2.AsyncClient(
            base_url=f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}",
            headers={name.encode(): value.encode() for name, value in headers.items()},
            timeout=httpx2.Timeout(READ_TIMEOUT_S, connect=CONNECT_TIMEOUT_S),
            limits=httpx2.Limits(max_connections=None),
        )
        self._loop = EventLoop("http backend")
        self._served: _Served | None = None
        self._sent_sources: dict[str, asyncio.Lock] = {}  # by digest; locked while it is sent

    @property
    def name(self) -> str:
        """The service's host."""
        return self._host

    def resolve(self, request: GenerationRequest) -> GenerationRequest:
        """Return the request with the service's model and revision.

        Raises
        ------
        BackendUnavailable
            When there is no service, or it speaks another format.
        ModelUnavailable
            When the service does not serve that model.
        InvalidRequest
            When the clip is longer than the service makes, or begins with a larger sound.
        """
        served = self._ask_once()
        self._check_limits(request, served)
        return resolve_served(request, list(served.codebook_sizes))

    def codebook_size(self, model: str) -> int:
        """Return the tokens in a codebook of a served model, or the most that any model has."""
        return self._ask_once().codebook_sizes.get(model, TOP_K_MAX)

    def submit(self, request: GenerationRequest, on_chunk: OnChunk | None = None) -> Future[Result]:
        """Send a resolved request; cancelling the future cancels it at the service too.

        Parameters
        ----------
        request : GenerationRequest
        on_chunk : callable, optional
            Called with the clip's sound, part by part, in this backend's thread.
        """
        return self._loop.start(self._make(_Making(request, on_chunk=on_chunk)))

    def settle(self) -> None:
        """Wait a moment for what was cancelled to be cancelled at the service too."""
        self._loop.settle(2 * CANCEL_S)

    def generate(
        self, requests: Iterable[GenerationRequest], on_progress: OnProgress | None = None
    ) -> Iterator[Result]:
        """Make a clip or a failure of every request, in the order of finishing."""
        events: queue.SimpleQueue[Future[Result] | float] = queue.SimpleQueue()
        try:
            yield from generate_by_submitting(
                lambda request: self._loop.start(
                    self._make(_Making(request, events.put if on_progress else None))
                ),
                requests,
                at_once=self._at_once,
                on_progress=on_progress,
                events=events,
            )
        finally:
            self.settle()

    def estimate_s(self, requests: Sequence[GenerationRequest]) -> float | None:
        """Return None: the machine behind the address is unknown."""
        return None if requests else 0.0

    def close(self, drain_s: float = 0.0) -> None:
        """Cancel all requests in flight, here and at the service, and close every connection."""
        self._loop.cancel_all()
        self.settle()
        self._loop.wait(self._client.aclose())

    def _ask_once(self) -> _Served:
        """Return what the service serves; it is asked once."""
        if self._served is None:
            self._served = self._loop.wait(self._ask_models())
        return self._served

    def _check_limits(self, request: GenerationRequest, served: _Served) -> None:
        """Raise for what the service would refuse."""
        if request.duration > served.duration_max_s:
            raise InvalidRequest(
                f"duration must be at most the {served.duration_max_s:g} s that {self._host} "
                f"makes, got {request.duration:g}",
                field="duration",
                value=request.duration,
            )
        source = request.begin_with
        if source is not None and len(source.content or b"") > served.source_max_bytes:
            raise InvalidRequest(
                f"{source.name} has {len(source.read()):,} bytes, and {self._host} takes "
                f"{served.source_max_bytes:,}; cut out the part to begin with, or store it as FLAC",
                field="begin_with",
                value=source.name,
            )

    async def _ask_models(self) -> _Served:
        answer = await self._send("GET", "/models")
        if answer.status_code != 200:
            raise self._refused(answer)
        body = _read_json(answer)
        models = body.get("models")
        if not isinstance(models, list) or not 1 <= len(models) <= MODELS_MAX:
            raise BackendUnavailable(f"{self._host} answers, but is not a MusicGen Lab service")
        check_format(body.get("format"))
        sizes = body.get("codebook_sizes")
        sizes = sizes if isinstance(sizes, dict) else {}
        served = {}
        for model in models:
            size = sizes.get(str(model))
            if type(size) is not int or not 1 <= size <= TOP_K_MAX:
                size = TOP_K_MAX
            served[str(model)[:MODEL_MAX_CHARACTERS]] = size
        return _Served(
            served,
            _limit(body, "duration_max_s", WINDOW_S),
            _limit(body, "source_max_bytes", SOURCE_MAX_BYTES),
        )

    async def _make(self, making: _Making) -> Result:
        import httpx2

        request, waited_s, lost = making.request, 0, 0
        while True:
            try:
                result = await self._try(making)
            except httpx2.TransportError as error:
                return Failure(
                    request,
                    "ConnectionLost",
                    f"the connection to {self._host} was lost ({type(error).__name__}) after the "
                    "request was sent; run the sweep again to try it once more",
                )
            except (httpx2.HTTPError, httpx2.InvalidURL, *MALFORMED) as error:
                return Failure(
                    request,
                    "InvalidAnswer",
                    f"{self._host} answered what cannot be read ({type(error).__name__}); "
                    "is it a MusicGen Lab service of this version?",
                )
            except RetryLater as error:
                waited_s += error.retry_after_s
                if waited_s > self._patience_s:
                    return Failure(request, "Busy", f"{self._host} stayed full: {error}")
                await asyncio.sleep(error.retry_after_s)
                continue
            lost += 1
            if (
                isinstance(result, Clip)
                or result.error_type not in LOST_HERE
                or lost == TRIES
                or making.sent  # sound that was heard cannot begin again
            ):
                return result

    async def _try(self, making: _Making) -> Result:
        """Send a request once, and return its result.

        Raises
        ------
        RetryLater
            When the service does not accept it now.
        httpx2.TransportError
            When the connection is lost.
        """
        if making.on_chunk is not None:
            heard = await self._with_source(making.request, lambda: self._hear(making))
            if isinstance(heard, Clip | Failure):
                return heard
            return self._read(heard, making.request)
        request = making.request
        posting = asyncio.ensure_future(self._with_source(request, lambda: self._post(request)))
        try:
            answer = await asyncio.shield(posting)
            if answer.status_code == 202:
                return await self._follow(self._job_path(answer), making)
        except asyncio.CancelledError:
            await asyncio.shield(self._withdraw(posting))
            raise
        return self._read(answer, making.request)

    async def _hear(self, making: _Making) -> httpx2.Response | Result:
        """Send a request once and hand on its sound; return what ends it, or a refusal."""
        return await self._exchange(
            lambda answer: self._hand_on(answer, making),
            "POST",
            "/generate_endpoint",
            json=making.request.model_dump(),
            params={"stream": "1", **EXACT},
            headers={"Accept": EVENTS},
        )

    async def _hand_on(self, answer: httpx2.Response, making: _Making) -> httpx2.Response | Result:
        import httpx2

        kind = answer.headers.get("content-type", "").partition(";")[0]
        if answer.status_code != 200 or kind != EVENTS or making.on_chunk is None:
            return await self._receive(answer)
        async for name, body in read_events(answer.aiter_bytes(), ANSWER_MAX_BYTES):
            if name == "done":
                return self._read_clip(body, making.request)
            if name == "failed":
                kind = str(body.get("error_type"))
                message = str(body.get("message") or body.get("detail"))
                return checked(Failure(making.request, kind, message))
            if name == "sound":
                body["wav"] = base64.b64decode(body["audio_base64"])
                chunk = unpack_chunk(body, making.request, making.sent)
                making.sent += chunk.samples.shape[1]
                making.on_chunk(chunk)
        raise httpx2.RemoteProtocolError("the events ended before the clip")

    async def _withdraw(self, posting: asyncio.Future[httpx2.Response]) -> None:
        """Cancel the job that a request started or is about to start."""
        import httpx2

        await asyncio.wait([posting], timeout=CANCEL_S)
        if not posting.done():  # the clip itself is the response: disconnecting frees its slot
            posting.cancel()
            return
        with suppress(
            asyncio.CancelledError, BackendUnavailable, httpx2.TransportError, *MALFORMED
        ):
            if posting.result().status_code == 202:
                await self._send("DELETE", self._job_path(posting.result()))

    async def _follow(self, path: str, making: _Making) -> Result:
        """Poll a job until it has ended.

        Raises
        ------
        RetryLater
            When the service ran out of capacity for it.
        httpx2.TransportError
            When the service is no longer reachable.
        """
        import httpx2

        pause_s, errors = POLL_MIN_S, 0
        furthest, progressed_s = (False, 0), time.monotonic()  # whether it runs, and its steps
        while True:
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * POLL_GROWTH, POLL_MAX_S)
            try:
                answer = await self._send("GET", path, params=EXACT)
                if answer.status_code == 429 or answer.status_code >= 500:
                    raise httpx2.RemoteProtocolError(f"HTTP {answer.status_code}")
            except httpx2.TransportError:
                errors += 1
                if errors == POLL_ERRORS_MAX:
                    raise
                continue  # a poll has no side effects
            errors = 0
            if answer.status_code in (404, 410):  # the service was started again, or it is too late
                return Failure(making.request, "JobLost", _detail(answer))
            if answer.status_code != 200:
                raise self._refused(answer)
            job = _read_json(answer)
            making.tell(job)
            status = job.get("status")
            if status not in ("queued", "running"):
                self._progressed_s = time.monotonic()
                return self._read_job(job, making.request)
            reached = (status == "running", job.get("steps_done") or 0)
            if reached > furthest:
                furthest, progressed_s = reached, time.monotonic()
                self._progressed_s = progressed_s
            elif status == "queued":
                progressed_s = max(progressed_s, self._progressed_s)
            if time.monotonic() - progressed_s > self._stalled_s:
                await self._send("DELETE", path)
                return Failure(
                    making.request,
                    "Stalled",
                    f"the job at {self._host} is {status} and made no progress for "
                    f"{self._stalled_s:g} s; run the sweep again to try it once more",
                )

    def _job_path(self, answer: httpx2.Response) -> str:
        """Return the path of a job at this service.

        Behind a proxy its Location header may name another host, which must not receive the key.
        """
        job_id = _read_json(answer).get("id")
        if not isinstance(job_id, str) or not 1 <= len(job_id) <= JOB_ID_MAX_CHARACTERS:
            raise ValueError("202 without the id of a job")
        return f"/generate_endpoint/{quote(job_id, safe='')}"

    async def _with_source(
        self, request: GenerationRequest, post: Callable[[], Awaitable[T]]
    ) -> T | httpx2.Response:
        """Send a request, and before it what it begins with, unless the service has that.

        Parameters
        ----------
        request : GenerationRequest
        post : async callable
            Sends the request alone.

        Returns
        -------
        T or httpx2.Response
            What `post` returns, or the response that refuses the source.
        """
        import httpx2

        source = request.begin_with
        if source is None:
            return await post()
        first = source.digest not in self._sent_sources
        sending = self._sent_sources.setdefault(source.digest, asyncio.Lock())
        async with sending:  # others wait for the one that sends it
            refused = await self._send_source(source) if first else None
        if refused is not None:
            self._sent_sources.pop(source.digest, None)
            return refused
        answer = await post()
        refused_source = (
            isinstance(answer, httpx2.Response)
            and answer.status_code == 404
            and _read_json(answer).get("field") == "begin_with"
        )
        if not refused_source:
            return answer
        async with sending:  # the service was started again, or has dropped it
            refused = await self._send_source(source)
        return refused or await post()

    async def _send_source(self, source: Source) -> httpx2.Response | None:
        """Send a sound; return the service's answer if it is refused."""
        kind = {"Content-Type": "application/octet-stream"}
        answer = await self._send("POST", "/sources", content=source.read(), headers=kind)
        return None if answer.status_code == 201 else answer

    async def _post(self, request: GenerationRequest) -> httpx2.Response:
        """Send a request once, and follow the service's redirects to its response."""
        import httpx2

        answer = await self._send(
            "POST",
            "/generate_endpoint",
            json=request.model_dump(),
            params=EXACT,
            headers={"Prefer": "respond-async"},
        )
        for _ in range(REDIRECTS_MAX):
            if answer.status_code != 303:
                return answer
            place = answer.url.join(answer.headers["location"])
            if place.netloc != answer.url.netloc:  # it would receive the key
                raise BackendUnavailable(f"{self._host} redirects to another host, {place.host}")
            try:
                answer = await self._send("GET", str(place))
            except httpx2.ReadError:
                continue  # asking for a result again has no side effects
        return answer

    async def _send(self, method: str, url: str, **options: Any) -> httpx2.Response:
        """Send, and return the response with its body."""
        return await self._exchange(self._receive, method, url, **options)

    async def _exchange(
        self,
        receive: Callable[[httpx2.Response], Awaitable[T]],
        method: str,
        url: str,
        **options: Any,
    ) -> T:
        """Send, retrying where no connection was established, so that nothing was sent.

        Returns
        -------
        T
            What `receive` makes of the response, whose body is not read yet.
        """
        import httpx2

        for attempt in range(CONNECT_ATTEMPTS):
            try:
                async with self._client.stream(method, url, **options) as answer:
                    return await receive(answer)
            except (httpx2.ConnectError, httpx2.ConnectTimeout) as error:
                if attempt + 1 == CONNECT_ATTEMPTS:
                    raise BackendUnavailable(
                        f"no service answers at {self._host} ({error or type(error).__name__}); "
                        "start one with `musicgen-lab serve`, or check the address"
                    ) from error
                await asyncio.sleep(0.25 * 2**attempt)
        raise AssertionError("the loop above returns or raises")

    async def _receive(self, answer: httpx2.Response) -> httpx2.Response:
        """Return a response with its body, reading at most the size that a clip can have."""
        import httpx2

        body = bytearray()
        async for chunk in answer.aiter_bytes():
            body += chunk
            if len(body) > ANSWER_MAX_BYTES:
                raise BackendUnavailable(
                    f"{self._host} sent more than {ANSWER_MAX_BYTES:,} bytes, which no clip takes; "
                    "is it a MusicGen Lab service?"
                )
        headers = httpx2.Headers(answer.headers)
        headers.pop("content-encoding", None)  # the body is decoded
        return httpx2.Response(
            answer.status_code, headers=headers, content=bytes(body), request=answer.request
        )

    def _read(self, answer: httpx2.Response, request: GenerationRequest) -> Result:
        """Return the result in a response that is not a job."""
        if answer.status_code == 200:
            return self._read_clip(_read_json(answer), request)
        if answer.status_code in (401, 403, 404, 405):
            raise self._refused(answer)
        body = _read_json(answer)
        if answer.status_code in (429, 503) and body.get("error_type") not in LOST_HERE:
            raise RetryLater(_detail(answer), retry_after_s=_retry_after_s(answer))
        known = {422: "InvalidRequest", 504: "TimeoutError"}
        kind = body.get("error_type") or known.get(answer.status_code)
        kind = kind or f"HTTP {answer.status_code}"
        failure = Failure(request, str(kind), str(body.get("message") or _detail(answer)))
        return checked(failure)

    def _read_job(self, job: dict[str, Any], request: GenerationRequest) -> Result:
        """Return the result of a job that has ended."""
        if job.get("status") == "done":
            return self._read_clip(job.get("result"), request)
        kind = str(job.get("error_type") or job.get("status"))
        message = str(job.get("message") or f"the job is {job.get('status')}")
        if kind == "ResourceExhausted":
            raise RetryLater(message, retry_after_s=RETRY_AFTER_S)
        return checked(Failure(request, kind, message))

    def _read_clip(self, body: Any, request: GenerationRequest) -> Result:
        try:
            message = {
                "format": FORMAT,
                "status": "ok",
                "request": {
                    **request.model_dump(),
                    "seed": body["seed"],
                    "model": body["model"],
                },
                "wav": base64.b64decode(body["audio_base64"]),
                "provenance": body["provenance"],
                "elapsed_s": body["elapsed_s"],
                "codes": base64.b64decode(codes) if (codes := body.get("codes_base64")) else None,
            }
        except (KeyError, TypeError, ValueError) as error:
            return Failure(
                request,
                "InvalidAnswer",
                f"{self._host} answered with something other than a clip ({type(error).__name__}); "
                "is it a MusicGen Lab service of this version?",
            )
        return unpack(message, request)

    def _refused(self, answer: httpx2.Response) -> BackendUnavailable:
        ways_out = {
            401: "give its key: connect(address, api_key=…), or set MUSICGEN_API_KEY",
            404: "is it the address of a MusicGen Lab service, without a path?",
        }
        way_out = ways_out.get(answer.status_code, "is it a MusicGen Lab service?")
        if answer.status_code == 401 and "request_id" not in _read_json(answer):
            way_out = (
                "Modal's proxy asks for a token: create a proxy auth token in Modal's settings, "
                "and give it: connect(address, proxy_key=…, proxy_secret=…), or set "
                f"{PROXY_KEY} and {PROXY_SECRET}"
            )
        if answer.status_code == 401 and not self._environment_keys_sent:
            way_out += (
                f"; what the environment holds is sent to the address that {KEY_ADDRESS} names"
            )
        return BackendUnavailable(
            f"{self._host} answered {answer.status_code}: {_detail(answer)}; {way_out}"
        )


def _read_json(answer: httpx2.Response) -> dict[str, Any]:
    try:
        body = answer.json()
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}


def _limit(body: dict[str, Any], name: str, default: float) -> float:
    """Return a limit of a service, which may be of an earlier version that does not name it."""
    value = body.get(name, default)
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and value > 0
    return float(value) if is_number else default


def _detail(answer: httpx2.Response) -> str:
    return str(_read_json(answer).get("detail") or answer.reason_phrase)[:500]


def _retry_after_s(answer: httpx2.Response) -> int:
    try:
        seconds = float(answer.headers.get("retry-after", "1"))
    except ValueError:
        seconds = math.nan  # a date: not worth parsing for a pause
    return math.ceil(min(max(seconds, 0), RETRY_AFTER_MAX_S)) if math.isfinite(seconds) else 1
