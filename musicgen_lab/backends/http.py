"""`HttpBackend`: clips from a MusicGen Lab service at a URL."""

from __future__ import annotations

import asyncio
import base64
import queue
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote

from musicgen_lab.backends.event_loop import EventLoop
from musicgen_lab.backends.events import read_events
from musicgen_lab.backends.http_client import (
    ANSWER_MAX_BYTES,
    HttpClient,
    detail,
    read_json,
    retry_after_s,
)
from musicgen_lab.backends.http_served import Served
from musicgen_lab.backends.submitting import (
    LOST,
    RETRY_AFTER_S,
    TRIES,
    Result,
    RetryLater,
    SubmittedStreams,
    check_at_once,
    generate_by_submitting,
    resolve_served,
)
from musicgen_lab.backends.wire import (
    FORMAT,
    PROMPTS_MAX,
    unpack,
    unpack_chunk,
    unpack_prompts,
)
from musicgen_lab.clip import Clip, Failure, checked
from musicgen_lab.errors import BackendUnavailable
from musicgen_lab.fields import TOP_K_MAX
from musicgen_lab.models.prompt_tokens import PromptTokens
from musicgen_lab.request import GenerationRequest
from musicgen_lab.source import Source
from musicgen_lab.streaming import OnChunk

if TYPE_CHECKING:
    import httpx2

    from musicgen_lab.backends import OnProgress

