"""The corruption board: means over severities, the rank correlation with the ranked board, the same bytes twice."""

from __future__ import annotations

from dataclasses import replace

import pytest

from registry import Budget, Norm, ThreatKind
from reports.corrupted_scores import CorruptedScore
from reports.corruption import corruption_boards
from reports.corruption_pages import correlation_text, meaning_text, render_corruption_markdown, robust_text
from reports.rank_correlation import Correlation, spearman_interval
from reports.site import build_site
from reports.standings import build_standings
from results.statistics import proportion
from tests.synthetic_records import make_defense, make_protocol, make_record, write_store

SEVERITIES = [Budget(norm=Norm.SEVERITY, eps=severity) for severity in (1, 2, 3, 4, 5)]
KINDS = ("blur", "gaussian")
DEFENSES = {  # name: robust at 4/255, score at severity 1
    "Undefended": (0.05, 0.80),
    "Madry2018PGDAT": (0.50, 0.60),
    "JPEG": (0.20, 0.70),
    "Another": (0.30, 0.75),
}


def corruption(kind: str) -> dict:
    card = make_protocol(f"corruption:{kind}", budgets=SEVERITIES, kind=ThreatKind.CORRUPTION)
    return card | {"cascades": False}


def records(names=tuple(DEFENSES), kinds=KINDS):
    for name in names:
        robust, first = DEFENSES[name]
        defense = make_defense(name)
        yield make_record(defense=defense, robust=(0.8, 0.6, robust, 0.0, 0.0))
        for kind in kinds:
            steps = [first - 0.1 * k for k in range(5)]
            yield make_record(defense=defense, protocol=corruption(kind), robust=steps, flags=())


@pytest.fixture(scope="module")
def board(tmp_path_factory):
    store = write_store(tmp_path_factory.mktemp("records"), records())
    (found,) = corruption_boards(build_standings(store))
    return found


def test_rows_are_ordered_by_their_mean_over_corruptions_and_severities(board):
    assert [row.defense.name for row in board.rows] == ["Undefended", "Another", "JPEG", "Madry2018PGDAT"]
    first = board.rows[0]
    assert first.mean == pytest.approx(0.6, abs=0.01)  # 0.8, 0.7, 0.6, 0.5, 0.4
    assert first.average_of("blur").plain.value == pytest.approx(first.mean)
    assert board.names == KINDS and board.severities[0] == "severity 1" and len(board.severities) == 5


def test_the_rank_correlation_is_the_one_worked_by_hand(board):
    # robust ranks: Undefended 1, JPEG 2, Another 3, Madry 4; corruption ranks: 4, 2, 3, 1; squared distances 9, 0, 0, 9
    assert board.correlation.n == 4
    assert board.correlation.spearman == pytest.approx(1 - 6 * 18 / (4 * 15))
    # of 6 pairs only (JPEG, Another) agrees: (1 - 5) / 6
    assert board.correlation.kendall == pytest.approx(-4 / 6)
    assert "(n = 4 rows). Fewer than 10 rows are too few for an interval" in correlation_text(board.correlation)


def test_a_correlation_of_enough_rows_has_an_interval_and_no_caution():
    # z = atanh(0.6) = 0.6931, standard error sqrt(1.18 / 9) = 0.3621, times 1.96: 0.7097
    low, high = spearman_interval(0.6, 12)
    assert (low, high) == (pytest.approx(-0.0166, abs=5e-4), pytest.approx(0.8861, abs=5e-4))
    assert spearman_interval(0.6, 9) is None and spearman_interval(1.0, 12) is None
    text = correlation_text(Correlation(spearman=0.6, interval=(low, high), kendall=0.5, n=12))
    assert "Spearman 0.60 (95 % interval -0.02 to 0.89), Kendall 0.50 (n = 12 rows)." in text and "little" not in text


def test_what_both_correlations_mean_is_said_of_enough_rows_only():
    def found(rho: float, n: int = 20) -> Correlation:
        return Correlation(spearman=rho, interval=spearman_interval(rho, n), kendall=rho, n=n)

    assert [found(rho).direction for rho in (0.6, 0.2, -0.6, 1.0, -1.0)] == [1, 0, -1, 1, -1]
    assert found(0.9, n=9).direction is None
    assert meaning_text(found(0.6), found(0.6, n=9), "accuracy") == meaning_text(None, found(0.6), "accuracy") == ""
    alike = meaning_text(found(0.6), found(0.7), "accuracy")
    assert "accuracy as by balanced accuracy" in alike and "differ" not in alike
    apart = meaning_text(found(0.6), found(-0.1), "accuracy")
    assert "they are not shown to score higher or lower. Where the two differ, trust the second" in apart


