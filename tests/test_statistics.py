"""Statistics against scipy, closed forms and tables worked by hand."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from registry.errors import InputContractError
from results.bootstrap import resampled_means
from results.ranks import mcnemar_p_value, paired_p_value, tie_groups
from results.sign_flips import exact_p_values
from results.statistics import attack_success_rate, is_binary, mean_estimate, proportion, worst_case


@pytest.mark.parametrize(("k", "n"), [(0, 10), (1, 3), (5, 10), (155, 156), (7180, 7180), (1, 1)])
def test_proportion_is_wilsons_interval(k: int, n: int) -> None:
    estimate = proportion(k, n)
    reference = scipy.stats.binomtest(k, n).proportion_ci(method="wilson")
    assert estimate.value == k / n
    assert (estimate.low, estimate.high) == pytest.approx(reference, abs=1e-12)
    assert 0 <= estimate.low <= estimate.value <= estimate.high <= 1
    assert estimate.n == n


def test_proportion_by_hand() -> None:
    z = 1.959963984540054
    centre, half = (0.5 + z**2 / 20) / (1 + z**2 / 10), z / (1 + z**2 / 10) * np.sqrt(0.025 + z**2 / 400)
    estimate = proportion(5, 10)
    assert (estimate.low, estimate.high) == pytest.approx((centre - half, centre + half))


def test_no_samples_say_nothing() -> None:
    for estimate in (proportion(0, 0), mean_estimate([], True), mean_estimate([], False)):
        assert (estimate.value, estimate.low, estimate.high, estimate.n) == (0.0, 0.0, 1.0, 0)


def test_counts_and_scores_that_make_no_sense() -> None:
    with pytest.raises(InputContractError, match="between 0 and 3, got 4"):
        proportion(4, 3)
    with pytest.raises(InputContractError, match="binary=False"):
        mean_estimate([0.0, 0.5], True)
    with pytest.raises(InputContractError, match="1 that are not"):
        mean_estimate([0.0, np.nan], False)
    with pytest.raises(InputContractError, match="shape"):
        mean_estimate([[0.0, 1.0]], False)


def test_bootstrap_against_scipy_and_the_normal_law() -> None:
    scores = np.random.default_rng(3).beta(2, 5, size=400)
    estimate = mean_estimate(scores, binary=False)
    reference = scipy.stats.bootstrap((scores,), np.mean, n_resamples=20000, method="percentile").confidence_interval
    error = scores.std() / np.sqrt(400)
    assert estimate.value == pytest.approx(scores.mean())
    assert estimate.low == pytest.approx(reference.low, abs=0.2 * error)
    assert estimate.high == pytest.approx(reference.high, abs=0.2 * error)
    assert estimate.high - estimate.low == pytest.approx(2 * 1.96 * error, rel=0.1)
    assert mean_estimate(scores, binary=False) == estimate


def test_bootstrap_interval_covers_as_announced() -> None:
    rng = np.random.default_rng(5)
    intervals = [mean_estimate(rng.random(60), binary=False) for _ in range(200)]
    covered = sum(estimate.low <= 0.5 <= estimate.high for estimate in intervals)
    assert 180 <= covered <= 199


def test_resampled_means_keep_rows_paired_across_chunks() -> None:
    rng = np.random.default_rng(0)
    scores = rng.random(3000)
    means = resampled_means(np.stack([scores, scores + 1, np.ones(3000)]), resamples=250)
    assert means.shape == (250, 3)
    np.testing.assert_allclose(means[:, 1] - means[:, 0], 1)
    np.testing.assert_allclose(means[:, 2], 1)
    assert len(np.unique(means[:, 0])) == 250
    assert means[:, 0].std() == pytest.approx(scores.std() / np.sqrt(3000), rel=0.15)


def test_worst_case_of_four_samples() -> None:
    clean, apgd, square = [1, 1, 0, 1], [0, 1, 0, 1], [1, 1, 1, 0]
    assert worst_case([clean, apgd, square]).tolist() == [0, 1, 0, 0]
    assert worst_case([clean]).tolist() == clean
    with pytest.raises(InputContractError, match=r"\[4, 3\]"):
        worst_case([clean, [0, 0, 0]])
    with pytest.raises(InputContractError):
        worst_case([])


@given(st.integers(1, 5), st.integers(0, 8), st.integers(0, 2**32 - 1))
def test_worst_case_is_never_above_one_attack(attacks: int, n: int, seed: int) -> None:
    scores = np.random.default_rng(seed).random((attacks, n))
    worst = worst_case(list(scores))
    assert (worst <= scores).all()
    assert (worst[None] == scores).any(axis=0).all()


def test_attack_success_counts_eligible_samples_only() -> None:
    #        eligible and broken, survives, broken before, broken before, exactly at the limit
    clean = [1.0, 0.9, 0.2, 0.4, 0.5]
    adversarial = [0.1, 0.5, 0.0, 0.9, 0.499]
    estimate = attack_success_rate(clean, adversarial, fail_below=0.5)
    assert (estimate.value, estimate.n) == (pytest.approx(2 / 3), 3)
    assert attack_success_rate([0.0, 0.1], [0.0, 0.0], fail_below=0.5).n == 0


def test_is_binary() -> None:
    assert is_binary([0, 1, 1.0]) and is_binary([]) and not is_binary([0, 0.5])


def test_mcnemar_by_hand_and_against_scipy() -> None:
    a = np.array([1] * 5 + [0] * 1 + [1] * 4)
    b = np.array([0] * 5 + [1] * 1 + [1] * 4)
    assert paired_p_value(a, b) == pytest.approx((6 + 1) / 64)
    reference = scipy.stats.binomtest(5, 6, alternative="greater").pvalue
    assert paired_p_value(a, b) == pytest.approx(reference)
    assert paired_p_value(b, a) == pytest.approx(63 / 64)
    assert paired_p_value(a, a) == 1.0


def test_graded_scores_use_sign_flips() -> None:
    rng = np.random.default_rng(1)
    image = rng.random(300)
    a, b = image + rng.normal(0, 0.05, 300) + 0.005, image + rng.normal(0, 0.05, 300)
    reference = scipy.stats.ttest_rel(a, b, alternative="greater").pvalue
    assert 0.01 < reference < 0.2
    assert paired_p_value(a, b) == pytest.approx(reference, rel=0.1)
    assert paired_p_value(a, b) + paired_p_value(b, a) == pytest.approx(1, abs=0.001)
    assert paired_p_value(a, a) == 1.0
    assert paired_p_value(a + 1, a) == pytest.approx(1 / 100_000)
    assert paired_p_value(a, b) == paired_p_value(a, b)


def test_graded_scores_of_few_images_against_scipys_exact_test() -> None:
    rng = np.random.default_rng(7)
    a, b = rng.random(12), rng.random(12) - 0.15
    test = {"permutation_type": "samples", "alternative": "greater", "n_resamples": np.inf}
    reference = scipy.stats.permutation_test((a, b), lambda x, y: (x - y).sum(), **test).pvalue
    assert 0.01 < reference < 0.4
    assert paired_p_value(a, b) == pytest.approx(reference, rel=0.05)


@pytest.mark.parametrize("discordant", [1, 5, 8, 40])
@pytest.mark.parametrize("seeds", [1, 2, 3])
def test_discordant_images_all_on_one_side_have_p_of_two_to_the_minus_k(seeds: int, discordant: int) -> None:
    """A bootstrap of the differences would say (1 - k/n)^n, about e^-k: 5 times too little at k = 5."""
    a, b = np.ones((seeds, 100)), np.ones((seeds, 100))
    b[seeds - 1, :discordant] = 0
    assert paired_p_value(a, b) == pytest.approx(2.0**-discordant, rel=1e-9, abs=1e-14)
    assert paired_p_value(b, a) == pytest.approx(1.0)


def test_sign_flips_of_0_1_seeds_are_counted_in_full() -> None:
    rng = np.random.default_rng(2)
    a, b = (rng.random((3, 14)) < 0.7).astype(float), (rng.random((2, 14)) < 0.4).astype(float)
    difference = np.rint(6 * (a.mean(axis=0) - b.mean(axis=0)))
    signs = 1 - 2 * (np.arange(2**14)[:, None] >> np.arange(14) & 1)
    expected = (signs @ difference >= difference.sum()).mean()
    assert 0 < expected < 0.2
    assert paired_p_value(a, b) == pytest.approx(expected, rel=1e-9)
    assert paired_p_value(b, a) == pytest.approx((signs @ difference <= difference.sum()).mean(), rel=1e-9)


@given(st.integers(0, 60), st.integers(0, 60))
def test_sign_flips_of_one_seed_are_mcnemars_test(wins: int, losses: int) -> None:
    differences = np.array([1] * wins + [-1] * losses + [0] * 3)
    expected = mcnemar_p_value(wins, losses), mcnemar_p_value(losses, wins)
    assert exact_p_values(differences) == pytest.approx(expected, abs=1e-13)


def test_equal_rows_of_several_seeds_are_equally_good() -> None:
    """Under the null the test may not call more than its level significant."""
    rng = np.random.default_rng(8)
    p = [paired_p_value(*(rng.random((2, 3, 60)) < 0.9)) for _ in range(400)]
    assert np.mean(np.array(p) <= 0.05) <= 0.08
    assert np.mean(np.array(p) <= 0.005) <= 0.015


def test_seeds_are_averaged_per_image() -> None:
    rng = np.random.default_rng(2)
    a, b = rng.random((3, 200)) < 0.6, rng.random((2, 200)) < 0.5
    assert paired_p_value(a, b) == pytest.approx(paired_p_value(a.mean(axis=0), b.mean(axis=0)), rel=0.15)
    assert paired_p_value(a, b) != paired_p_value(a[:1], b[:1])


def _row(n_right: int, n: int = 100) -> np.ndarray:
    return (np.arange(n) < n_right).astype(float)


def test_ranks_and_ties_by_hand() -> None:
    # Nested 0/1 rows: McNemar's p of a pair is 2 ** -difference. 4 rows are 12 ordered pairs.
    rows = {"low": _row(20), "top": _row(60), "second": _row(57), "middle": _row(40)}
    standings = tie_groups(rows)
    assert standings == {"top": (1, 1), "second": (1, 1), "middle": (3, 2), "low": (4, 3)}
    assert list(standings) == list(rows)


@pytest.mark.parametrize(("difference", "rank"), [(6, 2), (5, 1)])
def test_holm_is_over_all_ordered_pairs(difference: int, rank: int) -> None:
    # Two rows, two ordered pairs: 2 * 2**-6 = 0.03 is significant, 2 * 2**-5 = 0.06 is not, although 2**-5 is.
    assert tie_groups({"a": _row(50), "b": _row(50 - difference)})["b"].rank == rank


def test_large_boards_of_graded_scores_can_still_be_ordered() -> None:
    rng = np.random.default_rng(4)
    rows = {f"d{number}": np.clip(0.03 * number + 0.1 * rng.random(50), 0, 1) for number in range(15)}
    assert tie_groups(rows)["d0"].rank == 15
    assert tie_groups(rows)["d14"] == (1, 1)


def test_equal_rows_and_small_boards() -> None:
    same = np.random.default_rng(6).random(40)
    assert set(tie_groups({"a": same, "b": same, "c": same}).values()) == {(1, 1)}
    assert tie_groups({"only": same}) == {"only": (1, 1)}
    assert tie_groups({}) == {}


def test_rows_over_other_samples_are_refused() -> None:
    with pytest.raises(InputContractError, match="'b': 9"):
        tie_groups({"a": _row(3, 10), "b": _row(3, 9)})
    with pytest.raises(InputContractError, match="row b"):
        tie_groups({"a": [0.5], "b": [np.nan]})
