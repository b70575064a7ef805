"""`EventLoop`: an asyncio event loop in its own thread, so that code works inside Jupyter too."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

from musicgen_lab.errors import BackendUnavailable

T = TypeVar("T")


class EventLoop:
    """Runs coroutines for synchronous callers and for notebooks, which run a loop already."""

    def __init__(self, name: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=name, daemon=True)
        self._thread.start()

    def start(self, coroutine: Coroutine[Any, Any, T]) -> Future[T]:
        """Start a coroutine; cancelling the future cancels it.

        Raises
        ------
        BackendUnavailable
            When the process was forked since, which left the loop's thread behind.
        """
        if not self._thread.is_alive():
            coroutine.close()
            raise BackendUnavailable(
                "this process was forked after its backend was connected: connect to it in the new "
                "process, or start processes with multiprocessing.get_context('spawn')"
            )
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop)

    def wait(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine and return its result; Ctrl-C cancels it."""
        future = self.start(coroutine)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def cancel_all(self) -> None:
        """Cancel all running coroutines."""

        def cancel() -> None:
            for task in asyncio.all_tasks(self._loop):
                task.cancel()

        self._loop.call_soon_threadsafe(cancel)

    def settle(self, timeout_s: float) -> None:
        """Wait until all coroutines have ended, at most `timeout_s` seconds.

        A cancelled future is done before its coroutine has finished its clean-up.
        """

        async def ended() -> None:
            others = asyncio.all_tasks() - {asyncio.current_task()}
            if others:
                await asyncio.wait(others, timeout=timeout_s)

        self.wait(ended())