def test_recalls_of_classes_that_share_patients_are_not_taken_as_independent():
    recalls = {"malignant": proportion(30, 42), "benign": proportion(100, 114)}
    alone = CorruptedScore(plain=proportion(130, 156), recalls=recalls, constant=114 / 156)
    together = replace(alone, grouped=True)
    assert together.balanced.value == alone.balanced.value and together.balanced.n == 156
    assert together.balanced.low < alone.balanced.low and alone.balanced.high < together.balanced.high
    assert together.balanced.low == pytest.approx((recalls["malignant"].low + recalls["benign"].low) / 2)


def test_the_ranked_score_is_that_of_the_seeds_that_were_corrupted(tmp_path):
    made = list(records(("Undefended",)))  # corruptions of seed 0
    others = [make_record(robust=(0.8, 0.6, robust, 0.0, 0.0), seed=seed) for seed, robust in ((1, 0.3), (2, 0.4))]
    (board,) = corruption_boards(build_standings(write_store(tmp_path, [*made, *others])))
    (row,) = board.rows
    assert row.ranked.seeds == (0, 1, 2) and row.seeds == (0,)
    assert row.robust == pytest.approx(made[0].record.budgets[2].metrics["robust"].value)
    assert row.ranked.standing.value > 0.2 and robust_text(row) == "5.1"  # 8 of 156
    assert "| 0 | 156 |" in render_corruption_markdown(board)


def test_a_row_is_of_the_seeds_that_every_corruption_was_evaluated_on(tmp_path):
    made = list(records(("Undefended",)))
    ranked = make_record(robust=(0.8, 0.6, 0.4, 0.0, 0.0), seed=1)
    blur = make_record(protocol=corruption("blur"), robust=[0.5] * 5, flags=(), seed=1)
    (board,) = corruption_boards(build_standings(write_store(tmp_path / "more", [*made, ranked, blur])))
    assert board.rows[0].seeds == (0,) and board.rows[0].mean == pytest.approx(0.6, abs=0.01)
    apart = [made[0], made[1], ranked, make_record(protocol=corruption("gaussian"), robust=[0.5] * 5, flags=(), seed=1)]
    (board,) = corruption_boards(build_standings(write_store(tmp_path / "apart", apart)))
    assert board.rows[0].seeds == (0, 1) and board.rows[0].mean is None


def test_a_row_without_every_corruption_has_no_mean_and_no_say(tmp_path):
    made = [*records(("Undefended", "JPEG", "Another")), *records(("Madry2018PGDAT",), kinds=("blur",))]
    (board,) = corruption_boards(build_standings(write_store(tmp_path, made)))
    last = board.rows[-1]
    assert last.defense.name == "Madry2018PGDAT" and last.mean is None and last.average_of("gaussian") is None
    assert board.correlation.n == 3


def test_records_of_other_weights_than_the_ranked_row_are_left_out(tmp_path):
    made = list(records(("Undefended", "JPEG")))
    other = make_record(defense=make_defense("Undefended"), protocol=corruption("noise"), flags=(), weights="other")
    (board,) = corruption_boards(build_standings(write_store(tmp_path, [*made, other])))
    assert board.names == KINDS and all(row.mean is not None for row in board.rows)
    assert correlation_text(board.correlation).startswith("Too few")


def test_pages_link_both_boards_and_are_the_same_bytes_twice(tmp_path):
    made = list(records())
    one = build_site(write_store(tmp_path / "one", made), tmp_path / "a")
    build_site(write_store(tmp_path / "two", reversed(made)), tmp_path / "b")
    names = [path.relative_to(tmp_path / "a") for path in one]
    assert all((tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes() for name in names)
    page = (tmp_path / "a/boards/breastmnist-corruptions.html").read_text()
    assert "Spearman -0.80, Kendall -0.67 (n = 4 rows)" in page and "no worst case" in page
    assert "breastmnist-corruptions.html" in (tmp_path / "a/boards/breastmnist-linf-4-255.html").read_text()
    assert "Spearman -0.80" in (tmp_path / "a/boards/breastmnist-corruptions.md").read_text()
