"""Sounds to listen to: copies that keep a clip's level, and those that a notebook holds."""

from __future__ import annotations

import base64
import io
import re

import numpy as np
import pytest
import soundfile
from bs4 import BeautifulSoup
from PIL import Image

from musicgen_lab import InvalidRequest
from musicgen_lab.listening.grid import listen, listening_grid, shown_features
from musicgen_lab.listening.previews import encode_peaks, encode_preview, matching_gain_db
from musicgen_lab.request import GenerationRequest
from musicgen_lab.runs.run_table import RunTable
from tests.support.report_runs import beats, make_run


def test_a_encode_preview_has_the_clips_own_level_and_length():
    clip = beats(GenerationRequest(prompt="a", duration=2, seed=0), channels=2)
    content, suffix = encode_preview(clip)
    copy, rate = decode(content)
    assert (suffix, rate, copy.shape[0]) == (".mp3", clip.sample_rate, 2)
    assert copy.shape[1] / rate == pytest.approx(clip.duration_s, abs=0.1)
    assert level_db(copy) == pytest.approx(level_db(clip.samples), abs=0.5)
    assert len(content) < 20_000


def test_a_preview_of_a_long_clip_is_small_and_players_find_any_moment_of_it():
    clip = beats(GenerationRequest(prompt="a", duration=300, seed=0))
    content, _ = encode_preview(clip)
    assert b"Xing" in content[:200]  # the table of where each hundredth of the clip begins
    assert len(content) < 300 * 10_000


def test_a_preview_is_only_made_quieter_where_it_would_clip():
    clip = beats(GenerationRequest(prompt="a", duration=1, seed=0), gain=10)
    copy, _ = decode(encode_preview(clip)[0])
    peak_db = 20 * np.log10(np.abs(clip.samples).max())
    assert level_db(copy) == pytest.approx(level_db(clip.samples) - peak_db, abs=0.5)


def test_matched_copies_are_equally_loud_but_for_silence(tmp_path):
    table = RunTable.open(make_run(tmp_path, seed=[0, 1, 2], loud=[0], silent=[2]))
    gains_db = [matching_gain_db(table, key) for key in table.frame["key"]]
    levels_db = [
        level_db(decode(encode_preview(table.clip(key), gain_db=gain_db)[0])[0])
        for key, gain_db in zip(table.frame["key"][:2], gains_db[:2], strict=True)
    ]
    assert gains_db[1] - gains_db[0] == pytest.approx(20 * np.log10(5), abs=0.5)
    assert levels_db[0] == pytest.approx(levels_db[1], abs=0.5)
    assert gains_db[2] == 0


def test_the_marks_at_the_left_edge_are_at_the_frequencies_that_the_legend_names(tmp_path):
    at_500_hz = float(np.log2(500 / 200))  # the tone has 200 Hz at temperature 0, an octave for 1
    table = RunTable.open(make_run(tmp_path, temperature=at_500_hz, seed=0))
    shown = BeautifulSoup(listen(table).data, "html.parser")
    assert "with marks at 0.5, 2 kHz" in shown.find(class_="listening-legend").get_text()
    first, _ = re.findall(r"0 ([\d.]+)% /", shown.find(class_="listening")["style"])
    picture = np.asarray(Image.open(decode_picture(shown.img["src"])).convert("L"), int)
    brightest = np.argmax(picture.sum(axis=1)) / len(picture)
    assert float(first) == pytest.approx(100 * brightest, abs=1.5)


def decode_picture(uri):
    return io.BytesIO(base64.b64decode(uri.partition(",")[2]))


def test_in_a_notebook_the_sounds_are_inside_and_the_values_under_them(tmp_path):
    table = RunTable.open(make_run(tmp_path, seed=[0, 1]))
    shown = BeautifulSoup(listen(table, features=["rms_dbfs"]).data, "html.parser")
    assert all(player["src"].startswith("data:audio/mpeg;base64,") for player in shown("audio"))
    assert all(image["src"].startswith("data:image/png;base64,") for image in shown("img"))
    said = " ".join(shown.figcaption.get_text().split())
    assert said.startswith("seed 0 1 s RMS level −")
    assert not (tmp_path / "listening").exists()
    with pytest.raises(InvalidRequest, match="unknown feature 'rms'"):
        listen(table, features=["rms"])


