"""`ModalJobs`: jobs that are calls of the deployed GPU class, and outlive their client."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any

from musicgen_lab.backends.jobs import JobExpired, JobStatus, JobUnknown, StartedJob
from musicgen_lab.backends.modal import ModalBackend
from musicgen_lab.backends.modal_errors import failure_of
from musicgen_lab.backends.submitting import Result
from musicgen_lab.backends.wire import plain, unpack
from musicgen_lab.clip import Clip
from musicgen_lab.formatting import short
from musicgen_lab.request import GenerationRequest


class ModalJobs:
    """`Jobs` over spawned calls: an id is that of a call, and Modal keeps its result for 7 days.

    Parameters
    ----------
    backend : ModalBackend
        Sends the requests.
    entries : modal.Dict
        Maps a job's id to its request; an id that is not in it belongs to no job of this app. The
        id followed by "/progress", which the GPU class writes, maps to the steps done and the total
        steps.
    """

    def __init__(self, backend: ModalBackend, entries: Any) -> None:
        self._backend, self._entries = backend, entries
        self._awaited: dict[str, Future[Result]] = {}  # by id, of jobs started here

    def start(self, request: GenerationRequest, warnings: Sequence[str] = ()) -> StartedJob:
        """Spawn a call for a resolved request and return its job."""
        call = self._backend.spawn(request, report=True)
        job = {"request": request.model_dump(), "warnings": list(warnings), "cancelled": False}
        try:
            with self._backend.reaching():
                self._entries.put(call.object_id, plain(job))
        except BaseException:
            call.cancel()  # nobody would know of it
            raise
        job_id, result = str(call.object_id), self._backend.wait_for(call, request)
        self._awaited[job_id] = result
        result.add_done_callback(lambda _: self._awaited.pop(job_id))
        return StartedJob(job_id, result)

    def status(self, job_id: str) -> JobStatus:
        """Return what has become of a job."""
        import modal

        job = self._find(job_id)
        warnings = tuple(job["warnings"])
        with self._backend.reaching():
            steps_done, steps = self._entries.get(progress_key(job_id)) or (None, None)
        if job["cancelled"]:
            return JobStatus("cancelled", steps_done, steps, warnings=warnings)
        request = GenerationRequest(**job["request"])
        try:
            result = unpack(modal.FunctionCall.from_id(job_id).get(timeout=0), request)
        except TimeoutError:  # the builtin one: not finished yet
            state: Any = "queued" if steps_done is None else "running"
            return JobStatus(state, steps_done, steps, warnings=warnings)
        except modal.exception.OutputExpiredError:
            raise JobExpired(
                f"the result of job {job_id} is no longer kept: Modal keeps it for 7 days; send "
                "the request again"
            ) from None
        except Exception as error:
            self._backend.raise_unavailable(error)
            result = failure_of(request, error)
        if isinstance(result, Clip):
            clip = self._backend.add_cost(result)
            return JobStatus("done", steps, steps, clip, warnings)
        return JobStatus("failed", steps_done, steps, result, warnings)

    def cancel(self, job_id: str) -> JobStatus:
        """Cancel the call of a job that has not ended, and return its status."""
        import modal

        if self.status(job_id).state in ("queued", "running"):
            with self._backend.reaching():
                self._entries.put(job_id, {**self._find(job_id), "cancelled": True})
                modal.FunctionCall.from_id(job_id).cancel()
            if (awaited := self._awaited.get(job_id)) is not None:
                awaited.cancel()
        return self.status(job_id)

    def _find(self, job_id: str) -> dict[str, Any]:
        with self._backend.reaching():
            job: dict[str, Any] | None = self._entries.get(job_id)
        if job is None or "request" not in job:
            raise JobUnknown(f"there is no job {short(job_id)} of this service")
        return job


def progress_key(job_id: str) -> str:
    """Return the key under which the GPU class writes a job's progress."""
    return f"{job_id}/progress"
