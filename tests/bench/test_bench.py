"""`musicgen-lab bench` tells what it timed, for people and for programs; how fast is not tested."""

import json

import psutil
import pytest

from musicgen_lab.bench.profile import classify, exclusive_times
from musicgen_lab.bench.stream import Listener
from tests.support.command import run_here
from tests.support.reference import needs_audiocraft

FIELDS = [
    "engine",
    "size",
    "device",
    "dtype",
    "clips",
    "seconds",
    "ms_per_step",
    "clip_seconds_per_second",
    "first_clip_s",
    "peak_memory_mb",
    "ratio_to_audiocraft",
    "floor_fraction",
    "read_speed_gb_s",
    "timed",
]


def bench(*options):
    return run_here("bench", "--seconds", "1", *options)


@pytest.fixture(scope="module")
def told():
    done = bench("--engines", "lab,audiocraft", "--grid", "2x2", "--rounds", "1", "--json")
    assert done.returncode == 0, done.stderr
    return done


@needs_audiocraft
def test_every_engine_has_a_line_of_json_with_the_same_fields(told):
    rows = [json.loads(line) for line in told.stdout.splitlines()]

    assert [row["engine"] for row in rows] == ["lab", "audiocraft"]
    assert all(list(row) == FIELDS for row in rows)
    assert all(row["size"] == "demo" and row["clips"] == 4 for row in rows)


@needs_audiocraft
def test_a_loop_is_timed_on_one_cell_and_counted_for_all(told):
    lab, loop = (json.loads(line) for line in told.stdout.splitlines())

    assert lab["timed"] == "4 of 4 clips, 53 of 53 steps"
    assert loop["timed"] == "1 of 4 clips, 53 of 53 steps"
    assert lab["ratio_to_audiocraft"] == pytest.approx(loop["ms_per_step"] / lab["ms_per_step"])
    assert loop["ratio_to_audiocraft"] == 1.0
    for row in (lab, loop):
        made_s = row["ms_per_step"] * 53 / 1000
        assert row["clip_seconds_per_second"] == pytest.approx(4 * 1.0 / made_s)
        assert 0 < row["first_clip_s"] <= made_s * 1.01


@needs_audiocraft
def test_the_machine_is_named_on_standard_error_beside_the_json(told):
    assert "cores" in told.stderr
    assert "torch" in told.stderr


def test_the_table_for_people_ends_with_the_machine():
    done = bench("--engines", "lab", "--rounds", "1")

    assert done.returncode == 0, done.stderr
    title, head, row, note, machine = done.stdout.splitlines()
    assert title.startswith("demo: 1 clips of 1 s, cpu, floor at ")
    assert head.split()[0] == "engine"
    assert row.split()[0] == "lab"
    assert note.startswith("lab: float32, timed 1 of 1 clips")
    assert "cores" in machine


def test_a_profile_divides_the_time_among_classes_of_kernels():
    done = bench("--profile", "--json")

    assert done.returncode == 0, done.stderr
    classes = {row["name"]: row for row in map(json.loads, done.stdout.splitlines())}
    assert {"products", "codec", "normalisation", "sampling"} <= classes.keys()
    assert sum(row["share"] for row in classes.values()) == pytest.approx(1.0)
    assert classes["normalisation"]["count"] >= 53 * 3 * 5  # three per layer and step


def test_streams_are_described_as_their_listeners_hear_them():
    done = bench("--stream", "--grid", "2x1", "--rounds", "1", "--json")

    assert done.returncode == 0, done.stderr
    heard = json.loads(done.stdout)
    assert (heard["clips"], heard["seconds"]) == (2, 1.0)
    assert 10 <= heard["first_steps"] <= 25 and heard["chunks"] >= 1
    assert heard["first_s"] > 0 and heard["realtime"] > 0 and heard["silent_s"] >= 0


@pytest.mark.parametrize(
    ("arrivals_s", "silent_s"),
    [((0.5, 1.0, 2.0), 0.0), ((0.5, 1.75, 2.0), 0.25), ((0.5, 1.75, 3.0), 0.5)],
)
def test_a_listener_waits_when_the_next_chunk_comes_after_the_end_of_the_last(arrivals_s, silent_s):
    listener = Listener()

    for now_s in arrivals_s:
        listener.hear(now_s, lasts_s=1.0, steps_done=17)

    assert (listener.first_s, listener.first_steps, listener.silent_s) == (0.5, 17, silent_s)


def test_the_time_for_which_a_kernel_waits_for_an_earlier_one_is_not_counted_twice():
    spans = [(0, 10), (2, 13), (4, 12), (20, 25)]

    assert list(exclusive_times(spans)) == [10, 3, 0, 5]


@pytest.mark.parametrize(
    ("kernel", "name"),
    [
        ("attend_rows", "attention"),
        ("multiply_rows", "products"),
        ("sm80_xmma_gemm_f32f32_f32f32_f32_tn_n_tilesize32x32x8_stage3", "products"),
        ("nvjet_tst_128x8_64x12_4x1_v_bz_TNT", "products"),
        ("sm80_xmma_fprop_implicit_gemm_f32f32_f32f32_f32_nchwkcrs_nchw", "codec"),
        ("void elemWiseRNNcell<float, float, float, (cudnnRNNMode_t)2>", "codec"),
        ("add_and_normalise_rows", "normalisation"),
        ("void at::native::sbtopk::gatherTopK<float, unsigned int, 2>", "sampling"),
        ("Memcpy DtoD (Device -> Device)", "copies"),
        ("void something_new", "other"),
    ],
)
def test_a_kernel_is_classed_by_its_name(kernel, name):
    assert classify(kernel) == name


def test_a_busy_machine_is_made_and_left_as_it_was():
    before = psutil.Process().children()
    done = bench("--engines", "lab", "--rounds", "1", "--busy", "2", "--json")

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["engine"] == "lab"
    assert psutil.Process().children() == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--mixed",), "--seconds has no effect with --mixed"),
        (("--stream", "--engines", "lab"), "--engines has no effect with --stream"),
        (("--profile", "--stream"), "give --stream or --profile, not both"),
        (("--grid", "2x2", "--clips", "4"), "--clips has no effect with --grid"),
    ],
)
def test_options_without_effect_are_refused(options, message):
    done = bench(*options)

    assert done.returncode == 2
    assert message in done.stderr


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--busy", "-1", "busy must be at least 0, got -1"),
        ("--engines", ",", "got none"),
        ("--peer-seconds", "0", "duration must be a number from 1"),
        ("--engines", "lab,nonsense", "nonsense"),
        ("--grid", "5by5", "5by5"),
        ("--size", "huge", "huge"),
        ("--rounds", "0", "rounds must be at least 1, got 0"),
        ("--grid", "0x3", "grid must be at least 1x1, got 0x3"),
    ],
)
def test_what_cannot_be_timed_is_refused_by_name(option, value, message):
    done = bench(option, value)

    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1
