"""The service's key, as its owner and its clients give it: in a variable, or in a file."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from musicgen_lab.errors import InvalidRequest

API_KEY, API_KEY_FILE = "MUSICGEN_API_KEY", "MUSICGEN_API_KEY_FILE"


def read_api_key(environment: Mapping[str, str] = os.environ) -> str | None:
    """Return the key of the environment, or None where neither variable is set.

    Spaces and line breaks around it, such as the one that ends a file, are no part of it.

    Raises
    ------
    InvalidRequest
        When a variable is set and there is no key in it, which is more likely a mistake than a wish
        to serve everybody.
    """
    name, text = API_KEY, environment.get(API_KEY)
    file = environment.get(API_KEY_FILE)
    if text is None and file is not None:
        name = API_KEY_FILE
        try:
            text = Path(file).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidRequest(f"{name}: {file!r} cannot be read ({error})") from None
    if text is None:
        return None
    key = text.strip()
    if not key or not key.isprintable():
        raise InvalidRequest(
            f"{name} is set, but holds no key: give it one line of printable characters, or unset "
            "it where no key is wanted"
        )
    return key
