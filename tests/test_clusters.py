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
from results.clusters import codes_of, group_sums
from results.consistency import table_problems
from results.recalls import balanced_mean
from results.sample_table import GROUP
from results.statistics import attack_success_rate, mean_estimate, paired_p_value, proportion, tie_groups
from tests.synthetic_records import make_dataset, make_defense, make_record, write_store
from tests.test_recipes import toy_dataset
from tests.toys import attack, cnn, images, protocol_of

FGSM = Member(name="fgsm", attack="attacks.gradient:PGD", options={"steps": 1})
COPIES = 6
RNG = np.random.default_rng(4)
GRADED, OTHER = RNG.random(52), RNG.random(52)
WHOLE = (GRADED > 0.3).astype(float)
SLICES = np.repeat([f"volume {k}" for k in RNG.permutation(52)], COPIES)


def copied(scores: np.ndarray) -> np.ndarray:
    return np.repeat(scores, COPIES, axis=-1)


def test_groups_become_numbers_and_sums():
    assert codes_of(["b", "a", "b"], 3).tolist() == [1, 0, 1]
    assert codes_of(None, 3) is None and codes_of([7, 5, 9], 3) is None
    assert group_sums(np.array([[1.0, 2, 4], [0, 1, 0]]), np.array([1, 0, 1])).tolist() == [[2, 5], [1, 0]]
    with pytest.raises(InputContractError, match="each of 3 samples, got shape"):
        codes_of([1, 2], 3)


def test_copies_of_an_image_make_no_mean_more_certain():
    alone, together = mean_estimate(GRADED, False), mean_estimate(copied(GRADED), False, SLICES)
    naive = mean_estimate(copied(GRADED), False)
    assert together.value == pytest.approx(alone.value) and together.n == 6 * 52
    assert together.high - together.low == pytest.approx(alone.high - alone.low, rel=0.1)
    assert naive.high - naive.low == pytest.approx((alone.high - alone.low) / COPIES**0.5, rel=0.1)
    assert mean_estimate(GRADED, False, np.arange(52)) == alone


def test_groups_of_unequal_size_count_by_their_samples():
    scores, groups = np.array([[1.0, 1, 1, 0]]), [0, 0, 0, 1]
    means = set(resampled_means(scores, 500, groups)[:, 0].round(6))
    assert means == {0.0, 0.75, 1.0}  # twice one group, or both


def test_0_1_scores_have_the_wider_interval():
    k, n = int(copied(WHOLE).sum()), 6 * 52
    together = mean_estimate(copied(WHOLE), True, SLICES)
    assert together.high - together.low > 2 * (proportion(k, n).high - proportion(k, n).low)
    nobody = mean_estimate(np.zeros(n), True, SLICES)
    assert nobody == proportion(0, n)  # where a bootstrap would end at 0
    rate = attack_success_rate(np.ones(n), 1 - copied(WHOLE), 0.5, SLICES)
    assert (rate.low, rate.high) == (together.low, together.high)


def test_balanced_means_draw_groups():
    members = np.stack([copied(OTHER) > 0.5, copied(OTHER) <= 0.5])
    widths = [
        found.high - found.low
        for found in (balanced_mean(copied(GRADED), members, groups) for groups in (None, SLICES))
    ]
    assert widths[1] == pytest.approx(widths[0] * COPIES**0.5, rel=0.15)


@pytest.mark.parametrize("scores", [(GRADED, OTHER), (WHOLE, (OTHER > 0.35).astype(float))], ids=["graded", "0/1"])
def test_copies_of_an_image_are_no_evidence(scores):
    one, other = scores
    alone = paired_p_value(one, other)
    assert 0.001 < alone < 0.7
    assert paired_p_value(copied(one), copied(other), SLICES) == pytest.approx(alone, rel=0.05)
    assert paired_p_value(copied(one), copied(other)) < alone / 2
    assert paired_p_value(np.stack([one] * 2), other, np.arange(52)) == pytest.approx(alone, rel=0.05)


def test_ranks_ask_groups():
    rows = {"better": np.array([1.0] * 6 + [0.0] * 30), "worse": np.array([0.0] * 36)}
    assert {name: found.rank for name, found in tie_groups(rows).items()} == {"better": 1, "worse": 2}
    one_volume = tie_groups(rows, np.arange(36) // 6)
    assert {name: found.rank for name, found in one_volume.items()} == {"better": 1, "worse": 1}


def test_images_are_drawn_with_their_groups():
    groups = np.array([0, 0, 1, 1, 1])
    for rows in drawn_images(5, 20, groups):
        counts = np.bincount(rows, minlength=5)
        assert counts[0] == counts[1] and counts[2] == counts[3] == counts[4] and counts[0] + counts[2] == 2
    first, second = drawn_images(4, 1), drawn_images(4, 1, range(4))
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
    assert summary.clean["clean"] == mean_estimate(scores, True, names[:11]) != mean_estimate(scores, True)


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
