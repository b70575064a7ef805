"""A clip can begin with any sound file, and with any clip of a run."""

from __future__ import annotations

import math
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from musicgen_lab.clip import CODEC, encode_wav
from musicgen_lab.errors import InvalidRequest, MusicGenLabWarning, RunFolderError
from musicgen_lab.request import GenerationRequest
from musicgen_lab.runs.clip_store import ClipStore
from musicgen_lab.runs.run_folder import RunFolder, printable
from musicgen_lab.runs.run_table import RunTable, seams_of
from musicgen_lab.runs.sources import open_source
from musicgen_lab.source import Source
from musicgen_lab.sweep import Sweep
from tests.support.sines import MODEL, PROVENANCE, SineBackend, sine_clip
from tests.support.sources import hum

REQUEST = GenerationRequest(prompt="a", duration=1, seed=0, model="m@1")
CODES = np.arange(200, dtype=np.int64).reshape(4, 50)


def clip_with_codes(request=REQUEST):
    made_by = replace(PROVENANCE, details={CODEC: "codec-1"})
    return replace(sine_clip(request), codes=CODES, provenance=made_by)


@pytest.fixture
def run(tmp_path):
    run = RunFolder(tmp_path / "guitar")
    run.create()
    run.add_sweep({"kind": "grid", "fields": {"prompt": ["a"]}}, [REQUEST])
    return run


def test_a_sound_file_is_opened_by_its_path(tmp_path):
    (tmp_path / "a song #2.wav").write_bytes(hum().content)
    source = open_source(tmp_path / "a song #2.wav")
    assert source == hum() and source.name == "a song #2.wav"
    assert open_source(str(tmp_path / "a song #2.wav")) == source
    assert open_source(source) is source


def test_a_clip_of_a_run_is_opened_by_the_run_and_its_key(run):
    run.put(sine_clip(REQUEST))
    source = open_source(f"{run.path}#{REQUEST.key()[:8]}")
    np.testing.assert_array_equal(source.sound()[0], sine_clip(REQUEST).samples)
    assert source.name == f"guitar#{REQUEST.key()[:12]}"


def test_the_codes_of_a_clip_are_what_continues_it_where_the_run_has_them(run):
    run.put(clip_with_codes())
    source = open_source(f"{run.path}#{REQUEST.key()}")
    np.testing.assert_array_equal(source.codes().codes, CODES)
    assert source.codes().frame_rate == 50.0
    path = run.store.folder / f"{REQUEST.key()}.codes.npz"
    assert path.read_bytes() == source.content and open_source(path) == source


def test_a_clip_comes_back_with_its_codes_and_without_them_where_they_are_damaged(run):
    key = run.put(clip_with_codes()).key
    np.testing.assert_array_equal(ClipStore(run.store.folder).clip(key).codes, CODES)
    (run.store.folder / f"{key}.codes.npz").write_bytes(b"PK")
    with pytest.warns(MusicGenLabWarning, match="are not used: it does not match its checksum"):
        assert ClipStore(run.store.folder).clip(key).codes is None
    with pytest.warns(MusicGenLabWarning, match="are not used"):
        assert not open_source(f"{run.path}#{key}").is_codes


def test_a_clip_made_again_without_codes_leaves_none_of_the_older_one(run):
    run.put(clip_with_codes())
    run.put(sine_clip(REQUEST), replace=True)
    assert not list(run.store.folder.glob("*.npz"))
    assert ClipStore(run.store.folder).clip(REQUEST.key()).codes is None


def test_a_copy_of_a_run_has_the_codes_too(run, tmp_path):
    run.put(clip_with_codes())
    copy = run.copy_to(tmp_path / "copy")
    np.testing.assert_array_equal(copy.store.clip(REQUEST.key()).codes, CODES)


def test_a_record_without_codes_is_written_as_it_always_was(run):
    record = run.put(sine_clip(REQUEST))
    assert "codes" not in record.model_dump()
    assert b"codes" not in (run.store.folder / f"{record.key}.json").read_bytes()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("{tmp}/missing.wav", "missing.wav: No such file or directory; give a sound file, or RUN#"),
        ("{tmp}", "Is a directory; give a sound file"),
        ("{tmp}/pipe", "it is not a plain file"),
        ("/dev/zero", "it is not a plain file"),
        ("{tmp}/guitar#ffff", "no clip is 'ffff' in"),
        ("{tmp}/guitar#", "cannot begin with"),
        ("{tmp}/nothing#ffff", "nothing does not exist"),
        pytest.param("x" * 300 + "#a", "File name too long", id="long name"),
        pytest.param("a\0b", "null byte", id="null byte"),
    ],
)
def test_what_cannot_be_opened_is_refused_in_one_line(run, tmp_path, given, message):
    os.mkfifo(tmp_path / "pipe")
    run.put(sine_clip(REQUEST))
    with pytest.raises(InvalidRequest) as error:
        open_source(given.format(tmp=tmp_path))
    assert message in str(error.value) and "\n" not in str(error.value)
    assert error.value.field == "begin_with"


def test_a_digest_is_a_source_whose_content_is_looked_up_later():
    assert open_source(hum().digest) == hum()
    assert isinstance(open_source(hum().digest), Source)


