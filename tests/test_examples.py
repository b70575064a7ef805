"""Every example in the documentation of the library runs and gives what it says."""

from __future__ import annotations

import doctest
import importlib
import inspect
import re
from pathlib import Path

import pytest

import musicgen_lab as lab

PACKAGE = Path(lab.__file__).parent


def _examples():
    """Yield the examples of all modules that have some."""
    for path in sorted(PACKAGE.rglob("*.py")):
        if ">>>" in path.read_text(encoding="utf-8"):
            parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
            module = importlib.import_module(".".join(parts).removesuffix(".__init__"))
            yield from (test for test in doctest.DocTestFinder().find(module) if test.examples)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with the run that the examples read, made by the embedded model."""
    folder = tmp_path_factory.mktemp("examples")
    lab.Sweep(
        prompt="calm acoustic guitar melody",
        duration=1,
        temperature=[0.7, 1.3],
        cfg_coef=[1, 3],
        seed=range(3),
    ).run(lab.connect("local"), folder / "runs" / "guitar", progress=False)
    return folder


@pytest.mark.parametrize("example", _examples(), ids=lambda example: example.name)
def test_an_example_gives_what_it_says(example, folder, monkeypatch):
    monkeypatch.chdir(folder)
    found = []
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
    runner.run(example, out=found.append)
    assert runner.failures == 0, "".join(found)


def _public_functions():
    """Yield the functions of the public names, and the methods of `Results` and `Sweep`."""
    for name in lab.__all__:
        thing = getattr(lab, name)
        if inspect.isfunction(thing):
            yield name, thing
        elif thing in (lab.Results, lab.Sweep):
            yield name, thing
            for method in vars(thing):
                if not method.startswith("_") and inspect.isroutine(getattr(thing, method)):
                    yield f"{name}.{method}", getattr(thing, method)


@pytest.mark.parametrize(("name", "function"), _public_functions())
def test_a_public_function_has_its_parameters_described_and_an_example(name, function):
    text = inspect.getdoc(function)
    assert ">>> " in text
    for parameter in set(inspect.signature(function).parameters) - {"self", "table"}:
        assert re.search(rf"^[*\w, ]*\b{parameter}\b[\w, ]* :|^\*\*{parameter}$", text, re.M)
