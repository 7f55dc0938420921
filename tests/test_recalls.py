"""Intervals of balanced accuracy: combined from shares, or a bootstrap over images of graded scores."""

from __future__ import annotations

import numpy as np
import pytest

from registry.errors import InputContractError
from results.bootstrap import RESAMPLES, SEED
from results.recalls import balanced_mean, mean_of_shares
from results.statistics import proportion


def test_the_mean_of_one_share_is_that_share():
    share = proportion(7, 20)
    found = mean_of_shares([share])
    assert (found.value, found.low, found.high, found.n) == pytest.approx((share.value, share.low, share.high, share.n))


def test_intervals_of_shares_are_combined_by_the_root_of_their_squared_lengths():
    a, b = proportion(8, 10), proportion(3, 30)
    found = mean_of_shares([a, b])
    below = np.hypot(a.value - a.low, b.value - b.low) / 2
    above = np.hypot(a.high - a.value, b.high - b.value) / 2
    assert (found.value, found.n) == (pytest.approx(0.45), 40)
    assert (found.low, found.high) == pytest.approx((0.45 - below, 0.45 + above))


def test_the_interval_does_not_collapse_where_every_class_is_lost_or_kept():
    lost, kept = (mean_of_shares([proportion(k, 50) if k else proportion(0, 50)] * 2) for k in (0, 50))
    assert (lost.low, kept.high) == (0, pytest.approx(1))
    assert lost.high == pytest.approx(proportion(0, 50).high / np.sqrt(2))
    assert kept.low == pytest.approx(1 - lost.high)


def test_combined_intervals_cover_the_truth_as_often_as_they_say():
    """Few samples and a recall near 0, where a bootstrap covers about 60 %."""
    rng, truth = np.random.default_rng(0), (0.03, 0.8)
    drawn = zip(rng.binomial(40, truth[0], 2000), rng.binomial(40, truth[1], 2000), strict=True)
    found = [mean_of_shares([proportion(int(a), 40), proportion(int(b), 40)]) for a, b in drawn]
    covered = np.mean([estimate.low <= np.mean(truth) <= estimate.high for estimate in found])
    assert 0.93 <= covered <= 0.98


def test_graded_scores_are_resampled_over_images_and_averaged_over_classes():
    rng = np.random.default_rng(3)
    scores, label = rng.random(30), np.arange(30) % 3 // 2  # two thirds of one class
    found = balanced_mean(scores, np.stack([label == 0, label == 1]))
    assert (found.value, found.n) == (pytest.approx((scores[label == 0].mean() + scores[label == 1].mean()) / 2), 30)
    drawn = np.random.default_rng(SEED).integers(30, size=(RESAMPLES, 30))
    means = [np.mean([scores[rows][label[rows] == k].mean() for k in (0, 1)]) for rows in drawn]
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(means, [0.025, 0.975])))


def test_a_class_that_a_resample_misses_does_not_count_in_it():
    found = balanced_mean(
        np.array([1.0, 0.5, 0.5, 0.5]), np.array([[True, False, False, False], [False, True, True, True]])
    )
    assert (found.value, found.low, found.high) == (0.75, 0.5, 0.75)


def test_classes_without_samples_are_refused():
    with pytest.raises(InputContractError, match="each class"):
        balanced_mean(np.ones(2), np.array([[True, True], [False, False]]))
    with pytest.raises(InputContractError, match="none"):
        mean_of_shares([])
