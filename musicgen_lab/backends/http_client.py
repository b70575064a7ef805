"""`HttpClient`: the requests to one service, with its keys, within limits of time and size."""

from __future__ import annotations

import asyncio
import math
import os
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import SplitResult, urlsplit

from musicgen_lab.backends.api_key import (
    KEY_ADDRESS,
    clean_key,
    is_loopback,
    keys_are_for,
    read_api_key,
)
from musicgen_lab.errors import BackendUnavailable, InvalidRequest

if TYPE_CHECKING:
    import httpx2

PROXY_KEY, PROXY_SECRET = "MUSICGEN_PROXY_KEY", "MUSICGEN_PROXY_SECRET"
CONNECT_TIMEOUT_S = 10.0
READ_TIMEOUT_S = 900.0  # Modal answers 303 after 150 s; a service on a laptop may take its time
CONNECT_ATTEMPTS = 4
RETRY_AFTER_MAX_S = 60
ANSWER_MAX_BYTES = 160 * 1024**2  # 300 s of stereo at 48 kHz in base64 are 154 million
T = TypeVar("T")


class HttpClient:
    """Sends requests to one service; only those that could not be sent are sent again.

    Parameters
    ----------
    address, api_key, proxy_key, proxy_secret, plain_http
        As for `musicgen_lab.backends.http.HttpBackend`.

    Attributes
    ----------
    host : str
        The service's host, with its port if it has one.

    Raises
    ------
    BackendUnavailable, InvalidRequest
        As for `HttpBackend`.
    """

    def __init__(
        self,
        address: str,
        *,
        api_key: str | None,
        proxy_key: str | None,
        proxy_secret: str | None,
        plain_http: bool,
    ) -> None:
        try:
            import httpx2
        except ImportError:
            raise BackendUnavailable(
                "a service at a web address needs httpx2, not installed here: pip install httpx2"
            ) from None
        try:
            parts = urlsplit(address)
        except ValueError:  # such as of an IPv6 address without its end
            raise _no_address(address) from None
        if parts.username is not None or parts.password is not None:
            raise BackendUnavailable(
                f"the address of {parts.hostname} has a user name or a password, which no service "
                "of MusicGen Lab takes; give its key: connect(address, api_key=…)"
            )
        if parts.scheme not in ("http", "https") or not parts.hostname or not _has_port(parts):
            raise _no_address(address)
        self.host = parts.netloc
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
        key = read_api_key(environment) if api_key is None else clean_key(api_key, "api_key")
        if key:
            headers["Authorization"] = f"Bearer {key}"
        proxy = (
            (proxy_key or environment.get(PROXY_KEY, "")).strip(),
            (proxy_secret or environment.get(PROXY_SECRET, "")).strip(),
        )
        if any(proxy):
            if not all(proxy):
                raise InvalidRequest(
                    "a proxy auth token of Modal's has two parts: give both proxy_key and "
                    f"proxy_secret, or set both {PROXY_KEY} and {PROXY_SECRET}"
                )
            headers |= {"Modal-Key": proxy[0], "Modal-Secret": proxy[1]}
        try:
            base_url = httpx2.URL(f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}")
        except httpx2.InvalidURL:
            raise _no_address(address) from None
        self._client = httpx2.AsyncClient(
            base_url=base_url,
            headers={name.encode(): value.encode() for name, value in headers.items()},
            timeout=httpx2.Timeout(READ_TIMEOUT_S, connect=CONNECT_TIMEOUT_S),
            limits=httpx2.Limits(max_connections=None),
        )

    async def close(self) -> None:
        """Close every connection."""
        await self._client.aclose()

    async def send(self, method: str, url: str, **options: Any) -> httpx2.Response:
        """Send, and return the response with its body."""
        return await self.exchange(self.receive, method, url, **options)

    async def ask(self, method: str, url: str, **options: Any) -> httpx2.Response:
        """Send what has no side effects, and return the response with its body.

        Raises
        ------
        BackendUnavailable
            When the connection is lost, or the response cannot be read.
        """
        import httpx2

        try:
            return await self.send(method, url, **options)
        except httpx2.HTTPError as error:
            raise BackendUnavailable(
                f"{self.host} gave no answer that can be read ({type(error).__name__}); check the "
                "address, and try again"
            ) from error

    async def exchange(
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
                        f"no service answers at {self.host} ({error or type(error).__name__}); "
                        "start one with `musicgen-lab serve`, or check the address"
                    ) from error
                await asyncio.sleep(0.25 * 2**attempt)
        raise AssertionError("the loop above returns or raises")

    async def receive(self, answer: httpx2.Response) -> httpx2.Response:
        """Return a response with its body, reading at most the size that a clip can have."""
        import httpx2

        body = bytearray()
        async for chunk in answer.aiter_bytes():
            body += chunk
            if len(body) > ANSWER_MAX_BYTES:
                raise BackendUnavailable(
                    f"{self.host} sent more than {ANSWER_MAX_BYTES:,} bytes, which no clip takes; "
                    "is it a MusicGen Lab service?"
                )
        headers = httpx2.Headers(answer.headers)
        headers.pop("content-encoding", None)  # the body is decoded
        return httpx2.Response(
            answer.status_code, headers=headers, content=bytes(body), request=answer.request
        )

    def refused(self, answer: httpx2.Response) -> BackendUnavailable:
        """Return the error for a response that refuses every request, with the way out."""
        ways_out = {
            401: "give its key: connect(address, api_key=…), or set MUSICGEN_API_KEY",
            404: "is it the address of a MusicGen Lab service, without a path?",
            503: "try again in a moment",
        }
        way_out = ways_out.get(answer.status_code, "is it a MusicGen Lab service?")
        if answer.status_code == 401 and "request_id" not in read_json(answer):
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
            f"{self.host} answered {answer.status_code}: {detail(answer)}; {way_out}"
        )


def _no_address(address: str) -> BackendUnavailable:
    without_password = address.rpartition("@")[2]
    return BackendUnavailable(
        f"{without_password!r} is not the address of a service; one looks like "
        "http://127.0.0.1:8000 or https://….modal.run"
    )


def _has_port(parts: SplitResult) -> bool:
    """Return whether the port of an address, if it has one, can be."""
    try:
        return parts.port != 0
    except ValueError:
        return False


def read_json(answer: httpx2.Response) -> dict[str, Any]:
    """Return the JSON object in a response; an empty one for anything else."""
    try:
        body = answer.json()
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}


def detail(answer: httpx2.Response) -> str:
    """Return what a response says of an error, in a sentence."""
    return str(read_json(answer).get("detail") or answer.reason_phrase)[:500]


def retry_after_s(answer: httpx2.Response) -> int:
    """Return the whole seconds after which a response asks for another try."""
    try:
        seconds = float(answer.headers.get("retry-after", "1"))
    except ValueError:
        seconds = math.nan  # a date: not worth parsing for a pause
    return math.ceil(min(max(seconds, 0), RETRY_AFTER_MAX_S)) if math.isfinite(seconds) else 1
