"""An in-memory Modal server on 127.0.0.1: enough of its protocol for the real client and container.

It keeps what is registered, hands inputs to containers and results to callers, serves web
functions over HTTP, and can be told to lose a container, to forget a result or to fail an input.
No account, no network.
"""

import asyncio
import contextlib
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpclib.server
from modal._utils.grpc_testing import patch_mock_servicer

from tests.modal_server.registry import ENVIRONMENT, TOKEN_ID, TOKEN_SECRET
from tests.modal_server.web import Servicer


class ModalServer:
    """The server in a thread of its own. Its `servicer` says what was registered."""

    def __init__(self, folder: Path):
        self._loop = asyncio.new_event_loop()
        # A thread waits for the end of every container; the loop's own pool has six on two cores.
        self._loop.set_default_executor(ThreadPoolExecutor(max_workers=64))
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.servicer: Servicer = self._run(self._start(folder))
        self.environment = {
            "MODAL_SERVER_URL": self.url,
            "MODAL_TOKEN_ID": TOKEN_ID,
            "MODAL_TOKEN_SECRET": TOKEN_SECRET,
            "MODAL_ENVIRONMENT": ENVIRONMENT,
            "MODAL_CONFIG_PATH": str(folder / "modal.toml"),
        }

    def _run(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

    async def _start(self, folder):
        servicer = patch_mock_servicer(Servicer)(folder)
        self._server = grpclib.server.Server([servicer])
        await self._server.start("127.0.0.1", 0)
        port = self._server._server.sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        self._blobs = await servicer.start_blobs()
        return servicer

    def wait_until(self, happened, timeout_s=120):
        """Wait until something is true of the servicer, looked at whenever inputs move."""

        async def wait():
            async with asyncio.timeout(timeout_s), self.servicer.changed:
                await self.servicer.changed.wait_for(lambda: happened(self.servicer))

        self._run(wait())

    def web_url(self, app, function="web"):
        """Return the address of a deployed app's web function."""
        (deployed,) = (a for a in self.servicer.apps.values() if a.published and a.name == app)
        return self.servicer.web_urls[deployed.functions[function]]

    def close(self):
        for container in list(self.servicer.tasks.values()):
            container.kill()

        async def stop():
            for task in self.servicer.background:
                task.cancel()
            await asyncio.gather(*self.servicer.background, return_exceptions=True)
            self._server.close()
            for listener in (self._blobs, *self.servicer.listeners):
                await listener.cleanup()

        self._run(stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()


@contextlib.contextmanager
def modal_server(folder: Path):
    """Yield a running server; its containers end with it."""
    server = ModalServer(folder)
    try:
        yield server
    finally:
        server.close()
