"""`Preparation`: fetches missing weights without starting a GPU or making a client wait."""

from __future__ import annotations

import asyncio
from typing import Any

from musicgen_lab.backends.modal_errors import describe_failure
from musicgen_lab.backends.submitting import ModelLoading
from musicgen_lab.errors import BackendUnavailable
from musicgen_lab.models.locate import EMBEDDED, find_prepared

RETRY_AFTER_S = 120  # fetching and converting takes minutes


class Preparation:
    """Prepares missing weights, once, and tells clients to retry.

    Parameters
    ----------
    volume : modal.Volume
        With the prepared models, mounted here as the folder of prepared models.
    prepare : modal.Function
        Fetches and converts a model's weights into the volume.
    """

    def __init__(self, volume: Any, prepare: Any) -> None:
        self._volume, self._prepare = volume, prepare
        self._prepared: set[str] = set()
        self._calls: dict[str, Any] = {}  # by model: the call that prepares it
        self._lock = asyncio.Lock()

    async def require(self, model: str) -> None:
        """Return if a model's weights are in the volume; otherwise start preparing them.

        Parameters
        ----------
        model : str
            "name@revision".

        Raises
        ------
        ModelLoading
            When they are being prepared.
        BackendUnavailable
            When that failed; the next request tries again.
        """
        if model in self._prepared or model.partition("@")[0] == EMBEDDED:
            return
        async with self._lock:
            await self._volume.reload.aio()
            if find_prepared(model) is not None:
                self._prepared.add(model)
                return
            call = self._calls.get(model)
            if call is None:
                self._calls[model] = await self._prepare.spawn.aio(model)
            else:
                await self._check(model, call)
            raise ModelLoading(RETRY_AFTER_S)

    async def _check(self, model: str, call: Any) -> None:
        """Return while a call is running; forget one that has ended.

        Raises
        ------
        BackendUnavailable
            When it has failed.
        """
        try:
            await call.get.aio(timeout=0)
        except TimeoutError:  # the builtin one: still running
            return
        except Exception as error:
            del self._calls[model]
            message = ": ".join(describe_failure(error))
            raise BackendUnavailable(f"{model} could not be prepared ({message})") from None
        del self._calls[model]
