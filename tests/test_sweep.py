"""A sweep expands to an ordered list of requests, plans, runs, and resumes."""

from __future__ import annotations

import collections
import functools
import itertools
import json
import math
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from musicgen_lab import (
    GenerationRequest,
    InvalidRequest,
    MusicGenLabWarning,
    Results,
    Sweep,
    connect,
    request,
)
from musicgen_lab.fields import plain_number
from tests.support.sines import PreciseSines, SineBackend
from tests.support.sources import hum

GUITAR = "calm acoustic guitar melody"


def grid(**fields):
    return Sweep(**{"prompt": GUITAR, "duration": 1, **fields})


def test_seeds_vary_fastest_then_cfg_coef_then_temperature():
    sweep = grid(seed=range(2), cfg_coef=[1, 3], temperature=[0.7, 1.0])
    assert [(r.temperature, r.cfg_coef, r.seed) for r in sweep.requests] == [
        (0.7, 1, 0), (0.7, 1, 1), (0.7, 3, 0), (0.7, 3, 1),
        (1.0, 1, 0), (1.0, 1, 1), (1.0, 3, 0), (1.0, 3, 1),
    ]  # fmt: skip
    assert sweep.swept == ("temperature", "cfg_coef", "seed")


def test_without_a_seed_every_cell_is_made_once_with_seed_zero():
    assert [request.seed for request in grid(temperature=[0.5, 1]).requests] == [0, 0]


@given(
    st.fixed_dictionaries(
        {
            "temperature": st.lists(st.floats(0.1, 10), min_size=1, max_size=4),
            "cfg_coef": st.lists(st.floats(0, 100), min_size=1, max_size=4),
            "seed": st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=4),
        }
    )
)
def test_a_grid_has_every_combination_once_in_a_fixed_order(fields):
    sweep = grid(**fields)
    distinct = [len(set(map(plain_number, values))) for values in fields.values()]
    assert len(sweep.requests) == len(set(sweep.requests)) == np.prod(distinct)
    shuffled = dict(reversed(fields.items()))
    assert grid(**shuffled).requests == sweep.requests


def test_arrays_ranges_and_generators_are_lists():
    sweep = grid(temperature=np.linspace(0.5, 1, 3), seed=range(2), cfg_coef=(c for c in (1, 2)))
    assert len(sweep.requests) == 12
    json.dumps(sweep.design)


@pytest.mark.parametrize("grid_of", [np.arange(0.5, 1, 0.1), np.float32([0.5, 0.6, 0.7, 0.8, 0.9])])
def test_a_numpy_grid_asks_for_the_same_clips_as_the_numbers_typed(grid_of, tmp_path):
    backend = SineBackend()
    grid(temperature=grid_of).run(backend, tmp_path, progress=False)
    typed = grid(temperature=[0.5, 0.6, 0.7, 0.8, 0.9])
    assert typed.plan(backend, tmp_path).to_make == 0
    assert grid(temperature=grid_of).design == typed.design


def test_any_field_can_be_swept():
    sweep = grid(prompt=["a", "b"], duration=[1, 2], top_k=[50, 250], model=["demo", "owner/name"])
    assert len(sweep.requests) == 16


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"top_k": [50, 250], "top_p": 0.9}, "sweeping top_k does nothing where top_p 0.9"),
        ({"top_k": [50, 250], "top_p": [0, 0.9]}, "sweeping top_k does nothing"),
        ({"seed": [0, 1], "temperature": 0}, "sweeping seed does nothing where temperature 0"),
        ({"seed": [0, 1], "temperature": [0, 1]}, "in a sweep of its own"),
        ({"top_p": [0.5, 0.9], "temperature": 0}, "sweeping top_p does nothing"),
        ({"top_k": 1, "temperature": [0.5, 1]}, "top_k 1 always takes the likeliest token"),
        ({"top_k": 1, "seed": [0, 1]}, "sweeping seed does nothing where top_k 1"),
        ({"top_p": 1e-4, "seed": [0, 1]}, "top_p 0.0001 always takes the likeliest of 2,048"),
        ({"cfg_coef": 0, "prompt": ["a", "b"]}, "sweeping prompt does nothing where cfg_coef 0"),
        ({"top_k": [250, 2048]}, "allows all of the model's 2,048 tokens, as 0 does"),
        ({"temperature": []}, "temperature needs at least one value"),
        ({"temperature": [1, "warm"]}, "temperature must be a number from 0 to 10, got 'warm'"),
        ({"temperature": {1, 2}}, "a list in an order, got a set"),
        ({"temperature": [[1], [2]]}, "a flat list"),
        ({"temperature": np.ones((2, 2))}, "a flat list"),
        ({"negative_prompt": b"drums"}, "negative_prompt must be text of up to 1,000 characters"),
        ({"seed": None}, "needs seeds to find its clips again"),
        ({"seed": [0, None]}, "needs seeds to find its clips again"),
        ({"cfg_coeff": [1, 2]}, "did you mean cfg_coef?"),
        ({"seed": range(10**30)}, "seed can have up to 1,000,000 values, got more"),
        ({"seed": itertools.count()}, "seed can have up to 1,000,000 values, got more"),
        ({"seed": range(1001), "temperature": np.linspace(0, 1, 1000)}, "clips, got 1,001,000"),
    ],
)
def test_invalid_sweeps_are_refused(fields, message):
    with pytest.raises(InvalidRequest) as error:
        grid(**fields)
    assert message in str(error.value)


