"""`EventLoop`: an asyncio event loop in its own thread, so that code works inside Jupyter too."""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

from musicgen_lab.errors import BackendUnavailable

T = TypeVar("T")


class EventLoop:
    """Runs coroutines for synchronous callers and for notebooks, which run a loop already.

    Its thread ends when it is closed, or is not used by anything any more.
    """

    def __init__(self, name: str) -> None:
        runner = asyncio.Runner(loop_factory=asyncio.new_event_loop)
        self._loop = runner.get_loop()
        self._thread = threading.Thread(target=_run, args=(runner,), name=name, daemon=True)
        self._thread.start()
        # Reentrant, as the garbage collector may end a stream, which settles, while it is held.
        self._lock, self._closed = threading.RLock(), False
        self._stop = weakref.finalize(self, self._loop.call_soon_threadsafe, self._loop.stop)
        self._stop.atexit = False  # type: ignore[misc]  # the thread is a daemon

    def start(self, coroutine: Coroutine[Any, Any, T]) -> Future[T]:
        """Start a coroutine; cancelling the future cancels it.

        Raises
        ------
        BackendUnavailable
            When it is closed, or the process was forked since, which left the thread behind.
        """
        with self._lock:
            if not self._closed and self._thread.is_alive():
                return asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        coroutine.close()
        if self._closed:
            raise BackendUnavailable("this backend was closed; connect to it again")
        raise BackendUnavailable(
            "this process was forked after its backend was connected: connect to it in the new "
            "process, or start processes with multiprocessing.get_context('spawn')"
        )

    def wait(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine and return its result; Ctrl-C cancels it."""
        future = self.start(coroutine)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def settle(self, timeout_s: float) -> None:
        """Wait until all coroutines have ended, at most `timeout_s` seconds.

        A cancelled future is done before its coroutine has finished its clean-up. Nothing is
        waited for in the loop's own thread, where the garbage collector may end a stream too.
        """

        async def ended() -> None:
            await _end_others(timeout_s)

        if not self._closed and threading.current_thread() is not self._thread:
            self.wait(ended())

    def close(
        self, timeout_s: float, last: Callable[[], Coroutine[Any, Any, None]] | None = None
    ) -> None:
        """Cancel all coroutines, wait for their clean-up, and end the thread.

        Nothing happens if it was closed before, or in a process that was forked since.

        Parameters
        ----------
        timeout_s : float
            How long to wait for the coroutines, and then for the thread, in seconds.
        last : callable, optional
            Returns a coroutine that is run after them.
        """

        async def end() -> None:
            for task in asyncio.all_tasks() - {asyncio.current_task()}:
                task.cancel()
            await _end_others(timeout_s)
            if last is not None:
                await last()

        with self._lock:
            if self._closed or not self._thread.is_alive():
                return
            self._closed = True
            ending = asyncio.run_coroutine_threadsafe(end(), self._loop)
        try:
            ending.result()
        finally:
            self._stop()
        self._thread.join(timeout_s)


def _run(runner: asyncio.Runner) -> None:
    """Run a loop until it is stopped; what is not finished by then is cancelled."""
    with runner:
        runner.get_loop().run_forever()


async def _end_others(timeout_s: float) -> None:
    """Wait until all other coroutines of this loop have ended, at most `timeout_s` seconds."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    if others:
        await asyncio.wait(others, timeout=timeout_s)
