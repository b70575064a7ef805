"""The frame is tidy, derived, and rebuilt whenever it is gone or out of date."""

from __future__ import annotations

import json
import os
import random
from shutil import rmtree

import numpy as np
import pandas as pd
import pytest

from musicgen_lab import InvalidRequest, ModelUnavailable, Results, Sweep
from musicgen_lab.analysis import features
from musicgen_lab.analysis.aesthetics import SCORES
from musicgen_lab.analysis.perceptual import Clap
from musicgen_lab.fields import REQUEST_FIELDS
from musicgen_lab.runs import measuring
from tests.support.reference import needs_aesthetics
from tests.support.sines import SineBackend
from tests.support.tiny_aesthetics import make_aesthetics, small_encoder
from tests.support.tiny_clap import make_clap


@pytest.fixture
def run(tmp_path):
    sweep = Sweep(prompt=["a", "fail"], duration=1, temperature=[0.7, 1.0], seed=range(3))
    sweep.run(SineBackend(), tmp_path, progress=False)
    return tmp_path


def test_there_is_one_row_per_clip_with_parameters_provenance_and_features(run):
    frame = Results.open(run).frame
    assert len(frame) == 12
    assert {*REQUEST_FIELDS, "status", "error", "path", "frames", "elapsed_s"} <= set(frame.columns)
    made = frame[frame["status"] == "ok"]
    assert set(made["engine"]) == {"sines 1"}
    assert (made["frames"] == 8000).all()
    assert all((run / path).is_file() for path in made["path"])
    assert made["rms_dbfs"].notna().all()
    failed = frame[frame["status"] == "failed"]
    assert failed[["path", "rms_dbfs"]].isna().all(axis=None)


def test_rows_are_in_the_order_of_the_sweep(run):
    frame = Results.open(run).frame
    assert list(frame["prompt"]) == ["a"] * 6 + ["fail"] * 6
    assert list(frame["seed"]) == [0, 1, 2] * 4


def test_pandas_reads_the_saved_frame_and_it_is_the_same(run):
    results = Results.open(run)
    pd.testing.assert_frame_equal(pd.read_parquet(results.results_path), results.frame)


def _replace_by_pipe(path):
    path.unlink()
    os.mkfifo(path)


def _replace_by_link(path):
    path.unlink()
    path.symlink_to("/dev/zero")


@pytest.mark.parametrize(
    "harm",
    [
        lambda path: path.unlink(),
        lambda path: path.write_bytes(b"PAR1"),
        _replace_by_pipe,
        _replace_by_link,
    ],
    ids=["gone", "damaged", "a pipe", "a link to an endless file"],
)
def test_the_saved_frame_is_rebuilt_when_it_is_gone_or_cannot_be_read(run, harm):
    before = Results.open(run).frame
    harm(run / "results.parquet")
    pd.testing.assert_frame_equal(Results.open(run).frame, before)
    assert pd.read_parquet(run / "results.parquet").equals(before)


@pytest.fixture
def measured(monkeypatch):
    """The sounds that are measured from here on."""
    paths = []
    measure_files = measuring.measure_files

    def count(what, new, **options):
        paths.extend(new)
        return measure_files(what, new, **options)

    monkeypatch.setattr(measuring, "measure_files", count)
    return paths


def test_features_are_measured_once_and_again_when_they_change(run, measured, monkeypatch):
    results = Results.open(run)
    assert measured == []  # nothing has been asked of them yet
    assert len(results.select(temperature=0.7).frame) == len(results.frame) / 2
    assert len(measured) == 6
    assert Results.open(run).frame.equals(results.frame)
    assert len(measured) == 6
    monkeypatch.setattr(features, "FEATURES_VERSION", features.FEATURES_VERSION + 1)
    assert Results.open(run).frame.equals(results.frame)
    assert len(measured) == 12


def test_features_that_someone_changed_in_the_saved_frame_are_measured_again(run, measured):
    before = Results.open(run).frame
    measured.clear()
    saved = pd.read_parquet(run / "results.parquet")
    saved.loc[0, "rms_dbfs"] += 1e-9
    saved.to_parquet(run / "results.parquet", index=False)
    pd.testing.assert_frame_equal(Results.open(run).frame, before)
    assert len(measured) == 6