def test_a_set_field_without_effect_is_noted():
    assert grid(top_k=100, top_p=0.9).notes == ("top_k does nothing: top_p 0.9 replaces it",)
    assert grid(top_p=0.9).notes == ()


def test_a_random_design_is_reproducible_and_stays_within_its_ranges():
    space = {"temperature": (0.5, 1.5), "cfg_coef": (1, 8), "top_k": (10, 500)}
    sweep = Sweep.sample(40, prompt=GUITAR, seed=3, replicates=2, **space)
    assert sweep.requests == Sweep.sample(40, prompt=GUITAR, seed=3, replicates=2, **space).requests
    assert sweep.requests != Sweep.sample(40, prompt=GUITAR, seed=4, replicates=2, **space).requests
    assert len(sweep.requests) == 80
    for name, (low, high) in space.items():
        values = sorted({getattr(request, name) for request in sweep.requests})
        assert low <= values[0] < values[-1] <= high
        quarter = low + (high - low) / 4
        assert sum(value < quarter for value in values) == pytest.approx(10, abs=1)  # spread evenly
    assert {request.seed for request in sweep.requests} == {0, 1}


def test_every_number_of_a_random_design_may_be_numpys():
    sweep = Sweep.sample(
        np.int64(5),
        seed=np.uint8(3),
        replicates=np.int64(2),
        prompt=GUITAR,
        temperature=(np.float32(0.7), np.int64(2)),
        cfg_coef=np.array(3.0),
    )
    assert sweep.design["fields"]["temperature"] == {"low": 0.7, "high": 2}
    assert sweep.design["fields"]["cfg_coef"] == [3.0]
    json.dumps(sweep.design)


def test_a_random_design_draws_from_lists_and_keeps_single_values():
    sweep = Sweep.sample(10, prompt=["a", "b"], temperature=(0.5, 1.5), cfg_coef=4)
    assert [request.prompt for request in sweep.requests].count("a") == 5
    assert {request.cfg_coef for request in sweep.requests} == {4}


@pytest.mark.parametrize(
    ("n", "fields", "message"),
    [
        (0, {}, "n must be a whole number from 1 to 1,000,000, got 0"),
        (5, {"seed": -1}, "seed, of the design, must be a whole number of 0 or more, got -1"),
        (5, {"seed": "a"}, "must be a whole number of 0 or more, got 'a'"),
        (5, {"replicates": 1_000_000}, "up to 1,000,000 clips, got 5,000,000"),
        (5, {"temperature": (1.5, 0.5)}, "low first"),
        (5, {"temperature": (1, 2, 3)}, "a range (low, high)"),
        (5, {"temperature": (1, 20)}, "temperature must be a number from 0 to 10, got 20"),
        (5, {"temperature": (0, math.inf)}, "temperature must be a number from 0 to 10, got inf"),
        (5, {"cfg_coef": (0, 10**400)}, "cfg_coef must be a number from 0 to 100, got 1000"),
        (5, {"cfg_coeff": (1, 2)}, "did you mean cfg_coef?"),
        (5, {"temperature": [0.5, 1.5]}, "only 2 of those drawn differ: a list is a choice"),
        (5, {}, "write a range as a tuple, such as temperature=(0.5, 1.5)"),
        (5, {"top_k": (1, 3)}, "only 3 of those drawn differ: the ranges are too narrow"),
    ],
)
def test_random_designs_that_make_no_sense_are_refused(n, fields, message):
    with pytest.raises(InvalidRequest) as error:
        Sweep.sample(n, **{"prompt": GUITAR, "seed": 1, **fields})
    assert message in str(error.value)


