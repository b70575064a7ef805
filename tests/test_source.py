"""A source is checked whole when it is opened, and is what its content says, not its name."""

from __future__ import annotations

import io
import zipfile

import numpy as np
import pytest

from musicgen_lab.errors import InvalidRequest
from musicgen_lab.source import Source, SourceCodes
from tests.support.sounds import RATE, noise, sine
from tests.support.sources import hum, sound_file


@pytest.mark.parametrize(
    ("format", "suffix"), [("WAV", "wav"), ("FLAC", "flac"), ("MP3", "mp3"), ("OGG", "ogg")]
)
def test_a_sound_file_is_a_source_with_its_length_rate_and_channels(format, suffix):
    content = sound_file(noise(duration_s=1.5, channels=2), format=format)
    source = Source.of_bytes(content, "noise")
    assert (source.suffix, source.sample_rate, source.channels) == (suffix, RATE, 2)
    assert source.duration_s == pytest.approx(1.5, abs=0.1)
    samples, rate = source.sound()
    assert rate == RATE and samples.shape[0] == 2 and samples.dtype == np.float32


def test_a_source_is_its_content_whatever_it_is_called():
    assert hum(name="a.wav") == hum(name="b.wav") == Source(hum().digest)
    assert hum() != hum(frequency_hz=221)
    assert len({hum(name="a.wav"), hum(name="b.wav")}) == 1


def cut_wav():
    return sound_file(sine(220))[:70_000]


def lying_wav(size):
    content = bytearray(sound_file(sine(220)))
    at = content.find(b"data") + 4
    content[at : at + 4] = size.to_bytes(4, "little")
    return bytes(content)


def not_finite():
    return sound_file(np.full((1, RATE), np.nan, np.float32), subtype="FLOAT")


def lying_flac():
    content = bytearray(sound_file(sine(220), format="FLAC"))
    content[22:26] = (5 * RATE).to_bytes(4, "big")  # the number of samples in its first block
    return bytes(content)


UNUSABLE = {
    "nothing": (lambda: b"", "holds no sound that can be read; a source is a WAV, FLAC, MP3 or"),
    "text": (lambda: b"hello world" * 100, "holds no sound that can be read"),
    "encrypted": (lambda: noise().astype(np.float16).tobytes(), "holds no sound that can be read"),
    "header alone": (lambda: sound_file(sine(220))[:44], "lasts 0 s; at least 0.1 s are needed"),
    "too short": (lambda: sound_file(sine(220, duration_s=0.05)), "lasts 0.05 s; at least 0.1 s"),
    "5.1": (lambda: sound_file(noise(channels=6)), "has 6 channels; mix it down to 1 or 2 first"),
    "4 kHz": (lambda: sound_file(noise(), rate=4000), "a sample rate of 4,000 Hz; it must be"),
    "silence": (lambda: sound_file(np.zeros((1, RATE))), "is silent, so that there is nothing to"),
    "AIFF": (lambda: sound_file(noise(), format="AIFF"), "is an AIFF file; a source is a WAV"),
    "NaN": (not_finite, "has samples that are not finite"),
    "cut WAV": (cut_wav, "is cut short: it declares 128,000 bytes of sound and has"),
    "lying WAV": (lambda: lying_wav(2**31), "is cut short: it declares 2,147,483,648 bytes"),
    "lying FLAC": (lying_flac, "holds no sound that can be read"),
    "cut FLAC": (lambda: sound_file(noise(), format="FLAC")[:9000], "holds no sound that can be"),
    "an archive": (lambda: b"PK\x03\x04 and more", "cannot be begun with: it holds no codes"),
}


@pytest.mark.parametrize("kind", UNUSABLE)
def test_what_cannot_be_begun_with_is_refused_in_one_line_with_the_reason(kind):
    make, message = UNUSABLE[kind]
    with pytest.raises(InvalidRequest) as error:
        Source.of_bytes(make(), "song.wav")
    assert str(error.value).startswith("song.wav ") and message in str(error.value)
    assert "\n" not in str(error.value) and error.value.field == "begin_with"


def test_three_hours_are_refused_by_their_header_before_they_are_decoded(monkeypatch):
    content = sound_file(np.zeros((1, 3 * 3600 * 8000), np.int16), rate=8000, format="FLAC")
    monkeypatch.setattr("soundfile.SoundFile.read", None)
    with pytest.raises(InvalidRequest, match=r"lasts 10,800 s, more than 600 s; cut out the part"):
        Source.of_bytes(content, "opera.flac")


