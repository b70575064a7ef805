"""Marks of the tests that compare with packages of the `reference` group, which may be missing."""

from importlib.util import find_spec

import pytest


def _needs(package):
    reason = f"{package} is not installed: type `uv run --group reference pytest`"
    return pytest.mark.skipif(find_spec(package) is None, reason=reason)


needs_audiocraft = _needs("audiocraft")
needs_aesthetics = _needs("audiobox_aesthetics")
