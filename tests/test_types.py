"""What a type checker and a help text say of the public interface."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from pathlib import Path
from typing import get_type_hints

import pytest

from musicgen_lab import GenerationRequest, Sweep, sweep
from musicgen_lab.fields import REQUEST_FIELDS
from musicgen_lab.request import RequestFields

PROJECT = Path(__file__).parents[1]
CODE = """
import numpy as np
from musicgen_lab import GenerationRequest, Sweep
Sweep(prompt="a", temperature=np.arange(0.5, 1.0, 0.1), cfg_coef=[1, 3.5], seed=range(3))
Sweep.sample(3, prompt=["a", "b"], temperature=(0.5, 1.5), top_k=(10, 500))
Sweep.from_rows([{"prompt": "a"}], duration=4)
GenerationRequest(prompt="a", duration=4)
Sweep(promt="a")
Sweep(prompt="a", temperature="hot")
GenerationRequest(prompt="a", cfg_coeff=3)
GenerationRequest(duration=4)
Sweep.sample(3, prompt="a", tempo=(1, 2))
"""


def test_a_misspelt_or_mistyped_field_is_an_error_for_mypy(tmp_path):
    (tmp_path / "code.py").write_text(CODE)
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--no-error-summary", tmp_path / "code.py"],
        cwd=PROJECT,
        capture_output=True,
        text=True,
    )
    lines = {int(line) for line in re.findall(r"code\.py:(\d+): error", done.stdout)}
    assert lines == {8, 9, 10, 11, 12}, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("thing", "shown"),
    [
        (
            GenerationRequest,
            "(*, prompt: 'str', duration: 'float' = 8.0, temperature: 'float' = 1.0, "
            "top_k: 'int' = 250, top_p: 'float' = 0.0, cfg_coef: 'float' = 3.0, "
            "seed: 'int | None' = None, model: 'str | None' = None, negative_prompt: 'str' = '', "
            "prompt_b: 'str' = '', mix: 'float' = 0.0, extend_stride: 'float' = 18.0, "
            "begin_with: 'str | None' = None, begin_at: 'float' = 0.0, "
            "begin_s: 'float | None' = None, include_start: 'bool' = True)",
        ),
        (
            Sweep,
            "(*, prompt: 'str | Iterable[str]', duration: 'float | Iterable[float]' = 8.0, "
            "temperature: 'float | Iterable[float]' = 1.0, top_k: 'int | Iterable[int]' = 250, "
            "top_p: 'float | Iterable[float]' = 0.0, cfg_coef: 'float | Iterable[float]' = 3.0, "
            "seed: 'int | Iterable[int]' = 0, model: 'str | Iterable[str] | None' = None, "
            "negative_prompt: 'str | Iterable[str]' = '', prompt_b: 'str | Iterable[str]' = '', "
            "mix: 'float | Iterable[float]' = 0.0, "
            "extend_stride: 'float | Iterable[float]' = 18.0, "
            "begin_with: 'str | Iterable[str] | None' = None, "
            "begin_at: 'float | Iterable[float]' = 0.0, "
            "begin_s: 'float | Iterable[float] | None' = None, "
            "include_start: 'bool | Iterable[bool]' = True)",
        ),
    ],
)
def test_the_signature_has_every_field_with_its_default(thing, shown):
    assert str(inspect.signature(thing)) == shown


def test_the_types_of_the_fields_have_the_names_of_the_fields():
    assert set(get_type_hints(RequestFields)) == set(REQUEST_FIELDS)
    assert set(get_type_hints(sweep.GridFields)) == set(REQUEST_FIELDS)
    assert set(get_type_hints(sweep.RowFields)) == set(REQUEST_FIELDS)
    assert set(get_type_hints(sweep.SampleFields)) == {*REQUEST_FIELDS} - {"seed"}