def test_a_sound_of_more_samples_than_memory_should_hold_is_refused_by_its_header(monkeypatch):
    content = sound_file(np.zeros((1, 400 * 192_000), np.int16), rate=192_000, format="FLAC")
    monkeypatch.setattr("soundfile.SoundFile.read", None)
    with pytest.raises(InvalidRequest, match=r"has 76,800,000 samples, more than 60,000,000"):
        Source.of_bytes(content, "opera.flac")


def test_a_wav_file_that_was_piped_and_does_not_know_its_length_is_read_to_its_end():
    assert Source.of_bytes(lying_wav(2**32 - 1)).duration_s == 2.0


def test_a_silent_part_is_refused_and_a_part_that_sounds_is_not():
    silence = np.zeros((1, 2 * RATE), np.float32)
    source = Source.of_bytes(sound_file(np.hstack([silence, sine(220)])), "late.wav")
    with pytest.raises(InvalidRequest, match=r"late.wav is silent from 0 to 1.5 s"):
        source.check_part(0, 1.5)
    source.check_part(0, None)
    source.check_part(2, 1)


def test_the_codes_of_a_clip_are_a_source_and_come_back_as_they_were():
    codes = np.arange(400, dtype=np.uint16).reshape(4, 100)
    source = Source.of_bytes(SourceCodes(codes, "codec-1", 50.0).to_bytes(), "run#3fa2")
    assert source.is_codes and source.duration_s == 2.0 and source.sample_rate is None
    again = source.codes()
    np.testing.assert_array_equal(again.codes, codes)
    assert (again.codec, again.frame_rate) == ("codec-1", 50.0)
    assert SourceCodes(codes, "codec-1", 50.0).to_bytes() == source.content


@pytest.mark.parametrize(
    "arrays",
    [
        {},
        {"codes": np.zeros((4, 10), np.float32), "codec": "c", "frame_rate": 50.0},
        {"codes": np.zeros(10, np.uint16), "codec": "c", "frame_rate": 50.0},
        {"codes": np.zeros((65, 10), np.uint16), "codec": "c", "frame_rate": 50.0},
        {"codes": np.zeros((4, 0), np.uint16), "codec": "c", "frame_rate": 50.0},
        {"codes": np.zeros((4, 10), np.uint16), "codec": "", "frame_rate": 50.0},
        {"codes": np.zeros((4, 10), np.uint16), "codec": "c", "frame_rate": np.nan},
        {"codes": np.zeros((4, 10), np.uint16), "codec": "c", "frame_rate": 1e-320},
        {"codes": np.array([[{}]]), "codec": "c", "frame_rate": 50.0},
        {"codes": np.zeros((4, 1_000_000), np.uint16), "codec": "c", "frame_rate": 50.0},
    ],
)
def test_other_arrays_are_not_the_codes_of_a_clip(arrays):
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)
    with pytest.raises(ValueError):
        SourceCodes.from_bytes(file.getvalue())


def test_the_content_of_a_digest_alone_is_not_known():
    with pytest.raises(InvalidRequest, match=r"the content of begin_with 0{12}… is not known"):
        Source("0" * 64).sound()


def archive(content, suffix=".npy"):
    """Return a zip archive with the same content for every array."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as writer:
        for name in ("codes", "codec", "frame_rate"):
            writer.writestr(name + suffix, content)
    return file.getvalue()


def damaged_archive():
    content = bytearray(archive(bytes(9_000)))
    at = content.find(b".npy") + 4
    content[at : at + 8] = b"\xff" * 8  # of the compressed data
    return bytes(content)


@pytest.mark.parametrize(
    "content",
    [
        archive(b"text", suffix=""),
        archive(b"\x93NUMPY\x01\x00\x10\x00{'descr': (((((("),
        damaged_archive(),
    ],
    ids=["no arrays", "a damaged header", "damaged data"],
)
def test_a_crafted_or_damaged_archive_is_not_the_codes_of_a_clip(content):
    with pytest.raises(ValueError, match="it holds no codes of a clip"):
        SourceCodes.from_bytes(content)


def test_a_part_of_codes_ends_where_they_end():
    source = Source.of_bytes(SourceCodes(np.ones((4, 99), np.uint16), "c", 50.0).to_bytes(), "a#1")
    source.check_part(0, 1.98)
    with pytest.raises(InvalidRequest, match=r"begin_s must be at most 1\.98 seconds"):
        source.check_part(0, 2)
