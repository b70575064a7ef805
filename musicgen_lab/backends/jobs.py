"""`Jobs`: requests whose clients do not wait for the result but poll it by an id."""

from __future__ import annotations

import secrets
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Literal, Protocol

from musicgen_lab.backends.submitting import Result, clip_of
from musicgen_lab.clip import Failure
from musicgen_lab.errors import MusicGenLabError
from musicgen_lab.formatting import short
from musicgen_lab.request import GenerationRequest

State = Literal["queued", "running", "done", "failed", "cancelled"]
EXPIRED_IDS_MAX = 10_000  # ids that are reported as expired rather than unknown
KEPT_MAX_BYTES = 256 * 1024**2  # 64 clips of 30 s, or three of 300 s in stereo


class JobUnknown(MusicGenLabError):
    """No job has this id."""


class JobExpired(MusicGenLabError):
    """The job has ended, and its result is no longer kept."""


@dataclass(frozen=True)
class JobStatus:
    """The state of a job.

    Attributes
    ----------
    state : {"queued", "running", "done", "failed", "cancelled"}
    steps_done, steps : int or None
        Of the language model; None if the backend does not report progress.
    result : Clip or Failure or None
        A clip with "done", a failure with "failed".
    warnings : tuple of str
        As given to `start`.
    """

    state: State
    steps_done: int | None = None
    steps: int | None = None
    result: Result | None = None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class StartedJob:
    """A job that was accepted.

    Attributes
    ----------
    id : str
        Of letters, digits, "-" and "_". Every client that has it may read and cancel the job.
    result : Future of Clip or Failure
        Done when the job has ended, even if it is never polled; cancelled with the job.
    """

    id: str
    result: Future[Result]


class Jobs(Protocol):
    """Requests that run in the background. Methods block, and may be called from any thread."""

    def start(self, request: GenerationRequest, warnings: Sequence[str] = ()) -> StartedJob:
        """Start a job for a resolved request.

        Parameters
        ----------
        request : GenerationRequest
        warnings : sequence of str
            Returned with its status: fields that were sent and have no effect.

        Raises
        ------
        BackendUnavailable
            When it is not accepted, such as `Busy`.
        """

    def status(self, job_id: str) -> JobStatus:
        """Return what has become of a job.

        Raises
        ------
        JobUnknown
            When no job has this id.
        JobExpired
            When its result is no longer kept.
        BackendUnavailable
            When the state cannot be read now.
        """

    def cancel(self, job_id: str) -> JobStatus:
        """Cancel a job and return its status; a job that has ended is left unchanged.

        Raises
        ------
        JobUnknown, JobExpired, BackendUnavailable
            As with `status`.
        """


@dataclass
class _Job:
    request: GenerationRequest
    warnings: tuple[str, ...]
    future: Future[Result]
    steps: int | None
    ended_s: float = 0.0  # by the monotonic clock

    @property
    def nbytes(self) -> int:
        """Bytes of memory that a job which has ended takes."""
        clip, source = clip_of(self.future), self.request.begin_with
        if clip is not None:
            return clip.nbytes
        return source.nbytes if source is not None else 0


class LocalJobs:
    """Jobs of a backend in this process; they are lost when the process ends.

    Parameters
    ----------
    submit : callable
        Takes a resolved request, returns a future.
    progress : callable
        Returns the steps done and the total steps of such a future, or None.
    kept_s : float
        How long a job is kept after it has ended.
    kept_max : int
        Maximum number of ended jobs; the oldest is dropped first.
    kept_max_bytes : int
        Maximum size of ended jobs, most of which is their clips.
    """

    def __init__(
        self,
        submit: Callable[[GenerationRequest], Future[Result]],
        progress: Callable[[Future[Result]], tuple[int, int] | None],
        *,
        kept_s: float,
        kept_max: int,
        kept_max_bytes: int = KEPT_MAX_BYTES,
    ) -> None:
        self._submit, self._progress = submit, progress
        self._kept_s, self._kept_max, self._kept_max_bytes = kept_s, kept_max, kept_max_bytes
        self._running: dict[str, _Job] = {}
        self._ended: OrderedDict[str, _Job] = OrderedDict()  # the oldest first
        self._expired: deque[str] = deque(maxlen=EXPIRED_IDS_MAX)
        self._lock = threading.Lock()

    def start(self, request: GenerationRequest, warnings: Sequence[str] = ()) -> StartedJob:
        """Submit a request and return its job."""
        job_id, future = secrets.token_urlsafe(16), self._submit(request)
        _, steps = self._progress(future) or (0, None)
        with self._lock:
            self._running[job_id] = _Job(request, tuple(warnings), future, steps)
        future.add_done_callback(lambda _: self._end(job_id))
        return StartedJob(job_id, future)

    def status(self, job_id: str) -> JobStatus:
        """Return what has become of a job."""
        job = self._find(job_id)
        if not job.future.done():
            steps_done, _ = self._progress(job.future) or (None, None)
            state: State = "running" if steps_done else "queued"
            return JobStatus(state, steps_done, job.steps, warnings=job.warnings)
        if job.future.cancelled():
            return JobStatus("cancelled", steps=job.steps, warnings=job.warnings)
        error = job.future.exception()
        if isinstance(error, Exception):
            failure = Failure.from_error(job.request, error)
            return JobStatus("failed", steps=job.steps, result=failure, warnings=job.warnings)
        result = job.future.result()
        if isinstance(result, Failure):
            return JobStatus("failed", steps=job.steps, result=result, warnings=job.warnings)
        return JobStatus("done", job.steps, job.steps, result, job.warnings)

    def cancel(self, job_id: str) -> JobStatus:
        """Cancel a job, which frees its slot, and return its status."""
        self._find(job_id).future.cancel()
        return self.status(job_id)

    def _find(self, job_id: str) -> _Job:
        with self._lock:
            self._expire()
            job = self._running.get(job_id) or self._ended.get(job_id)
            if job is not None:
                return job
            if job_id in self._expired:
                raise JobExpired(
                    f"the result of job {job_id} is no longer kept: the last {self._kept_max} "
                    f"are, up to {self._kept_max_bytes / 1e6:,.0f} MB, for {self._kept_s:g} s "
                    "each; send the request again"
                )
        raise JobUnknown(
            f"there is no job {short(job_id)}; jobs are lost when the service restarts"
        )

    def _end(self, job_id: str) -> None:
        with self._lock:
            job = self._ended[job_id] = self._running.pop(job_id)
            job.ended_s = time.monotonic()
            self._expire()

    def _expire(self) -> None:
        oldest_s = time.monotonic() - self._kept_s
        total = sum(job.nbytes for job in self._ended.values())
        for job_id, job in list(self._ended.items()):
            is_room = len(self._ended) <= self._kept_max and total <= self._kept_max_bytes
            if is_room and job.ended_s > oldest_s:
                return
            total -= job.nbytes
            del self._ended[job_id]
            self._expired.append(job_id)
