"""The service's API key, read from an environment variable or from a file."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from musicgen_lab.errors import InvalidRequest

API_KEY, API_KEY_FILE = "MUSICGEN_API_KEY", "MUSICGEN_API_KEY_FILE"
KEY_ADDRESS = "MUSICGEN_KEY_ADDRESS"


def read_api_key(environment: Mapping[str, str] = os.environ) -> str | None:
    """Return the key from the environment, or None if neither variable is set.

    Surrounding white space, such as the line break at the end of a file, is stripped.

    Raises
    ------
    InvalidRequest
        When a variable is set but empty, which is more likely a mistake than a deliberately public
        service.
    """
    name, text = API_KEY, environment.get(API_KEY)
    file = environment.get(API_KEY_FILE)
    if text is None and file is not None:
        name = API_KEY_FILE
        try:
            text = Path(file).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidRequest(f"{name}: {file!r} cannot be read ({error})") from None
    return None if text is None else clean_key(text, name)


def clean_key(text: str, name: str) -> str:
    """Return a key without the white space around it.

    Parameters
    ----------
    text : str
    name : str
        Of what holds it, for the error.

    Raises
    ------
    InvalidRequest
        When nothing is left, or it cannot be sent.
    """
    key = text.strip()
    if not key or not key.isprintable():
        raise InvalidRequest(
            f"{name} is set, but holds no key: give it one line of printable characters, or unset "
            "it where no key is wanted"
        )
    return key


def keys_are_for(address: str, environment: Mapping[str, str] = os.environ) -> bool:
    """Return whether the keys in the environment are meant for the service at an address.

    MUSICGEN_KEY_ADDRESS names the one service that they are meant for. Without it they are sent to
    this machine alone, so that no other address that is ever connected to learns them.

    Raises
    ------
    InvalidRequest
        When MUSICGEN_KEY_ADDRESS is not an address.
    """
    meant = environment.get(KEY_ADDRESS)
    if meant is None:
        return is_loopback(urlsplit(address).hostname or "")
    try:
        return _origin(meant.strip()) == _origin(address)
    except ValueError:
        raise InvalidRequest(
            f"{KEY_ADDRESS} must be the address of the service that the keys are for, such as "
            f"https://….modal.run, got {meant!r}"
        ) from None


def is_loopback(host: str) -> bool:
    """Return whether a host, by name or number, is this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _origin(address: str) -> tuple[str, str, int]:
    """Return the scheme, host and port that an address stands for.

    Raises
    ------
    ValueError
    """
    parts = urlsplit(address)
    ports = {"http": 80, "https": 443}
    if parts.scheme not in ports or not parts.hostname:
        raise ValueError("no address of a service")
    return parts.scheme, parts.hostname, parts.port or ports[parts.scheme]
