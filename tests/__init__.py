"""The tests, and what their processes go by: set here, before any conftest imports torch."""

import os
import sys

# Hundreds of processes are started, each of which would compile all that it imports.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False
if "PYTEST_XDIST_WORKER" in os.environ:  # several of them share the processor (`pytest -n 2`)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
