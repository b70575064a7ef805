"""Options are the fields of a request, and their values are read as people write them."""

from __future__ import annotations

import click
import pytest

from musicgen_lab.cli import cli
from musicgen_lab.cli.options import numbers
from musicgen_lab.errors import InvalidRequest
from musicgen_lab.fields import REQUEST_FIELDS


@pytest.mark.parametrize("command", ["generate", "sweep"])
def test_every_field_is_an_option_that_gives_its_description_limits_and_default(command):
    options = {option.name: option for option in cli.commands[command].params}
    assert [name for name in options if name in REQUEST_FIELDS] == list(REQUEST_FIELDS)
    assert options["temperature"].help.startswith("Sampling temperature, higher = more random")
    assert options["temperature"].help.endswith("[0 to 10; default: 1]")
    assert options["top_k"].help.endswith("[0 to 2,048; default: 250]")


@pytest.mark.parametrize(
    ("text", "field", "values"),
    [
        ("0.7,1.0, 1.3", "temperature", [0.7, 1.0, 1.3]),
        ("0.5:0.9:0.1", "temperature", [0.5, 0.6, 0.7, 0.8, 0.9]),
        ("0.5:0.95:0.1", "temperature", [0.5, 0.6, 0.7, 0.8, 0.9]),
        ("0.9:0.5:-0.2", "temperature", [0.9, 0.7, 0.5]),
        ("1:5:2", "cfg_coef", [1, 3, 5]),
        ("1:3", "cfg_coef", [1, 2, 3]),
        ("0:8", "seed", [0, 1, 2, 3, 4, 5, 6, 7]),
        ("0:8:3", "seed", [0, 3, 6]),
        ("0:9:3", "seed", [0, 3, 6]),
        ("5:2:-1", "seed", [5, 4, 3]),
        ("0:3,7", "seed", [0, 1, 2, 7]),
        ("1:nan", "cfg_coef", ["1:nan"]),
        ("warm", "temperature", ["warm"]),
    ],
)
def test_lists_and_ranges_are_read_without_rounding_errors(text, field, values):
    assert numbers((text,), field) == values


@pytest.mark.parametrize(
    ("text", "field", "message"),
    [
        ("5:2", "seed", "5:2 holds no number: it starts at 5 and ends at 2 in steps of 1; did you "
         "mean 2:5?"),
        ("3:3", "seed", "its end is left out; write 3"),
        ("0:10:0", "seed", "its step is 0"),
        ("0.5:0.9", "temperature", "0.5:0.9 needs a step, such as 0.5:0.9:0.1"),
        ("0:99999999999999999999", "seed", "99,999,999,999,999,999,999 values; a sweep has"),
        ("0:1e300", "seed", "a sweep has at most 1,000,000 clips"),
    ],
)  # fmt: skip
def test_a_range_that_cannot_be_meant_is_refused_with_the_reason(text, field, message):
    with pytest.raises(click.BadParameter) as error:
        numbers((text,), field)
    assert message in error.value.message


def test_two_values_that_look_like_a_number_with_a_decimal_comma_are_refused():
    with pytest.raises(InvalidRequest, match=r"--top-p 0,9 reads as 0 and 9, .*point it is 0\.9"):
        numbers(("0,9",), "top_p")
    with pytest.raises(InvalidRequest, match=r"duration must be a number from 1 .* it is 0\.5"):
        numbers(("0,5",), "duration")
    way_out = r"if 0\.7 is meant, .* both values are, --temperature 0 --temperature 7"
    with pytest.raises(InvalidRequest, match=way_out):
        numbers(("0,7",), "temperature")
    assert numbers(("0", "7"), "temperature") == [0, 7]
    assert numbers(("1,3",), "cfg_coef") == [1, 3]
    assert numbers(("0,7",), "seed") == [0, 7]
