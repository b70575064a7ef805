"""The identity of a codec is read from its codebooks, which may be damaged."""

from __future__ import annotations

import shutil

import pytest
from safetensors.numpy import load_file, save_file

from musicgen_lab.errors import ModelUnavailable
from musicgen_lab.models.codec_identity import read_codec_identity
from musicgen_lab.models.config import load_config
from musicgen_lab.models.locate import EMBEDDED_FOLDER


def test_codebooks_of_different_sizes_are_a_damaged_codec(tmp_path):
    folder = shutil.copytree(EMBEDDED_FOLDER, tmp_path / "model")
    path = folder / "codec" / "model.safetensors"
    tensors = load_file(path)
    name = "quantizer.layers.0.codebook.embed"
    save_file({**tensors, name: tensors[name][:-1]}, path)

    with pytest.raises(ModelUnavailable, match=r"model\.safetensors cannot be read"):
        read_codec_identity(folder, load_config(folder))
