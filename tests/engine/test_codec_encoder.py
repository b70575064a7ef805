"""The encoder's codes are audiocraft's, for the same samples."""

import pytest
import torch

from musicgen_lab.demo.evaluate import EMBEDDED_FOLDER
from musicgen_lab.engine.codec import Codec, CodecFiles
from musicgen_lab.engine.codec_encoder import CodecEncoder
from musicgen_lab.engine.model import Model
from musicgen_lab.models.config import CODEC_FOLDER, load_config
from musicgen_lab.reference.models import open_models
from tests.support.reference import needs_audiocraft
from tests.support.sounds import noise

CPU = torch.device("cpu")


def open_encoder(folder):
    config = load_config(folder)
    return CodecEncoder(
        CodecFiles(folder / CODEC_FOLDER),
        channels=config.channels,
        codebooks=config.codebooks,
        device=CPU,
    )


@needs_audiocraft
@pytest.mark.parametrize("frames", [1, 7, 60])
def test_codes_are_audiocrafts(case, frames):
    channels = case.engine.config.channels
    samples = noise(level=0.2, duration_s=frames / 50, channels=channels)
    wave = torch.from_numpy(samples)

    codes = open_encoder(case.folder).encode(wave)

    with torch.inference_mode():
        theirs, scale = case.reference._codec.encode(wave[None])
    assert scale is None
    assert codes.shape == (case.engine.config.codebooks, frames)
    assert torch.equal(codes, theirs[0])


@needs_audiocraft
def test_codes_of_the_embedded_model_are_audiocrafts():
    wave = torch.from_numpy(noise(level=0.2, duration_s=1.0))

    codes = open_encoder(EMBEDDED_FOLDER).encode(wave)

    _, codec = open_models(EMBEDDED_FOLDER, CPU)
    with torch.inference_mode():
        theirs = codec.encode(wave[None])[0][0]
    assert torch.equal(codes, theirs)


def test_sound_that_was_decoded_is_encoded_to_sound_much_like_it():
    """The embedded model is trained: its codec describes its own sound well."""
    model = Model(EMBEDDED_FOLDER)
    config = model.config
    codec = Codec(
        model.codec,
        channels=config.channels,
        codebooks=config.codebooks,
        card=config.card,
        device=CPU,
    )
    tone = torch.sin(torch.arange(32_000) / 20)[None] * 0.3
    (sound,) = codec.decode([open_encoder(EMBEDDED_FOLDER).encode(tone)])

    (again,) = codec.decode([open_encoder(EMBEDDED_FOLDER).encode(sound)])

    assert (again - sound).norm() < 0.5 * sound.norm()