def test_rows_are_combinations_made_with_every_combination_of_the_other_fields():
    rows = [{"prompt": "piano", "cfg_coef": np.float32(2.7)}, {"prompt": "drums", "top_k": 50}]
    sweep = Sweep.from_rows(rows, duration=1, seed=[0, 1])
    assert [(r.prompt, r.cfg_coef, r.top_k, r.seed) for r in sweep.requests] == [
        ("piano", 2.7, 250, 0), ("piano", 2.7, 250, 1), ("drums", 3, 50, 0), ("drums", 3, 50, 1),
    ]  # fmt: skip
    json.dumps(sweep.design)


@pytest.mark.parametrize(
    ("rows", "fields", "message"),
    [
        ([], {}, "at least one row"),
        ([{"promt": "a"}], {}, "did you mean prompt?"),
        ([{"prompt": "a"}], {"prompt": "b"}, "prompt is in the rows already"),
        ([{"cfg_coef": 3}], {}, "prompt is required"),
        ([{"prompt": "a", "top_p": 2}], {}, "top_p must be a number from 0 to 1, got 2"),
        ([{"prompt": "a", "seed": None}], {}, "needs seeds to find its clips again"),
        (["prompt", "seed"], {}, "those of a table are table.to_dict('records')"),
    ],
)
def test_rows_that_make_no_sweep_are_refused(rows, fields, message):
    with pytest.raises(InvalidRequest) as error:
        Sweep.from_rows(rows, **fields)
    assert message in str(error.value)


def test_what_has_no_effect_on_the_backends_model_is_refused_by_the_plan():
    """The embedded model has 512 tokens in a codebook."""
    backend = connect("local")
    with pytest.raises(InvalidRequest, match="allows all of the model's 512 tokens, as 0 does"):
        grid(top_k=[250, 600]).plan(backend)
    assert grid(top_k=600).notes == ()
    (note,) = grid(top_k=600).plan(backend).notes
    assert note.startswith("top_k does nothing: top_k 600 allows all of the model's 512 tokens")


def test_values_that_gave_equal_audio_are_named_after_the_run(tmp_path):
    """Sines ignore top_p, as a model does that is always sure of the next token."""
    with pytest.warns(MusicGenLabWarning) as warned:
        grid(top_p=[0.5, 0.9], cfg_coef=[1, 3]).run(SineBackend(), tmp_path, progress=False)
    assert str(warned[0].message) == (
        "4 of 4 clips are bit-identical to another that differs in top_p, "
        "which had no effect on the sound there"
    )


@pytest.mark.parametrize("backend", ["local", 5, None])
def test_what_is_no_backend_is_refused(backend, tmp_path):
    with pytest.raises(InvalidRequest, match=r"backend must be one, such as musicgen_lab.connect"):
        grid().run(backend, tmp_path)


def test_clips_made_in_another_precision_are_kept_with_a_warning_refused_or_made_again(tmp_path):
    sweep = grid(seed=range(2))
    sweep.run(PreciseSines("float32"), tmp_path, progress=False)
    precise, way = (
        PreciseSines("bfloat16"),
        "2 of the clips in .* made otherwise: in float32 instead",
    )
    with pytest.warns(MusicGenLabWarning, match=way):
        sweep.run(precise, tmp_path, progress=False)
    with pytest.raises(InvalidRequest, match=way):
        sweep.plan(precise, tmp_path, mismatched="refuse")
    assert precise.made == []
    plan = sweep.plan(precise, tmp_path, mismatched="remake")
    assert (plan.to_make, plan.present) == (2, 0)
    assert list(plan.run(progress=False).frame["dtype"]) == ["bfloat16", "bfloat16"]
    assert sweep.plan(precise, tmp_path, mismatched="refuse").to_make == 0


def test_the_plan_counts_cells_seeds_and_what_is_there_without_making_anything(tmp_path):
    backend = SineBackend()
    grid(temperature=[0.7, 1.0]).run(backend, tmp_path / "run", progress=False)
    plan = grid(temperature=[0.7, 1.0, 1.3], seed=range(3)).plan(backend, tmp_path / "run")
    assert (plan.cells, plan.seeds, plan.clips, plan.present, plan.to_make) == (3, 3, 9, 2, 7)
    assert plan.to_make_s == 7
    assert plan.estimate_s == pytest.approx(0.07)
    assert len(backend.made) == 2
    assert "already there   2" in str(plan)
    assert f"run folder      {tmp_path / 'run'}" in str(plan)


