"""The service's own documentation, where it lies beside the checkout, cut into its code blocks."""

import re
from pathlib import Path

import pytest

DOCUMENT = Path(__file__).parents[3] / "shared" / "SERVICE_CONTRACT.md"
HOST = "https://<your-modal-app>.modal.run"


def blocks(language):
    """Return the document's code blocks of a language, by the heading nearest above each.

    Skips the test where the document is not there.
    """
    if not DOCUMENT.is_file():
        pytest.skip(f"the service's contract is not at {DOCUMENT.parent.name}/{DOCUMENT.name}")
    found, heading, inside, lines = {}, "", None, []
    for line in DOCUMENT.read_text(encoding="utf-8").splitlines():
        fence = re.fullmatch(r"```(\w*)", line)
        if inside is None and fence:
            inside, lines = fence[1], []
        elif fence:
            if inside == language:
                found.setdefault(heading, []).append("\n".join(lines))
            inside = None
        elif inside is not None:
            lines.append(line)
        elif line.startswith("#"):
            heading = line.lstrip("# ")
    return found
