"""`LimitedConnection`: uvicorn's HTTP/1.1 connection, limited in time and in number."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

from musicgen_lab.web.access import SURPLUS


class LimitedConnection(H11Protocol):
    """Closes a connection whose request does not arrive, or answer is not read, in time.

    uvicorn itself waits forever after the first byte, and for a client that reads nothing. The time
    is the `read_timeout_s` of the app's settings; it restarts whenever a slow client has read
    something.

    A connection that is opened beyond uvicorn's `limit_concurrency` gets one answer, that of
    `SurplusCheck`. uvicorn itself answers plain text, which is neither logged nor counted, and on
    the connections that were there before too.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._head_timer: asyncio.TimerHandle | None = None
        self._unread_timer: asyncio.TimerHandle | None = None
        self._connections_max, self.limit_concurrency = self.limit_concurrency, None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start to wait for the first request."""
        super().connection_made(transport)
        if self._connections_max is not None and len(self.connections) > self._connections_max:
            self.app_state = {**self.app_state, SURPLUS: True}  # uvicorn puts it into each scope
        self._time_head()
        self._time_unread(0)

    def data_received(self, data: bytes) -> None:
        """Process received data, and keep waiting while the head is incomplete."""
        super().data_received(data)
        self._time_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting."""
        super().connection_lost(exc)
        self._stop_timer()
        if self._unread_timer is not None:
            self._unread_timer.cancel()

    def _time_head(self) -> None:
        if self.cycle is not None and not self.cycle.response_complete:
            self._stop_timer()  # the head is there; the app times the body
        elif self._head_timer is None:
            self._head_timer = self.loop.call_later(self._limit_s, self.transport.abort)

    def _time_unread(self, unread_before: int) -> None:
        """Close where as much of an answer waits to be read as before, and look again later."""
        unread = self.transport.get_write_buffer_size()
        if unread and unread == unread_before:
            self.transport.abort()
        else:
            self._unread_timer = self.loop.call_later(self._limit_s, self._time_unread, unread)

    @property
    def _limit_s(self) -> float:
        return float(self.config.app.state.settings.read_timeout_s)  # type: ignore[union-attr]

    def _stop_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None
