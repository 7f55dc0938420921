"""The corruption board gives nothing for constant answers: its order, its marks, its second rank correlation."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

from reports.corruption import corruption_boards
from reports.corruption_pages import render_corruption_markdown
from reports.site import render_site
from reports.standings import build_standings
from results.recalls import mean_of_shares
from results.statistics import mean_estimate, proportion
from tests.synthetic_records import Synthetic, make_dataset, make_defense, make_record, write_store
from tests.test_corruption_board import corruption

PAGE = "boards/breastmnist-corruptions.html"
MALIGNANT, BENIGN = 42, 114
CONSTANT = (0, BENIGN)
"""Right answers of either class where all is called benign: 73.1 % of all, 50 % balanced."""
SEEING = (36, 70)
"""67.9 % of all, 73.6 % balanced."""
POOR = (20, 60)
"""51.3 % of all, 50.1 % balanced."""


def seen(made: Synthetic, right: tuple[int, int]) -> Synthetic:
    """Returns a record with so many right answers of either class at all budgets."""
    scores = np.concatenate([np.arange(n) < k for n, k in zip((MALIGNANT, BENIGN), right, strict=True)]).astype(float)
    recalls = {"malignant": proportion(right[0], MALIGNANT), "benign": proportion(right[1], BENIGN)}
    robust = {"robust": mean_estimate(scores, True)}
    budgets = [
        replace(found, metrics=found.metrics | robust, class_recall=recalls, confusions={})
        for found in made.record.budgets
    ]
    columns = {f"score_{place}": scores for place in range(len(budgets))}
    samples = made.samples.assign(clean_label=np.repeat([0, 1], [MALIGNANT, BENIGN]), **columns)
    return replace(made, record=replace(made.record, budgets=tuple(budgets)), samples=samples)


def entrant(name: str, attacked: tuple[int, int], corrupted: tuple[int, int]):
    """Yields the records of a defense: under attack, and under one corruption."""
    defense = make_defense(name)
    yield seen(make_record(defense=defense, clean=1.0), attacked)
    yield seen(make_record(defense=defense, clean=1.0, protocol=corruption("contrast"), flags=()), corrupted)


@pytest.fixture(scope="module")
def standings(tmp_path_factory):
    rows = {"Constant": CONSTANT, "Seeing": SEEING, "Poor": POOR}
    made = [record for name, right in rows.items() for record in entrant(name, right, right)]
    return build_standings(write_store(tmp_path_factory.mktemp("records"), made))


@pytest.fixture(scope="module")
def page(standings) -> str:
    return render_site(standings)[PAGE].decode()


def cells_of(page: str, name: str) -> list[str]:
    """Returns the words of the cells of a row in the first table of a page."""
    table = page.split('class="sortable board"')[1].split("</table>")[0]
    (line,) = [line for line in table.split("<tr>") if f">{name}</a>" in line]
    return [" ".join(re.sub(r"<[^>]+>", " ", cell).split()) for cell in line.split("<td")[1:]]


def test_a_row_that_answers_the_majority_class_does_not_stand_above_one_that_sees(standings, page):
    (board,) = corruption_boards(standings)
    by_name = {row.defense.name: row for row in board.rows}
    assert by_name["Seeing"].mean < by_name["Constant"].mean
    assert [row.defense.name for row in board.rows] == ["Seeing", "Poor", "Constant"]
    assert "ordered by their balanced mean" in page


def test_the_balanced_mean_has_the_interval_of_the_other_boards(standings, page):
    row = next(row for row in corruption_boards(standings)[0].rows if row.defense.name == "Seeing")
    expected = mean_of_shares([proportion(36, MALIGNANT), proportion(70, BENIGN)])
    found = row.average.balanced
    assert (found.value, found.low, found.high) == pytest.approx((expected.value, expected.low, expected.high))
    assert f"73.6 {100 * expected.low:.1f}–{100 * expected.high:.1f}" in cells_of(page, "Seeing")[0]


def test_marks_stand_where_a_constant_answer_does_as_well(standings, page):
    balanced, mean, *_, contrast, robust = cells_of(page, "Constant")
    assert "50.0 ◇" in balanced and "▽" not in mean and "balanced 50.0 ◇" in contrast and "73.1" in robust
    balanced, mean, *_, contrast, _ = cells_of(page, "Poor")
    assert "◇" in balanced and "51.3 ▽" in mean and "51.3 ▽ balanced 50.1 ◇" in contrast
    assert not re.search("[▽◇]", " ".join(cells_of(page, "Seeing")))
    lines = render_corruption_markdown(corruption_boards(standings)[0]).splitlines()
    constant, poor = (next(line for line in lines if f"[{name}]" in line) for name in ("Constant", "Poor"))
    assert "73.1 (50.0 ◇)" in constant and "51.3 ▽ (50.1 ◇)" in poor and "] ▽ |" in poor and "] ◇ |" in constant


def test_the_line_of_the_constant_predictor_is_on_the_page_and_in_markdown(standings, page):
    assert "Always answering the majority class scores <strong>73.1 %</strong> (n = 156)" in page
    assert "Its balanced accuracy is 50.0 %; numbers with ◇ are not shown to be better." in page
    text = render_corruption_markdown(corruption_boards(standings)[0])
    assert "Constant predictor: 73.1 % (n = 156)." in text
    assert "Balanced accuracy of a constant answer: 50.0 %." in text


def test_both_rank_correlations_are_printed_and_told_apart(tmp_path):
    # under attack row k stands where k ^ 1 would: of 12 rows all are off by one place, 1 - 6 * 12 / (12 * 143) = 0.958;
    # under corruptions plain means rise with k and balanced ones fall
    rows = [((0, 8 * (k ^ 1)), (36 - 3 * k, 60 + 4 * k)) for k in range(12)]
    made = [record for k, both in enumerate(rows) for record in entrant(f"Row{k:02d}", *both)]
    standings = build_standings(write_store(tmp_path, made))
    (board,) = corruption_boards(standings)
    assert board.correlation.spearman == pytest.approx(1 - 72 / 1716)
    assert board.balanced_correlation.spearman == pytest.approx(72 / 1716 - 1) and board.balanced_correlation.n == 12
    for text in (render_site(standings)[PAGE].decode(), render_corruption_markdown(board)):
        assert "Spearman 0.96 (95 % interval 0.8" in text and "Spearman -0.96 (95 % interval -0.99 to -0.8" in text
        assert "By accuracy, rows that score higher under attack score higher under corruptions; " in text
        assert "by balanced accuracy they score lower. Where the two differ, trust the second" in text


def test_a_board_without_classes_is_ordered_by_its_mean_and_has_no_constant(tmp_path):
    dataset = make_dataset("msd_hippocampus", task="segmentation", n_test=40)
    made = []
    for name, score in (("Low", 0.4), ("High", 0.6)):
        about = {"defense": make_defense(name), "dataset": dataset}
        made += [make_record(**about), make_record(**about, protocol=corruption("blur"), robust=[score] * 5, flags=())]
    standings = build_standings(write_store(tmp_path, made))
    (board,) = corruption_boards(standings)
    assert [row.defense.name for row in board.rows] == ["High", "Low"]
    page = render_site(standings)["boards/msd_hippocampus-corruptions.html"].decode()
    assert "Rows are ordered by their mean, highest first." in page and "segmentation" in page.lower()
    for text in (page, render_corruption_markdown(board)):
        assert not re.search("[▽◇]|[Bb]alanced|onstant", text) and text.count("Too few verified rows") == 1