REDIRECTS_MAX = 100
POLL_MIN_S, POLL_MAX_S, POLL_GROWTH = 0.1, 2.0, 1.5  # between two polls of a job
POLL_ERRORS_MAX = 10  # in a row
CANCEL_S = 5.0  # for sending cancellations to the service
LOST_HERE = (*LOST, "JobLost")
JOB_ID_MAX_CHARACTERS = 200
MALFORMED = (ArithmeticError, KeyError, TypeError, ValueError)  # what reading a body may raise
EXACT = {"sample_format": "FLOAT"}
EVENTS = "text/event-stream"
T = TypeVar("T")


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
        self._client = HttpClient(
            address,
            api_key=api_key,
            proxy_key=proxy_key,
            proxy_secret=proxy_secret,
            plain_http=plain_http,
        )
        self._at_once, self._patience_s = check_at_once(at_once), patience_s
        self._stalled_s, self._progressed_s = stalled_s, 0.0  # the latest progress of any job
        self._loop = EventLoop("http backend")
        self._served: Served | None = None
        self._sent_sources: dict[str, asyncio.Lock] = {}  # by digest; locked while it is sent

    @property
    def name(self) -> str:
        """The service's host."""
        return self._client.host

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
        served.check(request)
        return resolve_served(request, list(served.codebook_sizes))

    def codebook_size(self, model: str) -> int:
        """Return the tokens in a codebook of a served model, or the most that any model has."""
        return self._ask_once().codebook_sizes.get(model, TOP_K_MAX)

    def read_prompts(self, model: str, prompts: Sequence[str]) -> list[PromptTokens] | None:
        """Return what a served model reads of each prompt; None if the service does not say it.

        Raises
        ------
        BackendUnavailable
            When there is no service, or its answer cannot be read.
        """
        read: list[PromptTokens] = []
        for start in range(0, len(prompts), PROMPTS_MAX):
            part = list(prompts[start : start + PROMPTS_MAX])
            body = {"model": model, "prompts": part}
            answer = self._loop.wait(self._client.ask("POST", "/prompts", json=body))
            if answer.status_code in (404, 405):  # of an earlier version, without this path
                return None
            if answer.status_code != 200:
                raise self._client.refused(answer)
            messages = read_json(answer).get("prompts")
            if messages is None:  # of a model that is yet to be prepared
                return None
            read += unpack_prompts(messages, len(part))
        return read

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
        self._loop.close(2 * CANCEL_S, self._client.close)

    def _ask_once(self) -> Served:
        """Return what the service serves; it is asked once."""
        if self._served is None:
            answer = self._loop.wait(self._client.ask("GET", "/models"))
            if answer.status_code != 200:
                raise self._client.refused(answer)
            self._served = Served.read(read_json(answer), self.name)
        return self._served

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
                    f"the connection to {self.name} was lost ({type(error).__name__}) after the "
                    "request was sent; run the sweep again to try it once more",
                )
            except (httpx2.HTTPError, httpx2.InvalidURL, *MALFORMED) as error:
                return Failure(
                    request,
                    "InvalidAnswer",
                    f"{self.name} answered what cannot be read ({type(error).__name__}); "
                    "is it a MusicGen Lab service of this version?",
                )
            except RetryLater as error:
                waited_s += error.retry_after_s
                if waited_s > self._patience_s:
                    return Failure(request, "Busy", f"{self.name} stayed full: {error}")
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
        return await self._client.exchange(
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
            return await self._client.receive(answer)
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
                await self._client.send("DELETE", self._job_path(posting.result()))

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
                answer = await self._client.send("GET", path, params=EXACT)
                if answer.status_code == 429 or answer.status_code >= 500:
                    raise httpx2.RemoteProtocolError(f"HTTP {answer.status_code}")
            except httpx2.TransportError:
                errors += 1
                if errors == POLL_ERRORS_MAX:
                    raise
                continue  # a poll has no side effects
            errors = 0
            if answer.status_code in (404, 410):  # the service was started again, or it is too late
                return Failure(making.request, "JobLost", detail(answer))
            if answer.status_code != 200:
                raise self._client.refused(answer)
            job = read_json(answer)
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
                await self._client.send("DELETE", path)
                return Failure(
                    making.request,
                    "Stalled",
                    f"the job at {self.name} is {status} and made no progress for "
                    f"{self._stalled_s:g} s; run the sweep again to try it once more",
                )

    def _job_path(self, answer: httpx2.Response) -> str:
        """Return the path of a job at this service.

        Behind a proxy its Location header may name another host, which must not receive the key.
        """
        job_id = read_json(answer).get("id")
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
        if source is None or source.content is None:  # one without content may be there already
            return await post()
        first = source.digest not in self._sent_sources
        sending = self._sent_sources.setdefault(source.digest, asyncio.Lock())
        async with sending:  # others wait for the one that sends it
            refused = await self._send_source(source) if first else None
        if refused is not None:
            self._sent_sources.pop(source.digest, None)
            return refused
        answer = await post()
        if not (isinstance(answer, httpx2.Response) and _lacks_source(answer)):
            return answer
        async with sending:  # the service was started again, or has dropped it
            refused = await self._send_source(source)
        return refused or await post()

    async def _send_source(self, source: Source) -> httpx2.Response | None:
        """Send a sound; return the service's answer if it is refused."""
        kind = {"Content-Type": "application/octet-stream"}
        answer = await self._client.send("POST", "/sources", content=source.read(), headers=kind)
        return None if answer.status_code == 201 else answer

    async def _post(self, request: GenerationRequest) -> httpx2.Response:
        """Send a request once, and follow the service's redirects to its response."""
        import httpx2

        answer = await self._client.send(
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
                raise BackendUnavailable(f"{self.name} redirects to another host, {place.host}")
            try:
                answer = await self._client.send("GET", str(place))
            except httpx2.ReadError:
                continue  # asking for a result again has no side effects
        return answer

    def _read(self, answer: httpx2.Response, request: GenerationRequest) -> Result:
        """Return the result in a response that is not a job."""
        if answer.status_code == 200:
            return self._read_clip(read_json(answer), request)
        if request.begin_with is not None and _lacks_source(answer):
            if request.begin_with.content is None:
                return Failure(request, "InvalidRequest", detail(answer))
            # It was dropped again, for those of other requests.
            raise RetryLater(detail(answer), retry_after_s=retry_after_s(answer))
        if answer.status_code in (401, 403, 404, 405):
            raise self._client.refused(answer)
        body = read_json(answer)
        if answer.status_code in (429, 503) and body.get("error_type") not in LOST_HERE:
            raise RetryLater(detail(answer), retry_after_s=retry_after_s(answer))
        known = {422: "InvalidRequest", 504: "TimeoutError"}
        kind = body.get("error_type") or known.get(answer.status_code)
        kind = kind or f"HTTP {answer.status_code}"
        failure = Failure(request, str(kind), str(body.get("message") or detail(answer)))
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
                f"{self.name} answered with something other than a clip ({type(error).__name__}); "
                "is it a MusicGen Lab service of this version?",
            )
        return unpack(message, request)


def _lacks_source(answer: httpx2.Response) -> bool:
    """Return whether a service refuses a request as it does not have what the clip begins with."""
    return answer.status_code == 404 and read_json(answer).get("field") == "begin_with"
