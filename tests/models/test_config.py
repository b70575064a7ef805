"""A folder whose configuration cannot be read is refused in one sentence."""

import re

import pytest

from musicgen_lab.errors import ModelUnavailable
from musicgen_lab.models.config import load_config


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nowhere", "is not a model folder: it has no config.json; make one with"),
        ("a" * 300, "config.json cannot be read (File name too long); prepare the model again"),
    ],
)
def test_a_folder_without_a_configuration_and_a_path_that_none_can_have_are_refused(
    tmp_path, name, message
):
    with pytest.raises(ModelUnavailable, match=re.escape(message)):
        load_config(tmp_path / name)
