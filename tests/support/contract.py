"""The service's contract, cut into its code blocks."""

import re
from pathlib import Path

DOCUMENT = Path(__file__).parents[2] / "docs" / "service_contract.md"
HOST = "https://<your-modal-app>.modal.run"


def blocks(language):
    """Return the contract's code blocks of a language, by the heading nearest above each."""
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
