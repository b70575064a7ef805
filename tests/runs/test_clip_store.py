"""A store never loses a finished clip and never trusts a file that is not whole."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import resource
import shutil
import signal
import subprocess
import sys
import warnings

import numpy as np
import pytest
import soundfile

from musicgen_lab.clip import Failure
from musicgen_lab.errors import MusicGenLabWarning, RunFolderUnwritable
from musicgen_lab.request import GenerationRequest, digest
from musicgen_lab.runs.clip_store import ClipStore
from musicgen_lab.runs.run_folder import RunFolder
from tests.support.sines import sine_clip


def request(**fields):
    return GenerationRequest(**{"prompt": "a", "duration": 1, "seed": 0, "model": "m@1", **fields})


@pytest.fixture
def store(tmp_path):
    (tmp_path / "run" / "clips").mkdir(parents=True)
    return ClipStore(tmp_path / "run" / "clips")


def test_a_clip_comes_back_as_it_was(store):
    clip = sine_clip(request())
    store.put(clip)
    again = ClipStore(store.folder).clip(clip.request.key())
    np.testing.assert_array_equal(again.samples, clip.samples)
    assert again.request == clip.request
    assert again.provenance == clip.provenance
    assert (again.sample_rate, again.elapsed_s) == (clip.sample_rate, clip.elapsed_s)


def test_a_clip_just_stored_is_known_without_its_sound_being_read_again(store, monkeypatch):
    key = store.put(sine_clip(request())).key
    monkeypatch.setattr(store, "_read_sound", None)
    assert store.record(key).status == "ok"


def test_clips_of_other_requests_are_looked_up_without_their_sounds(store, monkeypatch):
    store.put(sine_clip(request()))
    again = ClipStore(store.folder)
    monkeypatch.setattr(again, "_read_sound", None)
    assert again.record(request(seed=1).key()) is None


def test_the_record_has_the_request_and_the_provenance(store):
    store.put(sine_clip(request()))
    content = json.loads((store.folder / f"{request().key()}.json").read_text())
    assert content["request"] == request().model_dump()
    assert content["status"] == "ok"
    assert content["provenance"]["engine"] == "sines 1"
    assert content["audio"]["frames"] == 8000


def test_a_failure_is_counted_and_a_later_success_replaces_it(store):
    store.put(Failure(request(), "OutOfMemoryError", "no room"))
    assert store.put(Failure(request(), "OutOfMemoryError", "no room")).attempts == 2
    assert store.record(request().key()).error.message == "no room"
    assert store.put(sine_clip(request())).attempts == 3
    assert store.record(request().key()).status == "ok"


def test_a_finished_clip_is_never_replaced(store):
    store.put(sine_clip(request()))
    store.put(Failure(request(), "Late", "another process failed at it"))
    assert store.record(request().key()).status == "ok"


def put_as_before(store, temperature):
    """Store a clip as it was when a number kept the digits of its rounding error."""
    store.put(sine_clip(request(temperature=temperature)))
    new = request(temperature=temperature).key()
    record = json.loads((store.folder / f"{new}.json").read_text())
    record["request"]["temperature"] = temperature
    del record["sha256"]
    record["key"] = old = digest(record["request"])
    record["audio"]["file"] = f"{old}.wav"
    (store.folder / f"{new}.json").unlink()
    (store.folder / f"{new}.wav").rename(store.folder / f"{old}.wav")
    (store.folder / f"{old}.json").write_text(json.dumps(record))
    return old


def test_a_clip_whose_number_was_stored_with_a_rounding_error_is_found_by_the_number_meant(store):
    for temperature in (0.7999999999999999, float(np.float32(0.7))):
        put_as_before(store, temperature)
    for meant in (0.8, 0.7):
        again = ClipStore(store.folder)
        record = again.record(request(temperature=meant).key())
        assert record.request["temperature"] == meant
        assert again.clip(record.key).request == request(temperature=meant)
    records = list(ClipStore(store.folder).records())
    assert sorted(record.request["temperature"] for record in records) == [0.7, 0.8]
    assert not (store.folder.parent / "set-aside").exists()


def test_of_two_clips_of_one_request_the_one_under_its_own_key_counts(store):
    put_as_before(store, 0.7999999999999999)
    store.put(sine_clip(request(temperature=0.8)))
    (record,) = ClipStore(store.folder).records()
    assert record.audio.file == f"{record.key}.wav"


def _cut(path):
    path.write_bytes(path.read_bytes()[:-5])


def _flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def _edit(**fields):
    """Return what changes fields of a record, `audio__frames` being one in its part `audio`."""

    def harm(path):
        record = json.loads(path.read_text())
        del record["sha256"]  # as earlier versions wrote it, and as a forger would
        for name, value in fields.items():
            *parts, last = name.split("__")
            inner = record
            for part in parts:
                inner = inner[part]
            inner[last] = value
        path.write_text(json.dumps(record))

    return harm


def _rewrite_sound(samples, sample_rate=8_000, **options):
    """Return what writes another sound and its checksum into a clip, as a forger would."""

    def harm(path):
        sound = path.with_suffix(".wav")
        options.setdefault("subtype", "FLOAT")
        soundfile.write(sound, samples, sample_rate, format="WAV", **options)
        _edit(audio__sha256=hashlib.sha256(sound.read_bytes()).hexdigest())(path)

    return harm


def _replace(old, new):
    def harm(path):
        content = path.read_bytes()
        assert content.count(old) == 1
        path.write_bytes(content.replace(old, new))

    return harm


def _pipe(path):
    path.unlink()
    os.mkfifo(path)


def _link(target):
    def harm(path):
        path.unlink()
        path.symlink_to(target)

    return harm


def _link_to_a_copy_elsewhere(path):
    elsewhere = path.parents[2] / f"elsewhere{path.suffix}"
    path.rename(elsewhere)
    path.symlink_to(elsewhere)


SECOND = np.zeros(8_000)
DAMAGE = {
    "the sound is cut short": (".wav", _cut, "checksum"),
    "one bit of the sound is another": (".wav", _flip, "checksum"),
    "the sound is gone": (".wav", lambda path: path.unlink(), "missing"),
    "the sound is longer": (".wav", lambda path: os.truncate(path, 10**9), "1,000,000,000 bytes"),
    "the sound is a pipe": (".wav", _pipe, "not a plain file"),
    "the sound is a link to a device": (".wav", _link("/dev/zero"), "link that leaves"),
    "the sound is a link to elsewhere": (".wav", _link_to_a_copy_elsewhere, "link that leaves"),
    "the sound is a link to itself": (".wav", lambda p: _link(p)(p), "cannot be read"),
    "the record is cut short": (".json", _cut, "damaged"),
    "the record is empty": (".json", lambda path: path.write_text(""), "damaged"),
    "the record is other JSON": (".json", lambda path: path.write_text("[1]"), "damaged"),
    "the record is deep": (".json", lambda path: path.write_text("[" * 100_000), "damaged"),
    "the record is a photograph": (".json", lambda path: path.write_bytes(b"\xff\xd8"), "damaged"),
    "the record is huge": (".json", lambda path: os.truncate(path, 10**10), "10,000,000,000 bytes"),
    "the record is a pipe": (".json", _pipe, "not a plain file"),
    "the record is a link to elsewhere": (".json", _link_to_a_copy_elsewhere, "link that leaves"),
    "another engine's type": (".json", _edit(provenance__engine=None), "damaged"),
    "provenance without an engine": (".json", _edit(provenance={"device": "cpu"}), "damaged"),
    "no provenance": (".json", _edit(provenance=None), "damaged"),
    "no details": (".json", _edit(provenance__details=None), "damaged"),
    "a command as precision": (".json", _edit(provenance__dtype="float16; touch x"), "damaged"),
    "another time": (".json", _replace(b'"elapsed_s": 0.01', b'"elapsed_s": 0.02'), "damaged"),
    "another device": (".json", _replace(b'"device": "cpu"', b'"device": "cpv"'), "damaged"),
    "a status of its own": (".json", _edit(status="maybe"), "damaged"),
    "a time that is none": (".json", _edit(created_at="yesterday"), "damaged"),
    "endless seconds": (".json", _edit(elapsed_s=float("inf")), "damaged"),
    "a field too many": (".json", _edit(more=1), "damaged"),
    "a failure without an error": (".json", _edit(status="failed"), "damaged"),
    "another seed": (".json", _edit(request__seed=5), "another request"),
    "another clip's sound": (".json", _edit(audio__file="../../secret.wav"), "another file"),
    "more frames than asked for": (".json", _edit(audio__frames=10**9), "lasts 1.25e"),
    "other frames than the sound's": (".json", _edit(audio__frames=8_100), "another length"),
    "another rate than the sound's": (".json", _edit(audio__sample_rate_hz=8_001), "or rate"),
    "other channels than the sound's": (".json", _edit(audio__channels=2), "other channels"),
    "a sound of nothing but NaN": (".json", _rewrite_sound(SECOND * np.nan), "finite"),
    "a sound of another rate": (".json", _rewrite_sound(SECOND, 8_050), "or rate"),
    "a sound in 16 bits": (".json", _rewrite_sound(SECOND, subtype="PCM_16"), "32-bit"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_what_is_damaged_counts_as_not_there_is_left_alone_and_set_aside_when_made_anew(
    store, damage
):
    suffix, harm, fault = DAMAGE[damage]
    for seed in (0, 1):
        store.put(sine_clip(request(seed=seed)))
    harm(store.folder / f"{request().key()}{suffix}")
    again = ClipStore(store.folder)
    with pytest.warns(MusicGenLabWarning, match=f"{request().key()}.json is not used: .*{fault}"):
        records = list(again.records())
    assert [record.request["seed"] for record in records] == [1]
    assert not (store.folder.parent / "set-aside").exists()
    (bad,) = again.damaged({request().key(): request()})
    assert (bad.key, bad.status, bad.request["seed"]) == (request().key(), "failed", 0)
    assert bad.error.message.startswith(f"clips/{request().key()}.json: ")
    again.put(sine_clip(request()))
    assert list((store.folder.parent / "set-aside").iterdir())
    assert len(list(again.records())) == 2
    assert list(again.damaged({})) == []


def test_a_record_under_another_name_is_not_trusted(store):
    store.put(sine_clip(request()))
    for suffix in (".wav", ".json"):
        path = store.folder / f"{request().key()}{suffix}"
        shutil.copy(path, path.with_stem("0" * 64))
    with pytest.warns(MusicGenLabWarning, match="another request"):
        assert store.record("0" * 64) is None
    (store.folder / "notes.json").write_text("{}")
    with pytest.warns(MusicGenLabWarning, match="not the key"):
        assert len(list(store.records())) == 1


def test_a_sound_without_its_record_is_not_there_yet_and_is_left_alone(store):
    store.put(sine_clip(request()))
    (store.folder / f"{request().key()}.json").unlink()
    assert store.record(request().key()) is None
    assert (store.folder / f"{request().key()}.wav").exists()


def _write(folder, level, barrier):
    barrier.wait()
    store = ClipStore(folder)
    for seed in range(12):
        store.put(sine_clip(request(seed=seed), level=level))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert len(list(store.records())) > seed


def test_two_processes_that_make_different_sounds_for_the_same_requests_do_no_harm(store):
    """As two machines would: their samples differ in the last bits."""
    spawn = multiprocessing.get_context("spawn")
    barrier = spawn.Barrier(3)
    writers = [
        spawn.Process(target=_write, args=(store.folder, 0.1 * level, barrier))
        for level in (1, 2, 3)
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(120)
    assert [writer.exitcode for writer in writers] == [0, 0, 0]
    assert len(list(store.records())) == 12
    assert not list(store.folder.glob(".*.tmp"))


def _limit_file_size():
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # writing fails with EFBIG instead
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))


def test_no_space_is_one_clear_error_and_finished_clips_are_kept(store):
    store.put(sine_clip(request()))
    code = (
        "import sys; from pathlib import Path; from tests.runs.test_clip_store import *\n"
        "try: ClipStore(Path(sys.argv[1])).put(sine_clip(request(seed=1)))\n"
        "except RunFolderUnwritable as error: print(error)"
    )
    # -B, since Python would leave a truncated .pyc file of any module that it compiles there.
    printed = subprocess.run(
        [sys.executable, "-B", "-c", code, store.folder],
        preexec_fn=_limit_file_size,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert printed.startswith("no space left for")
    assert "finished clips are kept" in printed
    assert printed.count("\n") == 1
    assert len(list(ClipStore(store.folder).records())) == 1
    assert not list(store.folder.glob(".*.tmp"))


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 100 kB of its own."""
    mount = tmp_path / "small"
    mount.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=100k", "tmpfs", str(mount)]
    if os.getuid() != 0 or subprocess.run(command, capture_output=True).returncode != 0:
        pytest.skip("mounting a small disk needs root")
    yield mount
    subprocess.run(["umount", mount], check=True)


def test_a_full_disk_is_one_clear_error_and_finished_clips_are_kept(small_disk):
    (small_disk / "clips").mkdir()
    store = ClipStore(small_disk / "clips")
    for seed in (0, 1):
        store.put(sine_clip(request(seed=seed)))  # 32 kB each
    with pytest.raises(RunFolderUnwritable, match=r"no space left for .* run the same command"):
        store.put(sine_clip(request(seed=2)))
    assert len(list(store.records())) == 2


def test_a_read_only_folder_is_one_clear_error_and_can_still_be_read(small_disk):
    (small_disk / "clips").mkdir()
    store = ClipStore(small_disk / "clips")
    store.put(sine_clip(request()))
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    with pytest.raises(RunFolderUnwritable, match=f"cannot write to {store.folder}"):
        store.put(sine_clip(request(seed=1)))
    with pytest.raises(RunFolderUnwritable, match="cannot write to"):
        RunFolder(small_disk).create()
    assert len(list(ClipStore(store.folder).records())) == 1