def test_a_run_of_before_there_were_more_fields_opens_unchanged(tmp_path):
    older = shutil.copytree(Path(__file__).parent / "run_without_later_fields", tmp_path / "older")
    before = {path.name: path.read_bytes() for path in older.rglob("*.json")}
    made = next(path for path in older.rglob("*.json") if b'"ok"' in path.read_bytes())
    made.with_suffix(".wav").write_bytes(encode_wav(np.full((1, 8000), 0.25, np.float32), 8000))
    run = RunFolder.started(older)
    table = RunTable.of(run)
    assert list(table.rows["status"]) == ["ok", "failed"] and table.swept == ("temperature",)
    assert list(table.rows["mix"]) == [0, 0] and list(table.rows["begin_with"]) == ["", ""]
    assert table.clip(made.stem).codes is None
    sweep = Sweep(prompt="jazzy piano solo", duration=1, temperature=[0.7, 1], model="m@1")
    assert sweep.plan(SineBackend(), older).present == 1
    run.add_sweep(sweep.design, sweep.requests)
    assert {path.name: path.read_bytes() for path in older.rglob("*.json")} == before


def continued(sources, **fields):
    return Sweep(prompt="a", model=MODEL, begin_with=sources, begin_s=0.5, duration=1, **fields)


def test_a_run_keeps_what_its_clips_begin_with_and_goes_on_without_the_file(tmp_path):
    path, folder = tmp_path / "hum.wav", tmp_path / "run"
    path.write_bytes(hum().content)
    continued(path, seed=[0, 1]).run(SineBackend(failures=0), folder, progress=False)
    path.unlink()
    backend = SineBackend()
    plan = continued(hum().digest, seed=range(3)).plan(backend, folder)
    assert (plan.present, plan.to_make) == (2, 1)
    plan.run(progress=False)
    assert backend.made[0].begin_with.content == hum().content
    assert [p.name for p in (folder / "sources").iterdir()] == [f"{hum().digest}.wav"]
    assert RunFolder.started(folder).source_names == {hum().digest: "hum.wav"}


def test_a_source_that_the_run_has_no_true_copy_of_is_asked_for(tmp_path):
    folder = tmp_path / "run"
    with pytest.raises(InvalidRequest, match="the run folder has no copy of begin_with"):
        continued(hum().digest).plan(SineBackend(), folder)
    continued(hum()).run(SineBackend(), folder, progress=False)
    (folder / "sources" / f"{hum().digest}.wav").write_bytes(hum(frequency_hz=221).content)
    with pytest.raises(InvalidRequest, match="no copy"):
        continued(hum().digest).plan(SineBackend(), folder)
    continued(hum()).run(SineBackend(), folder, progress=False)  # it is written anew
    assert continued(hum().digest).plan(SineBackend(), folder).present == 1


def test_a_copy_of_a_run_goes_on_from_its_own_sources(tmp_path):
    continued(hum()).run(SineBackend(), tmp_path / "run", progress=False)
    RunFolder.started(tmp_path / "run").copy_to(tmp_path / "copy")
    assert RunFolder.started(tmp_path / "copy").source(hum().digest) == hum()
    assert continued(hum().digest).plan(SineBackend(), tmp_path / "copy").present == 1


def test_sources_are_called_by_their_names_in_the_tables_of_a_run(tmp_path):
    others = [hum(frequency_hz=f, name="hum.wav") for f in (300, 400)]
    sweep = continued([hum(name="guitar.wav"), *others])
    table = sweep.run(SineBackend(), tmp_path / "run", progress=False).table
    assert table.swept == ("begin_with",)
    labels = [table.labels.value("begin_with", digest) for digest in table.rows["begin_with"]]
    assert labels[0] == "guitar.wav"
    assert labels[1:] == [f"hum.wav ({source.digest[:6]})" for source in others]


def test_a_source_in_a_link_out_of_the_folder_is_not_followed(tmp_path):
    folder = tmp_path / "run"
    continued(hum()).run(SineBackend(), folder, progress=False)
    shutil.move(folder / "sources", tmp_path / "elsewhere")
    (folder / "sources").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(RunFolderError, match="sources is a link that leaves the run folder"):
        RunFolder(folder)


def test_the_windows_of_given_codes_have_no_seams():
    record = {"duration": 60, "duration_s": 60, "extend_stride": 18, "include_start": True}
    assert seams_of({**record, "begin_with": "", "begin_s": math.nan}) == [30, 48]
    assert seams_of({**record, "begin_with": "d", "begin_s": 40.0}) == [48]
    cut = {"begin_with": "d", "begin_s": 40.0, "include_start": False, "duration_s": 20}
    assert seams_of({**record, **cut}) == [8]


def test_a_run_is_opened_below_the_home_folder(run, monkeypatch):
    run.put(sine_clip(REQUEST))
    monkeypatch.setenv("HOME", str(run.path.parent))
    assert open_source(f"~/guitar#{REQUEST.key()[:8]}").name.startswith("guitar#")


def test_a_file_whose_name_is_no_text_is_kept_under_one_that_is():
    assert printable("b\udcff.wav") == "b?.wav"
