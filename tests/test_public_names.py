"""The package's public names are those that it documents, and each can be had."""

from __future__ import annotations

import inspect

import pytest

import musicgen_lab as lab


@pytest.mark.parametrize("name", lab.__all__)
def test_every_public_name_exists_and_has_a_docstring(name):
    thing = getattr(lab, name)
    assert inspect.getdoc(thing)
    assert name in dir(lab)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'Sweeep'"):
        _ = lab.Sweeep


@pytest.mark.parametrize("address", ["cloud", 5, None])
def test_an_unknown_backend_is_refused(address):
    with pytest.raises(lab.BackendUnavailable, match="use local, local:MODEL, modal"):
        lab.connect(address)


def test_every_error_has_one_root():
    for name in lab.__all__:
        thing = getattr(lab, name)
        if (
            isinstance(thing, type)
            and issubclass(thing, Exception)
            and thing is not lab.MusicGenLabWarning
        ):
            assert issubclass(thing, lab.MusicGenLabError)
