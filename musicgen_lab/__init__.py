"""MusicGen Lab: sweep MusicGen's sampling parameters, hear and measure what each one does.

>>> import musicgen_lab as lab
>>> backend = lab.connect("local")
>>> sweep = lab.Sweep(prompt="calm acoustic guitar melody", temperature=[0.7, 1.0], cfg_coef=[1, 3])
>>> results = sweep.run(backend, "runs/guitar")  # doctest: +SKIP
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

from musicgen_lab.cores import all_cores_are_taken

if TYPE_CHECKING:
    from musicgen_lab.backends import Backend, connect
    from musicgen_lab.clip import Clip, Failure, Provenance
    from musicgen_lab.errors import (
        BackendUnavailable,
        InvalidRequest,
        ModelUnavailable,
        MusicGenLabError,
        MusicGenLabWarning,
        PackageMissing,
        ReportFailed,
        RunFolderError,
        RunFolderUnwritable,
    )
    from musicgen_lab.plan import Plan
    from musicgen_lab.report.compare import make_comparison
    from musicgen_lab.report.make import make_report
    from musicgen_lab.request import GenerationRequest
    from musicgen_lab.results import Results
    from musicgen_lab.runs.clip_store import ClipStore
    from musicgen_lab.runs.sources import open_source
    from musicgen_lab.source import Source
    from musicgen_lab.streaming import ClipFailed, SoundChunk
    from musicgen_lab.sweep import Sweep

# Threads of OpenMP that wait for each other spin before they sleep. On an idle machine a spin that
# is shorter than the gaps within a step makes it twice as slow; on a busy one a spinning thread
# keeps the processor from the thread that it waits for (docs/performance.md). The runtime reads
# this when torch loads it; a setting of the user's own is left alone.
if not {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"} & os.environ.keys():
    os.environ["GOMP_SPINCOUNT"] = "0" if all_cores_are_taken() else "30000"

# Imported when first used, so that `import musicgen_lab` costs next to nothing.
_HOMES = {
    "Backend": "backends",
    "BackendUnavailable": "errors",
    "Clip": "clip",
    "ClipFailed": "streaming",
    "ClipStore": "runs.clip_store",
    "Failure": "clip",
    "GenerationRequest": "request",
    "InvalidRequest": "errors",
    "ModelUnavailable": "errors",
    "MusicGenLabError": "errors",
    "MusicGenLabWarning": "errors",
    "PackageMissing": "errors",
    "Plan": "plan",
    "Provenance": "clip",
    "ReportFailed": "errors",
    "Results": "results",
    "RunFolderError": "errors",
    "RunFolderUnwritable": "errors",
    "SoundChunk": "streaming",
    "Source": "source",
    "Sweep": "sweep",
    "connect": "backends",
    "make_comparison": "report.compare",
    "make_report": "report.make",
    "open_source": "runs.sources",
}

__all__ = [
    "Backend",
    "BackendUnavailable",
    "Clip",
    "ClipFailed",
    "ClipStore",
    "Failure",
    "GenerationRequest",
    "InvalidRequest",
    "ModelUnavailable",
    "MusicGenLabError",
    "MusicGenLabWarning",
    "PackageMissing",
    "Plan",
    "Provenance",
    "ReportFailed",
    "Results",
    "RunFolderError",
    "RunFolderUnwritable",
    "SoundChunk",
    "Source",
    "Sweep",
    "connect",
    "make_comparison",
    "make_report",
    "open_source",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