def test_a_plan_for_a_folder_that_is_not_there_leaves_it_so(tmp_path):
    assert grid().plan(SineBackend(), tmp_path / "run").to_make == 1
    assert not (tmp_path / "run").exists()


def test_running_again_makes_nothing_and_a_larger_sweep_makes_only_the_new_clips(tmp_path):
    backend = SineBackend()
    grid(temperature=[0.7, 1.0]).run(backend, tmp_path, progress=False)
    grid(temperature=[0.7, 1.0]).run(backend, tmp_path, progress=False)
    assert len(backend.made) == 2
    results = grid(temperature=[0.7, 1.0], seed=[0, 1]).run(backend, tmp_path, progress=False)
    assert len(backend.made) == 4
    assert len(results.frame) == 4


def test_the_results_of_a_run_are_those_of_its_own_requests(tmp_path):
    grid(temperature=[0.7, 1.0], seed=[0, 1]).run(SineBackend(), tmp_path, progress=False)
    results = grid(temperature=[1.0, 1.3]).run(SineBackend(), tmp_path, progress=False)
    assert list(results.frame["temperature"]) == [1.0, 1.3]
    assert len(Results.open(tmp_path).frame) == 5


def test_a_plan_runs_and_knows_afterwards_what_is_finished(tmp_path):
    plan = grid(temperature=[0.7, 1.0]).plan(SineBackend(), tmp_path)
    assert (plan.present, plan.finished) == (0, 0)
    assert len(plan.run(progress=False).frame) == 2
    assert (plan.present, plan.finished) == (0, 2)
    with pytest.raises(InvalidRequest, match="this plan has no run folder"):
        grid().plan(SineBackend()).run()


def test_a_failure_is_a_row_and_does_not_lose_the_rest(tmp_path):
    sweep = grid(prompt=["a", "fail", "b"])
    results = sweep.run(SineBackend(), tmp_path, progress=False)
    assert list(results.frame["status"]) == ["ok", "failed", "ok"]
    assert results.frame["error"][1] == "OutOfMemoryError: no room for it"
    assert results.frame["prompt"][1] == "fail"


def test_failures_are_tried_again_unless_they_are_to_be_kept(tmp_path):
    sweep, backend = grid(prompt=["a", "fail"]), SineBackend(failures=2)
    sweep.run(backend, tmp_path, progress=False)
    kept = sweep.run(backend, tmp_path, keep_failures=True, progress=False)
    assert len(backend.made) == 2
    assert list(kept.frame["attempts"]) == [1, 1]
    again = sweep.run(backend, tmp_path, progress=False)
    assert list(again.frame["status"]) == ["ok", "failed"]
    assert list(again.frame["attempts"]) == [1, 2]
    mended = sweep.run(backend, tmp_path, progress=False)
    assert list(mended.frame["status"]) == ["ok", "ok"]
    assert list(mended.frame["attempts"]) == [1, 3]


class Interrupted(SineBackend):
    """Stops as Ctrl-C would, after two clips."""

    def generate(self, requests, on_progress=None):
        for n, result in enumerate(super().generate(requests)):
            if n == 2:
                on_progress(4)
                raise KeyboardInterrupt
            yield result


def test_an_interrupted_run_keeps_what_was_made_and_says_what_is_missing(tmp_path):
    sweep = grid(seed=range(5))
    with pytest.raises(
        KeyboardInterrupt,
        match=r"2 of 5 clips are made and kept, 2 s of sound in unfinished clips are lost: run it",
    ):
        sweep.run(Interrupted(), tmp_path, progress=False)
    results = Results.open(tmp_path)
    assert (len(results.frame), results.missing) == (2, 3)
    backend = SineBackend()
    sweep.run(backend, tmp_path, progress=False)
    assert [request.seed for request in backend.made] == [2, 3, 4]


def test_a_sweep_validates_a_request_twice_at_most_and_resolves_and_keys_it_once(
    tmp_path, monkeypatch
):
    counts = collections.Counter()

    def counted(name, function):
        def count(*args, **kwargs):
            counts[name] += 1
            return function(*args, **kwargs)

        return count

    validate = GenerationRequest.__init__
    monkeypatch.setattr(GenerationRequest, "__init__", counted("validated", validate))
    key_of = functools.lru_cache(counted("keyed", request._key_of.__wrapped__))
    monkeypatch.setattr(request, "_key_of", key_of)
    backend = SineBackend()
    monkeypatch.setattr(backend, "resolve", counted("resolved", backend.resolve))
    sweep = Sweep(prompt="a", duration=1, temperature=[0.7, 1, 1.3], cfg_coef=[1, 3, 5])
    sweep.run(backend, tmp_path, progress=False)
    assert counts == {"validated": 18, "keyed": 9, "resolved": 9}


