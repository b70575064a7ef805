"""Run folders with synthetic clips, so that figures and reports are tested without a model."""

from __future__ import annotations

import numpy as np

from musicgen_lab import Clip, Failure, Sweep
from musicgen_lab.analysis.features import NUMBERS, measure
from musicgen_lab.runs.frame import frame_columns
from musicgen_lab.runs.run_folder import RunFolder
from musicgen_lab.runs.run_table import RunTable
from tests.support.sines import MODEL, PROVENANCE

SAMPLE_RATE = 16_000


def beats(request, *, gain=1.0, sample_rate=SAMPLE_RATE, channels=1):
    """Make decaying tones whose pitch follows the temperature and whose tempo follows cfg_coef."""
    t = np.arange(round(request.duration * sample_rate)) / sample_rate
    decay = np.exp(-6 * ((t * (1 + request.cfg_coef / 2)) % 1))
    tone = 0.3 * np.sin(2 * np.pi * 200 * 2 ** (request.temperature + request.seed / 12) * t)
    samples = np.tile(gain * decay * tone, (channels, 1)).astype(np.float32)
    return Clip(request, samples, sample_rate, PROVENANCE, 0.5)


def make_run(folder, *, failed=(), silent=(), missing=(), loud=(), **fields):
    """Write a run folder; the numbers say which clips, in order, are of a special kind."""
    sweep = Sweep(model=MODEL, **{"prompt": "calm guitar", "duration": 1, **fields})
    run = RunFolder(folder)
    run.create()
    run.add_sweep(sweep.design, sweep.requests)
    for index, request in enumerate(sweep.requests):
        if index in failed:
            run.store.put(Failure(request, "OutOfMemoryError", "no room for <it>", 0.5))
        elif index not in missing:
            gain = 0.0 if index in silent else 5.0 if index in loud else 1.0
            run.store.put(beats(request, gain=gain))
    return run.path


def without_measuring(folder):
    """Open a run with features like those of its first clip, since measuring many takes long."""
    table = RunTable.open(folder)
    made = table.rows["status"] == "ok"
    first = table.clip(table.rows["key"][made].iloc[0])
    features = measure(first.samples, first.sample_rate)
    rows = table.rows.assign(**features)[frame_columns(table.rows)]
    spread = 1 + np.arange(len(rows)) % 7 / 10
    rows[[*NUMBERS]] = rows[[*NUMBERS]].mul(spread, axis=0).where(made)
    return RunTable(table.run, rows, table.missing)
