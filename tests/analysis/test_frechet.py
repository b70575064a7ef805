"""The Fréchet distance is known for Gaussians, and refused where it would be an artefact."""

from __future__ import annotations

import numpy as np
import pytest

from musicgen_lab.analysis.frechet import frechet_distance


def cloud(mean, scale, *, clips=20_000, seed=0):
    return mean + scale * np.random.default_rng(seed).normal(size=(clips, 2))


def test_clouds_that_are_moved_are_apart_by_the_square_of_it():
    assert frechet_distance(cloud(0, 1), cloud(np.array([3, 4]), 1)) == pytest.approx(25, rel=1e-6)


def test_clouds_of_different_width_are_apart_by_the_squared_difference_in_every_dimension():
    assert frechet_distance(cloud(0, 1), cloud(0, 3)) == pytest.approx(2 * 2**2, rel=0.02)


def test_a_cloud_is_nowhere_from_itself_and_smaller_samples_seem_farther():
    assert frechet_distance(cloud(0, 1), cloud(0, 1)) == pytest.approx(0, abs=1e-6)
    few = frechet_distance(cloud(0, 1, clips=200), cloud(0, 1, clips=200, seed=1))
    many = frechet_distance(cloud(0, 1), cloud(0, 1, seed=1))
    assert few > 5 * many > 0


def test_small_sets_are_refused_with_the_way_out():
    with pytest.raises(ValueError, match=r"at least 200 clips in each set, got 25: compare the"):
        frechet_distance(cloud(0, 1), cloud(0, 1, clips=25))
    wide = np.random.default_rng(0).normal(size=(900, 512))
    with pytest.raises(ValueError, match="512 dimensions needs at least 1024 clips"):
        frechet_distance(wide, wide)
    with pytest.raises(ValueError, match="embeddings must be finite"):
        frechet_distance(cloud(0, 1), cloud(np.nan, 1))
    with pytest.raises(ValueError, match="must be"):
        frechet_distance(cloud(0, 1), wide)