def test_a_value_that_is_the_same_in_all_clips_is_not_repeated_under_them(tmp_path):
    table = RunTable.open(make_run(tmp_path, temperature=[0.7, 1]))
    constant = RunTable(table.run, table.frame.assign(silence_ratio=0.0))
    assert shown_features(constant, ["silence_ratio", "spectral_centroid_hz"]) == [
        "spectral_centroid_hz"
    ]


def test_a_waveform_has_the_peaks_of_equal_parts_of_a_clip_of_any_length():
    samples = np.zeros((2, 240_000), dtype=np.float32)
    samples[1, 120_000:] = np.linspace(0, -1, 120_000)

    peaks = np.frombuffer(base64.b64decode(encode_peaks(samples)), np.uint8) / 255

    assert len(peaks) == 240 and not peaks[:120].any()
    np.testing.assert_allclose(peaks[120:], np.arange(1, 121) / 120, atol=0.01)
    assert len(base64.b64decode(encode_peaks(samples[:, :7]))) == 7
    assert encode_peaks(samples[:, :0]) == ""


def test_players_and_their_script_are_the_same_in_a_notebook_and_in_a_page(tmp_path):
    table = RunTable.open(make_run(tmp_path))
    for shown in (listen(table), listening_grid(table)):
        page = BeautifulSoup(shown.data, "html.parser")
        player = page.find("clip-player")
        assert player["data-label"] == "the clip" and player["data-length"] == "1.0"
        assert 'customElements.define("clip-player"' in page.script.string
        assert len(page.script.string) < 80_000


@pytest.mark.parametrize("what", ["damaged", "a link to a file", "a link to a folder"])
def test_copies_from_before_are_made_anew_and_nothing_is_written_through_a_link(tmp_path, what):
    table = RunTable.open(make_run(tmp_path / "run"))
    listening, elsewhere = tmp_path / "run" / "listening", tmp_path / "elsewhere"
    elsewhere.mkdir()
    copy = f"{table.frame['key'][0]}.mp3"
    (elsewhere / copy).write_text("foreign")
    if what == "a link to a folder":
        listening.symlink_to(elsewhere)
    else:
        listening.mkdir()
        if what == "damaged":
            (listening / copy).write_text("damaged")
        else:
            (listening / copy).symlink_to(elsewhere / copy)

    listening_grid(table)

    assert not listening.is_symlink() and not (listening / copy).is_symlink()
    assert decode((listening / copy).read_bytes())[1] == 16_000
    assert (elsewhere / copy).read_text() == "foreign"


def test_what_is_too_much_to_embed_is_refused_with_a_way_out(tmp_path, monkeypatch):
    monkeypatch.setattr("musicgen_lab.listening.previews.EMBEDDED_MB_MAX", 0.01)
    table = RunTable.open(make_run(tmp_path, seed=[0, 1]))
    with pytest.raises(InvalidRequest, match=r"up to 0.01 MB .* select fewer clips first"):
        listen(table)


@pytest.mark.parametrize(("rate", "channels"), [(20_000, 1), (16_000, 4), (96_000, 2)])
def test_what_mp3_does_not_support_is_a_wav(rate, channels):
    request = GenerationRequest(prompt="a", duration=1, seed=0)
    content, suffix = encode_preview(beats(request, sample_rate=rate, channels=channels))
    assert suffix == ".wav"
    assert decode(content)[1] == rate


def decode(content):
    samples, rate = soundfile.read(io.BytesIO(content), dtype="float32", always_2d=True)
    return samples.T, rate


def level_db(samples):
    return 10 * np.log10(np.mean(samples.astype(float) ** 2))
