"""`SharedWork`: the requests of a sweep, shared at run time by all processes that make them.

Any number of processes may run sweeps in one folder, on one machine or on several. Each takes the
lease of a clip when it has room for it, and leaves what others have leased to them. What is left at
the end is waited for: another process stores it, or ends and gives up its leases, so that the clip
can be made here.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from musicgen_lab.clip import Clip, Failure
from musicgen_lab.request import GenerationRequest
from musicgen_lab.runs.clip_store import ClipRecord
from musicgen_lab.runs.leases import Leases
from musicgen_lab.runs.run_folder import RunFolder

POLL_S = 0.25  # between two polls of what others make


@dataclass(frozen=True)
class Finished:
    """A request that was finished while a sweep ran, by it or by another process.

    Attributes
    ----------
    request : GenerationRequest
    record : ClipRecord
    """

    request: GenerationRequest
    record: ClipRecord


class SharedWork:
    """Requests to be made once among all the processes that work in a run folder.

    Parameters
    ----------
    run : RunFolder
        Created already.
    requests : iterable of GenerationRequest
        Resolved.
    before : Mapping of str to ClipRecord
        The records of these requests as they were when it was decided to make them, by key. Any
        other record is that of another process which has made them meanwhile.
    replace : bool
        Whether clips take the place of finished ones.

    Attributes
    ----------
    made_here : set of str
        The keys of what this sweep made, failures among them.
    """

    def __init__(
        self,
        run: RunFolder,
        requests: Iterable[GenerationRequest],
        before: Mapping[str, ClipRecord],
        *,
        replace: bool = False,
    ) -> None:
        self._run, self._before, self._replace = run, before, replace
        self._open = {request.key(): request for request in requests}
        self._made_elsewhere: deque[Finished] = deque()
        self.made_here: set[str] = set()

    def make(
        self, generate: Callable[[Iterator[GenerationRequest]], Iterable[Clip | Failure]]
    ) -> Iterator[Finished]:
        """Make every request here or wait for the process that makes it, and store the results.

        Parameters
        ----------
        generate : callable
            A backend's: takes the requests one by one as there is room for them, returns results.
            It is called again for what other processes gave up.

        Yields
        ------
        Finished
            In the order of finishing.

        Raises
        ------
        RunFolderUnwritable
            When the folder cannot be written, or is gone.
        """
        with Leases(self._run.store.folder) as leases:
            while self._open:
                taken: list[str] = []
                for result in generate(self._take(leases, taken)):
                    yield self._store(result, leases)
                    yield from self._drain()
                yield from self._drain()
                for key in taken:  # of these, what the backend returned nothing for
                    self._open.pop(key, None)
                    leases.release(key)
                yield from self._wait(leases)

    def _take(self, leases: Leases, taken: list[str]) -> Iterator[GenerationRequest]:
        """Yield the requests that no other process makes, each after taking its lease."""
        for key, request in list(self._open.items()):
            self._run.check_in_place()
            if self._claim(key, request, leases):
                taken.append(key)
                yield request

    def _claim(self, key: str, request: GenerationRequest, leases: Leases) -> bool:
        """Take the lease of a request, and return whether it still has to be made.

        Results are stored before their lease is released, so that a record which is not there once
        the lease is taken will not come from anybody else.
        """
        if not leases.take(key):
            return False
        record = self._run.store.record(key)
        if record is None or record == self._before.get(key):
            return True
        leases.release(key)
        del self._open[key]
        self._made_elsewhere.append(Finished(request, record))
        return False

    def _store(self, result: Clip | Failure, leases: Leases) -> Finished:
        record = self._run.put(result, replace=self._replace)
        self._open.pop(record.key, None)
        self.made_here.add(record.key)
        leases.release(record.key)
        return Finished(result.request, record)

    def _drain(self) -> Iterator[Finished]:
        while self._made_elsewhere:
            yield self._made_elsewhere.popleft()

    def _wait(self, leases: Leases) -> Iterator[Finished]:
        """Wait until another process has stored or given up a clip that is left."""
        while self._open:
            self._run.check_in_place()
            if any(self._claim(key, request, leases) for key, request in list(self._open.items())):
                break
            yield from self._drain()
            if self._open:
                time.sleep(POLL_S)
        yield from self._drain()
