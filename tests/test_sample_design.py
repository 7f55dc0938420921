"""Samples that belong together: copies of an image are no evidence, in intervals, tests, records and boards."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import benchmark.summary
from attacks.victim import ModelVictim
from benchmark.summary import Summary
from datasets.batch import Split
from datasets.tasks.classification import Classification
from registry import Member
from registry.errors import InputContractError
from reports.groups import dependence
from reports.markdown import render_board_markdown
from reports.site import render_site
from reports.standings import build_standings
from results.bootstrap import drawn_images, resampled_means
from results.consistency import table_problems
from results.ranks import paired_p_value, tie_groups
from results.recalls import balanced_mean
from results.sample_design import INDEPENDENT, SampleDesign
from results.sample_table import GROUP
from results.statistics import attack_success_rate, mean_estimate, proportion
from tests.synthetic_records import make_dataset, make_defense, make_record, write_store
from tests.test_recipes import toy_dataset
from tests.toys import attack, cnn, images, protocol_of

FGSM = Member(name="fgsm", attack="attacks.gradient:PGD", options={"steps": 1})
COPIES = 6
RNG = np.random.default_rng(4)
GRADED, OTHER = RNG.random(52), RNG.random(52)
WHOLE = (GRADED > 0.3).astype(float)
VOLUMES = SampleDesign(groups=np.repeat([f"volume {k}" for k in RNG.permutation(52)], COPIES))


def copied(scores: np.ndarray) -> np.ndarray:
    return np.repeat(scores, COPIES, axis=-1)


def test_groups_become_numbers_and_sums():
    design = SampleDesign(groups=np.array(["b", "a", "b"]))
    assert design.codes(3).tolist() == [1, 0, 1]
    assert INDEPENDENT.codes(3) is None and SampleDesign(groups=np.array([7, 5, 9])).codes(3) is None
    scores = np.array([[1.0, 2, 4], [0, 1, 0]])
    assert design.sums(scores).tolist() == [[2, 5], [1, 0]]
    heavy = SampleDesign(groups=design.groups, weights=np.array([2.0, 1, 3]))
    assert heavy.sums(scores).tolist() == [[2, 14], [1, 0]]
    assert heavy.equally().sums(scores).tolist() == [[2, 5], [1, 0]]
    assert heavy.take([1, 2]).sums(scores[:, 1:]).tolist() == [[2, 12], [1, 0]]
    with pytest.raises(InputContractError, match="each of 2 samples, got shape"):
        design.codes(2)


def test_copies_of_an_image_make_no_mean_more_certain():
    alone, together = mean_estimate(GRADED, False), mean_estimate(copied(GRADED), False, VOLUMES)
    naive = mean_estimate(copied(GRADED), False)
    assert together.value == pytest.approx(alone.value) and together.n == 6 * 52
    assert together.high - together.low == pytest.approx(alone.high - alone.low, rel=0.1)
    assert naive.high - naive.low == pytest.approx((alone.high - alone.low) / COPIES**0.5, rel=0.1)
    assert mean_estimate(GRADED, False, SampleDesign(groups=np.arange(52))) == alone


def test_one_group_says_nothing_of_others():
    assert mean_estimate(GRADED, False, SampleDesign(groups=np.zeros(52))) == mean_estimate(GRADED, False)


def test_groups_of_unequal_size_count_by_their_samples():
    scores, design = np.array([[1.0, 1, 1, 0]]), SampleDesign(groups=np.array([0, 0, 0, 1]))
    means = set(resampled_means(scores, 500, design)[:, 0].round(6))
    assert means == {0.0, 0.75, 1.0}  # twice one group, or both


def test_0_1_scores_are_worth_as_many_images_as_say_as_much():
    k, n = int(WHOLE.sum()), 52
    together, alone = mean_estimate(copied(WHOLE), True, VOLUMES), proportion(k, n)
    assert together.low <= alone.low + 0.01 and together.high >= alone.high - 0.01
    assert together.high - together.low == pytest.approx(alone.high - alone.low, rel=0.1)
    rate = attack_success_rate(np.ones(6 * n), 1 - copied(WHOLE), 0.5, VOLUMES)
    assert (rate.low, rate.high) == (together.low, together.high)


@pytest.mark.parametrize("k", [0, 1, 3, 49, 52])
def test_rare_events_of_few_groups_are_counted_by_groups(k):
    """A bootstrap ends at 0 where there are none, and Wilson's interval of all images is too narrow."""
    whole = (np.arange(52) < k).astype(float)
    together, alone = mean_estimate(copied(whole), True, VOLUMES), proportion(k, 52)
    assert together.low <= alone.low + 1e-9 and together.high >= alone.high - 1e-9


def test_independent_samples_of_one_group_lose_little():
    scores = (np.random.default_rng(8).random(6 * 52) < 0.5).astype(float)
    together, alone = mean_estimate(scores, True, VOLUMES), proportion(int(scores.sum()), 6 * 52)
    assert together.low <= alone.low and together.high >= alone.high
    assert together.high - together.low < 1.3 * (alone.high - alone.low)


def test_an_interval_of_groups_covers_as_announced():
    rng, covered = np.random.default_rng(6), 0
    for _ in range(200):
        estimate = mean_estimate(copied((rng.random(52) < 0.05).astype(float)), True, VOLUMES)
        covered += estimate.low <= 0.05 <= estimate.high
    assert covered >= 184