def test_a_resumed_sweep_reads_a_record_once(tmp_path, monkeypatch):
    sweep = Sweep(prompt="a", duration=1, temperature=[0.7, 1, 1.3], cfg_coef=[1, 3, 5])
    sweep.run(SineBackend(), tmp_path, progress=False)
    read = collections.Counter()
    open_file = os.open

    def count(path, *arguments, **options):
        read[Path(path).name] += 1
        return open_file(path, *arguments, **options)

    monkeypatch.setattr(os, "open", count)
    sweep.run(SineBackend(), tmp_path, progress=False)
    assert len(list((tmp_path / "clips").glob("*.json"))) == 9
    assert {read[path.name] for path in (tmp_path / "clips").glob("*.json")} == {1}
    assert read["sweep.json"] == 1


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"mix": [0, 0.5]}, "sweeping mix does nothing where there is no prompt_b"),
        ({"prompt_b": ["b", "c"]}, "sweeping prompt_b does nothing where mix 0 follows the prompt"),
        ({"prompt": ["a", "b"], "prompt_b": "c", "mix": 1}, "where mix 1 follows prompt_b alone"),
        ({"negative_prompt": ["", "n"], "cfg_coef": [1, 3]}, "where cfg_coef 1 is no guidance"),
        ({"extend_stride": [12, 18]}, "where a clip of up to 30 s is made in one window"),
        ({"begin_at": [0, 1]}, "sweeping begin_at does nothing where there is no begin_with"),
        ({"include_start": [True, False]}, "where there is no begin_with"),
    ],
)
def test_an_axis_of_long_continued_or_mixed_clips_that_does_nothing_is_refused(fields, message):
    with pytest.raises(InvalidRequest, match=message):
        Sweep(**{"prompt": "a", **fields})


def test_long_continued_and_mixed_clips_are_swept_in_a_fixed_order(tmp_path):
    (tmp_path / "b.wav").write_bytes(hum(frequency_hz=300).content)
    sweep = Sweep(
        prompt="a", prompt_b="b", mix=[0, 0.5, 1], begin_with=[hum(), tmp_path / "b.wav"],
        begin_s=[0.5, 1], include_start=[True, False], duration=[40, 60], extend_stride=[12, 18],
    )  # fmt: skip
    assert sweep.swept == (
        "begin_with", "begin_s", "include_start", "duration", "extend_stride", "mix",
    )  # fmt: skip
    assert len(sweep.requests) == 3 * 2**5
    digests = [source.digest for source in (hum(), hum(frequency_hz=300))]
    assert sweep.design["fields"]["begin_with"] == digests
    assert sweep.notes == (
        "prompt_b does nothing: mix 0 follows the prompt alone",
        "prompt does nothing: mix 1 follows prompt_b alone",
    )


def test_a_sweep_of_rows_may_name_a_sound_in_each():
    rows = [{"prompt": "a", "begin_with": hum()}, {"prompt": "b", "begin_with": hum(name="c")}]
    sweep = Sweep.from_rows(rows)
    assert [request.begin_with for request in sweep.requests] == [hum(), hum()]
    assert sweep.design["rows"][0]["begin_with"] == hum().digest


def test_a_sound_that_cannot_be_begun_with_is_refused_before_anything_is_made(tmp_path):
    with pytest.raises(InvalidRequest, match=r"nothing\.wav: No such file"):
        Sweep(prompt="a", begin_with=tmp_path / "nothing.wav")
    with pytest.raises(InvalidRequest, match="begin_s is given for a part of the clips only"):
        Sweep(prompt="a", begin_with=hum(), begin_s=[1, None])
    with pytest.raises(InvalidRequest, match="begin_with must be a Source"):
        Sweep(prompt="a", begin_with=7)


def test_a_plan_counts_the_sound_that_is_to_be_made_and_not_what_is_given():
    sweep = Sweep(prompt="a", begin_with=hum(), duration=[8, 40], extend_stride=18)
    plan = sweep.plan(SineBackend())
    assert plan.to_make_s == 6 + 38
