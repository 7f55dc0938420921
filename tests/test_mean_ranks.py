"""Ranks over several data sets."""

from __future__ import annotations

from reports.mean_ranks import mean_ranks
from reports.site import render_site
from reports.standings import build_standings
from tests.synthetic_records import make_dataset, make_defense, make_record, write_store

GOOD, MIDDLE, BAD, GUEST = (make_defense(name) for name in ("Good", "Middle", "Bad", "Guest"))
SETS = [make_dataset(name, n_test=624) for name in ("pneumoniamnist", "retinamnist")]


def at(dataset, defense, share: float):
    return make_record(dataset=dataset, defense=defense, clean=0.9, robust=(0.9, 0.9, share, 0.0, 0.0))


def fronts_of(folder, *made):
    return [board for board in build_standings(write_store(folder, made)).boards if board.ranks]


def test_an_entrant_of_one_data_set_changes_no_mean_rank(tmp_path):
    made = [at(dataset, defense, share) for dataset in SETS for defense, share in ((GOOD, 0.8), (BAD, 0.3))]
    alone = mean_ranks(fronts_of(tmp_path / "alone", *made))
    boards = fronts_of(tmp_path / "guest", *made, at(SETS[0], GUEST, 0.6))
    assert [row.rank for row in boards[0].ranked] == [1, 2, 3]
    assert mean_ranks(boards) == alone == {"Good": 1, "Bad": 2}


def test_ties_are_found_among_those_that_are_compared(tmp_path):
    """Two of three cannot be told apart on one data set: ranks 1, 1, 3 there and 1, 2, 3 on the other."""
    shares = ((GOOD, (0.7, 0.8)), (MIDDLE, (0.69, 0.6)), (BAD, (0.2, 0.3)))
    made = [at(SETS[k], defense, share[k]) for k in (0, 1) for defense, share in shares]
    assert mean_ranks(fronts_of(tmp_path, *made)) == {"Good": 1, "Middle": 1.5, "Bad": 3}


def test_one_data_set_of_enough_samples_has_no_mean_rank(tmp_path):
    small = make_dataset(n_test=156)
    assert mean_ranks(fronts_of(tmp_path, at(SETS[0], GOOD, 0.8), at(small, GOOD, 0.8))) == {}


def test_the_index_prints_the_rank_among_those_that_are_ranked_everywhere(tmp_path):
    made = [at(dataset, defense, share) for dataset in SETS for defense, share in ((GOOD, 0.8), (BAD, 0.3))]
    standings = build_standings(write_store(tmp_path, [*made, at(SETS[0], GUEST, 0.6)]))
    matrix = (
        render_site(standings)["index.html"].decode().split("All defenses across data sets")[1].split("</table>")[0]
    )
    lines = {
        name: line for line in matrix.split("<tr>") for name in ("Good", "Bad", "Guest") if f"/{name}.html" in line
    }
    means = {name: line.split('<td class="num" data-value="')[1].split('"')[0] for name, line in lines.items()}
    assert means == {"Good": "1.0", "Bad": "2.0", "Guest": ""}