def test_weights_make_a_ratio():
    """A perfect score stays perfect whatever is drawn, and a mean is one of weighted samples."""
    design = SampleDesign(weights=np.where(np.arange(52) < 5, 9.0, 0.2))
    perfect = mean_estimate(np.ones(52), False, design)
    assert (perfect.value, perfect.low, perfect.high) == (1, 1, 1)
    found = mean_estimate(GRADED, False, design)
    assert found.value == pytest.approx(np.average(GRADED, weights=design.weights))
    assert found.high - found.low > 2 * (mean_estimate(GRADED, False).high - mean_estimate(GRADED, False).low)
    assert mean_estimate(WHOLE, True, design) == mean_estimate(WHOLE, False, design)


def test_balanced_means_draw_groups():
    members = np.stack([copied(OTHER) > 0.5, copied(OTHER) <= 0.5])
    widths = [
        found.high - found.low
        for found in (balanced_mean(copied(GRADED), members, design) for design in (INDEPENDENT, VOLUMES))
    ]
    assert widths[1] == pytest.approx(widths[0] * COPIES**0.5, rel=0.15)


@pytest.mark.parametrize("scores", [(GRADED, OTHER), (WHOLE, (OTHER > 0.35).astype(float))], ids=["graded", "0/1"])
def test_copies_of_an_image_are_no_evidence(scores):
    one, other = scores
    alone = paired_p_value(one, other)
    assert 0.001 < alone < 0.7
    assert paired_p_value(copied(one), copied(other), VOLUMES) == pytest.approx(alone, rel=0.05)
    assert paired_p_value(copied(one), copied(other)) < alone / 2
    singles = SampleDesign(groups=np.arange(52))
    assert paired_p_value(np.stack([one] * 2), other, singles) == pytest.approx(alone, rel=0.05)


def test_ranks_ask_groups():
    rows = {"better": np.array([1.0] * 6 + [0.0] * 30), "worse": np.array([0.0] * 36)}
    assert {name: found.rank for name, found in tie_groups(rows).items()} == {"better": 1, "worse": 2}
    one_volume = tie_groups(rows, SampleDesign(groups=np.arange(36) // 6))
    assert {name: found.rank for name, found in one_volume.items()} == {"better": 1, "worse": 1}


def test_no_rows_have_no_ranks_whatever_the_groups():
    assert tie_groups({}, VOLUMES) == {}


def test_an_older_table_without_groups_takes_them_from_the_others(tmp_path):
    """Its own estimate stays as its record states it; ranks and the notice are by group."""
    slices = make_dataset("msd_hippocampus", task="segmentation", n_test=312)
    made = [make_record(dataset=slices, defense=make_defense(name)) for name in ("New", "Old")]
    made[0] = replace(made[0], samples=made[0].samples.assign(**{GROUP: np.arange(312) // 6}))
    (board,) = [found for found in build_standings(write_store(tmp_path, made)).boards if found.ranks]
    assert "52 groups" in dependence(board)


def test_images_are_drawn_with_their_groups():
    for rows in drawn_images(5, 20, SampleDesign(groups=np.array([0, 0, 1, 1, 1]))):
        counts = np.bincount(rows, minlength=5)
        assert counts[0] == counts[1] and counts[2] == counts[3] == counts[4] and counts[0] + counts[2] == 2
    first, second = drawn_images(4, 1), drawn_images(4, 1, SampleDesign(groups=np.arange(4)))
    assert next(first).tolist() == next(second).tolist()


def test_a_split_hands_its_groups_to_sample_table_and_intervals(monkeypatch):
    monkeypatch.setattr(benchmark.summary, "CORPUS_RESAMPLES", 2)
    shown, model = images(12, shape=(1, 8, 8)), cnn(2)
    names = np.repeat(["p9", "p2", "p5"], 4)
    split = Split(images=shown.numpy(), targets={"label": np.arange(12) % 2}, groups=names)
    batch = split.take(np.arange(11))
    assert batch.groups.tolist() == [2] * 4 + [0] * 4 + [1] * 3
    outcome = attack(model, batch, protocol_of(FGSM, eps=(0.1,)))
    summary = Summary(ModelVictim(model, Classification(2), slots=8), batch, toy_dataset().spec, outcome)
    assert summary.table()[GROUP].tolist() == batch.groups.tolist()
    scores = summary.samples["clean_score"]
    together = mean_estimate(scores, True, SampleDesign(groups=names[:11]))
    assert summary.clean["clean"] == together != mean_estimate(scores, True)


def test_a_record_whose_interval_forgot_its_groups_is_found():
    made = make_record(clean=0.8, robust=(0.6, 0.5, 0.4, 0.2, 0.1))
    steps = {f"step_{index}": made.samples[f"member_{index}"].eq("") * -1 for index in range(5)}
    table = made.samples.assign(**steps)
    assert not [problem for problem in table_problems(made.record, table) if "robust score" in problem]
    table[GROUP] = np.arange(len(table)) // 6
    assert any("robust score at budget 0: the record says" in problem for problem in table_problems(made.record, table))


def test_boards_of_slices_draw_volumes_and_say_so(tmp_path):
    def sliced(made):
        return replace(made, samples=made.samples.assign(**{GROUP: np.arange(len(made.samples)) // 6}))

    slices = make_dataset("msd_hippocampus", task="segmentation", n_test=312)
    made = [make_record(dataset=slices, defense=make_defense(name)) for name in ("Good", "Bad")]
    standings = build_standings(write_store(tmp_path, [*map(sliced, made), make_record()]))
    pages = render_site(standings)
    said = {name: b"draws whole groups" in page for name, page in pages.items() if name.endswith("-4-255.html")}
    assert said == {"boards/breastmnist-linf-4-255.html": False, "boards/msd_hippocampus-linf-4-255.html": True}
    board = next(board for board in standings.boards if board.dataset.name == "msd_hippocampus")
    assert "312 test samples come from 52 groups" in dependence(board)
    assert "52 groups" in render_board_markdown(board)
