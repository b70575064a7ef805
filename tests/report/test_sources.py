"""Clips that continue one source are one witness, and a report says so."""

from __future__ import annotations

import shlex
from zlib import crc32

import pytest

from musicgen_lab.report.provenance import command
from musicgen_lab.report.sentences import find, source_sentence
from musicgen_lab.runs.sources import open_source
from musicgen_lab.stats.study_tables import StudyTables
from musicgen_lab.sweep import Sweep
from tests.support.sines import SineBackend, sine_clip
from tests.support.sources import hum

FEATURES = ["rms_dbfs", "spectral_centroid_hz"]


class LoudnessOfTheSource(SineBackend):
    """Makes sines whose level follows the source and, a little, the clip."""

    def generate(self, requests, on_progress=None):
        for request in requests:
            source = int(request.begin_with.digest[:4], 16) / 2**16
            own = crc32(request.key().encode()) / 2**32
            yield sine_clip(request, level=0.1 + 0.1 * source + 0.01 * own)


@pytest.fixture
def table_of(tmp_path):
    def make(sources, **fields):
        given = [hum(frequency_hz=200 + 10 * n, name=f"{n}.wav") for n in range(sources)]
        sweep = Sweep(prompt="a", begin_with=given, begin_s=0.5, duration=1, **fields)
        return sweep.run(LoudnessOfTheSource(), tmp_path / "run", progress=False).table

    return make


def test_where_the_seed_is_the_same_the_sources_are_the_replicates(table_of):
    table = table_of(4, temperature=[0.5, 1.0, 1.5])
    assert table.swept == ("begin_with", "temperature")
    assert (table.replicate, table.parameters) == ("begin_with", ("temperature",))
    study = StudyTables.of(table, FEATURES)
    assert set(study.effects["seeds"]) == {4} and set(study.effects["replicate"]) == {"begin_with"}
    assert source_sentence(table) == (
        "Clips that continue the same source count once: the 4 sources are the replicates."
    )


def test_the_sentence_of_an_effect_counts_the_sources(table_of):
    findings = find(StudyTables.of(table_of(5, temperature=[0.5, 1.5], cfg_coef=[1, 5])))
    assert findings.significant
    assert all(text.endswith("5 sources).") for text in findings.significant)


def test_many_clips_of_two_sources_are_two_witnesses_and_too_few(table_of):
    table = table_of(2, temperature=[0.5, 0.7, 1.0, 1.2, 1.5], cfg_coef=[1, 2, 3])
    findings = find(StudyTables.of(table, FEATURES))
    assert not findings.significant
    assert findings.inconclusive == [
        "Nothing can be concluded: there are 2 sources of each setting, and at least 3 are needed."
    ]


def test_where_seeds_differ_they_are_the_replicates_within_each_source(table_of):
    table = table_of(2, temperature=[0.5, 1.5], seed=range(3))
    assert (table.replicate, table.parameters) == ("seed", ("begin_with", "temperature"))
    assert source_sentence(table) == (
        "The clips continue 2 sources and are compared within each: what is found holds for these."
    )


def test_one_source_is_named_and_what_is_found_holds_for_it_alone(table_of):
    table = table_of(1, temperature=[0.5, 1.5], seed=range(3))
    assert source_sentence(table) == (
        "The clips continue one source, 0.wav: what is found holds for it alone."
    )


def test_sources_are_compared_where_nothing_else_differs(table_of):
    table = table_of(3)
    assert (table.replicate, table.parameters) == ("seed", ("begin_with",))


def test_a_run_without_sources_says_nothing_of_them(tmp_path):
    results = Sweep(prompt="a", duration=1).run(SineBackend(), tmp_path / "run", progress=False)
    assert source_sentence(results.table) == ""


def test_the_command_that_makes_a_run_again_names_the_runs_own_copies(table_of, monkeypatch):
    table = table_of(2, temperature=[0.5, 1.5], prompt_b="b", mix=[0.25, 0.75])
    words = shlex.split(command(table.sweeps[0]["design"], table.records, table.run))
    paths = [words[i + 1] for i, word in enumerate(words) if word == "--begin-with"]
    monkeypatch.chdir(table.folder.parent)
    assert [open_source(path).digest for path in paths] == table.values("begin_with")
    assert words[words.index("--prompt-b") + 1] == "b"
    assert words[words.index("--mix") + 1] == "0.25,0.75"