def test_bits_flipped_in_the_saved_frame_change_nothing(run):
    chance = random.Random(2)
    before = Results.open(run).frame
    content = (run / "results.parquet").read_bytes()
    for _ in range(12):
        damaged = bytearray(content)
        damaged[chance.randrange(len(damaged))] ^= 1 << chance.randrange(8)
        (run / "results.parquet").write_bytes(damaged)
        pd.testing.assert_frame_equal(Results.open(run).frame, before)
        assert (run / "results.parquet").read_bytes() == content


def test_select_narrows_by_any_column(run):
    results = Results.open(run)
    assert len(results.select(temperature=0.7, prompt="a").frame) == 3
    assert len(results.select(seed=[0, 2]).frame) == 8
    assert len(results.select(temperature=np.float32(0.7)).frame) == 6
    assert results.select(temperature=0.7).swept == ("prompt", "seed")
    with pytest.raises(InvalidRequest, match=r"no clip has temperature 0.9 .* there is 0.7, 1.0"):
        results.select(temperature=0.9)
    with pytest.raises(InvalidRequest, match="unknown column 'heat'"):
        results.select(heat=1)


def test_summary_gives_the_spread_over_seeds_of_every_cell(run):
    summary = Results.open(run).summary("spectral_centroid_hz")
    assert list(summary.columns) == ["prompt", "temperature", "mean", "sd", "n", "low", "high"]
    assert list(summary["n"]) == [3, 3, 0, 0]
    assert summary["mean"][0] == pytest.approx(200 + 400 * 0.7 + 1, rel=0.02)
    assert summary["mean"][1] == pytest.approx(200 + 400 * 1.0 + 1, rel=0.02)
    assert summary["sd"][0] > 0
    assert summary["low"][0] < summary["mean"][0] < summary["high"][0]
    assert summary[["mean", "sd", "low"]].iloc[2:].isna().all(axis=None)
    assert list(Results.open(run).summary("is_silent")["mean"][:2]) == [0, 0]
    with pytest.raises(InvalidRequest, match="unknown feature 'loudness'"):
        Results.open(run).summary("loudness")
    with pytest.raises(InvalidRequest, match="key_estimate is a name and has no mean"):
        Results.open(run).summary("key_estimate")
    with pytest.raises(InvalidRequest, match="confidence must be a number above 0 and below 1"):
        Results.open(run).summary("rms_dbfs", confidence=95)


def test_effects_say_which_parameter_moves_which_feature(tmp_path):
    sweep = Sweep(prompt="a", duration=1, temperature=[0.7, 1, 1.3], cfg_coef=[1, 3], seed=range(3))
    results = sweep.run(SineBackend(), tmp_path, progress=False)
    features = ["spectral_centroid_hz", "rms_dbfs"]
    effects = results.effects(features).set_index(["parameter", "feature"])
    # The frequency follows the temperature and the seed. The level follows cfg_coef alone: what no
    # seed varies cannot be judged against chance.
    assert effects["significant"].to_list() == [True, False, False, False]
    assert effects["change"]["temperature", "spectral_centroid_hz"] == pytest.approx(240, rel=0.02)
    assert not results.interactions(features)["significant"].any()
    with pytest.raises(InvalidRequest, match="unknown feature 'loudness'"):
        results.effects(["loudness"])
    with pytest.raises(InvalidRequest, match="alpha must be a number above 0 and below 1, got 5"):
        results.effects(features, alpha=5)


def test_cells_are_as_diverse_as_their_seeds_and_apart_by_what_is_swept(run):
    results = Results.open(run)
    apart = results.distances("log_spectral_db")
    assert list(apart.index) == list(apart.columns) == list(results.frame["key"])
    diversity = results.diversity()
    assert list(diversity["n"]) == [3, 3, 0, 0]
    assert diversity["log_spectral_db"][0] == pytest.approx(apart.to_numpy()[:3, :3].sum() / 6)
    assert (
        diversity[["log_spectral_db", "mel_cepstral_db", "chroma"]].iloc[2:].isna().all(axis=None)
    )
    between = results.cell_distances()
    # The sines' pitch follows the temperature; the seed moves it by a Hz or two.
    assert between.loc[("a", 0.7), ("a", 1.0)] > 3 * between.loc[("a", 0.7), ("a", 0.7)]
    with pytest.raises(InvalidRequest, match="unknown distance 'far'; the distances are log_spec"):
        results.distances("far")


