"""Clips are laid out as a reader expects, for all swept fields."""

from __future__ import annotations

import pytest

from musicgen_lab import Sweep
from musicgen_lab.figures.facets import clip_grids
from musicgen_lab.formatting import describe, format_value
from musicgen_lab.runs.run_table import RunTable
from tests.support.report_runs import make_run
from tests.support.sines import SineBackend


def laid_out(folder, **fields):
    return clip_grids(RunTable.open(make_run(folder, **fields)))


def test_temperature_goes_down_and_cfg_coef_across(tmp_path):
    (grid,) = laid_out(tmp_path, cfg_coef=[5, 1], temperature=[1.3, 0.7, 1.0])
    assert (grid.row_field, grid.column_field) == ("temperature", "cfg_coef")
    assert (grid.row_values, grid.column_values) == ((0.7, 1.0, 1.3), (1.0, 5.0))
    for facet in grid.facets:
        assert facet.record["temperature"] == grid.row_values[facet.row]
        assert facet.record["cfg_coef"] == grid.column_values[facet.column]


@pytest.mark.parametrize(
    ("fields", "down", "across"),
    [
        ({"temperature": [0.7, 1], "seed": [0, 1]}, "temperature", "seed"),
        ({"cfg_coef": [1, 3], "seed": [0, 1]}, "seed", "cfg_coef"),
        ({"prompt": ["b", "a"], "seed": [0, 1]}, "prompt", "seed"),
        ({"top_k": [50, 250], "temperature": [0.7, 1]}, "temperature", "top_k"),
    ],
)
def test_other_fields_take_the_free_axes(tmp_path, fields, down, across):
    (grid,) = laid_out(tmp_path, **fields)
    assert (grid.row_field, grid.column_field) == (down, across)
    assert grid.row_values == tuple(fields[down])


def test_every_combination_of_the_remaining_fields_is_a_grid(tmp_path):
    fields = {"temperature": [0.7, 1], "cfg_coef": [1, 3], "seed": [0, 1], "duration": [1, 2]}
    found = laid_out(tmp_path, **fields)
    assert [grid.heading for grid in found] == [
        "duration 1 s, seed 0",
        "duration 1 s, seed 1",
        "duration 2 s, seed 0",
        "duration 2 s, seed 1",
    ]
    keys = [facet.record["key"] for grid in found for facet in grid.facets]
    assert len(keys) == len(set(keys)) == 16


def test_missing_clips_keep_their_facet_and_failed_and_silent_ones_are_marked(tmp_path):
    (grid,) = laid_out(
        tmp_path, temperature=[0.7, 1], cfg_coef=[1, 3], missing=[1], failed=[2], silent=[3]
    )
    assert [facet.status for facet in grid.facets] == ["ok", "missing", "failed", "silent"]
    assert grid.facets[1].label == "temperature 0.7, cfg_coef 3"


@pytest.mark.parametrize(("n", "shape"), [(1, (1, 1)), (3, (1, 3)), (5, (2, 3)), (8, (2, 4))])
def test_one_swept_field_is_a_list_in_its_order(tmp_path, n, shape):
    (grid,) = laid_out(tmp_path, seed=list(reversed(range(n))))
    assert grid.is_list
    assert (grid.rows, grid.columns) == shape
    assert [facet.record["seed"] for facet in grid.facets] == list(range(n))


def test_a_random_design_is_a_list_and_not_a_grid_of_holes(tmp_path):
    sweep = Sweep.sample(10, prompt="a", duration=1, temperature=(0.5, 1.5), cfg_coef=(1, 8))
    (grid,) = clip_grids(sweep.run(SineBackend(), tmp_path, progress=False).table)
    assert grid.is_list
    assert len(grid.facets) == 10
    temperatures = [facet.record["temperature"] for facet in grid.facets]
    assert temperatures == sorted(temperatures)


def test_a_run_without_clips_has_no_pages(tmp_path):
    assert laid_out(tmp_path, missing=[0]) == []


def test_values_are_formatted_for_people():
    assert format_value("temperature", 0.30000000000000004) == "0.3"
    assert format_value("duration", 8.0) == "8 s"
    assert format_value("prompt", "a" * 50) == "a" * 39 + "…"
    assert format_value("prompt", "a" * 50, shorten=None) == "a" * 50
    assert describe({"cfg_coef": 3.0, "seed": 1}) == "cfg_coef 3, seed 1"
