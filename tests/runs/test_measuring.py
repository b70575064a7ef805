"""Many sounds are measured in several processes, and it makes no difference to any number."""

from __future__ import annotations

import pytest
import soundfile

from musicgen_lab.runs.measuring import measure_files
from tests.support.sounds import RATE, noise, sine


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sounds")
    sounds = [
        sine(220, duration_s=1),
        noise(duration_s=1),
        0 * sine(220),
        sine(3000),
        noise(seed=1),
    ]
    for number, samples in enumerate(sounds):
        soundfile.write(folder / f"{number}.wav", samples.T, RATE, subtype="FLOAT")
    return sorted(folder.iterdir())


@pytest.mark.parametrize("what", ["features", "signature"])
def test_workers_give_the_same_numbers_in_the_order_of_the_files(paths, what):
    alone = measure_files(what, paths, workers=1)
    assert repr(measure_files(what, paths, workers=2)) == repr(alone)


def test_a_worker_that_dies_is_made_up_for(paths, monkeypatch):
    alone = measure_files("signature", paths, workers=1)
    monkeypatch.setattr("sys.executable", "/bin/false")
    assert repr(measure_files("signature", paths, workers=3)) == repr(alone)


def test_a_worker_leaves_it_to_its_caller_to_report_what_is_missing(paths, tmp_path, capfd):
    with pytest.raises(FileNotFoundError):
        measure_files("signature", [*paths, tmp_path / "gone.wav"], workers=2)

    assert capfd.readouterr().err == ""


def test_nothing_to_measure_is_nothing():
    assert measure_files("features", []) == []