def test_signatures_are_measured_once_and_again_when_their_file_is_damaged(run):
    before = Results.open(run).distances()
    (run / "signatures.npz").write_bytes(b"PK")
    pd.testing.assert_frame_equal(Results.open(run).distances(), before)
    results = Results.open(run)
    (run / "clips").rename(run / "away")  # what is measured needs no sound any more
    pd.testing.assert_frame_equal(results.distances(), before)


def test_the_map_has_every_clip_and_says_what_its_axes_are(run):
    placed = Results.open(run).map_coordinates()
    assert list(placed.columns) == ["key", "prompt", "temperature", "seed", "x", "y"]
    assert placed["x"].notna().to_list() == [True] * 6 + [False] * 6
    assert 0 < placed.attrs["explained"][1] <= placed.attrs["explained"][0] <= 1
    assert "spectral_centroid_hz" in placed.attrs["loadings"]
    low, high = (placed.query(f"temperature == {t}")["x"].dropna() for t in (0.7, 1.0))
    left, right = sorted((low, high), key=lambda x: x.mean())  # the sign of an axis is arbitrary
    assert left.max() < right.min()
    with pytest.raises(InvalidRequest, match="there is no map of this run: a map needs at least 3"):
        Results.open(run).select(prompt="fail").map_coordinates()


def test_text_similarity_is_computed_once(run, tmp_path_factory):
    source = make_clap(tmp_path_factory.mktemp("clap"))
    found = Results.open(run).text_similarity(source)
    assert list(found.columns) == ["key", "prompt", "temperature", "seed", "text_similarity"]
    assert found["text_similarity"][:6].between(-1, 1).all()
    assert found["text_similarity"][6:].isna().all()
    stored = json.loads((run / "text_similarity.json").read_text())
    for false in ("much", [1], None, 3.0, {}):  # what cannot be is measured again
        (run / "text_similarity.json").write_text(json.dumps(dict.fromkeys(stored, false)))
        pd.testing.assert_frame_equal(Results.open(run).text_similarity(source), found)
    rmtree(source)  # what is known needs no model any more
    pd.testing.assert_frame_equal(Results.open(run).text_similarity(source), found)
    with pytest.raises(ModelUnavailable, match="all other features work without it"):
        Results.open(run).text_similarity(source + "/another")


def test_what_a_model_said_of_clips_before_ctrl_c_is_kept(run, tmp_path_factory, monkeypatch):
    source = make_clap(tmp_path_factory.mktemp("clap"))
    similarity, asked = Clap.similarity, []

    def interrupted(clap, *arguments):
        asked.append(arguments)
        if len(asked) == 5:
            raise KeyboardInterrupt
        return similarity(clap, *arguments)

    monkeypatch.setattr(Clap, "similarity", interrupted)
    with pytest.raises(KeyboardInterrupt):
        Results.open(run).text_similarity(source)
    assert Results.open(run).text_similarity(source)["text_similarity"].notna().sum() == 6
    assert len(asked) == 5 + 2


@needs_aesthetics
@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
def test_clips_are_rated_once_by_each_model(run, tmp_path_factory):
    with small_encoder():
        source = make_aesthetics(tmp_path_factory.mktemp("aesthetics"))
        found = Results.open(run).aesthetics(source)
        stored = json.loads((run / "aesthetics.json").read_text())
        for damaged in ("{", json.dumps({key: {"content_enjoyment": 9.0} for key in stored})):
            (run / "aesthetics.json").write_text(damaged)  # and is measured again
            pd.testing.assert_frame_equal(Results.open(run).aesthetics(source), found)
    scores = [*SCORES]
    assert list(found.columns) == ["key", "prompt", "temperature", "seed", *scores]
    assert found[scores][:6].notna().all(axis=None)
    assert found["content_enjoyment"][:6].nunique() == 6
    assert found[scores][6:].isna().all(axis=None)
    rmtree(source)  # what is known needs no model any more
    pd.testing.assert_frame_equal(Results.open(run).aesthetics(source), found)
    with pytest.raises(ModelUnavailable, match="all other features work without it"):
        Results.open(run).aesthetics(source + "/another")


def test_clips_are_found_by_key(run):
    results = Results.open(run)
    row = results.frame.iloc[0]
    assert results.clip(row["key"]).request.temperature == row["temperature"]
    assert results.clip(row["key"][:12]).request.key() == row["key"]
    with pytest.raises(InvalidRequest, match="12 clips have keys that begin with ''"):
        results.clip("")
    with pytest.raises(KeyError):
        results.clip(results.frame.query("status == 'failed'")["key"].iloc[0])
