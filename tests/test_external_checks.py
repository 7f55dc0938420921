"""The committed records against what others have published: clean accuracy, and one relation of each family."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from registry import DEFENSES, load_entries
from reports.external_checks import RELATIONS, Check, external_checks
from reports.standings import build_standings
from results.record import EvaluationRecord, RecordStatus
from results.store import RecordStore

load_entries()
RECORDS = Path(__file__).parent.parent / "results" / "records"
BREAST, PNEUMONIA, RETINA = "breastmnist", "pneumoniamnist", "retinamnist"
PUBLISHED = {claim.dataset: claim.value for claim in DEFENSES["Undefended"].claims}


@cache
def records() -> tuple[EvaluationRecord, ...]:
    """Returns the committed records that are done."""
    return tuple(found for found in RecordStore(RECORDS).records() if found.status is RecordStatus.DONE)


def of(defense: str, dataset: str, protocol: str) -> list[EvaluationRecord]:
    """Returns the records of one defense, one for each training seed.

    Raises:
        LookupError: There is none.
    """
    wanted = f"{dataset}/{defense}/{protocol}-s"
    found = [record for record in records() if record.key.startswith(wanted)]
    if not found:
        raise LookupError(f"expected a committed record {wanted}*, found none")
    return found


@pytest.mark.parametrize("dataset", [BREAST, PNEUMONIA, RETINA])
def test_the_undefended_model_is_as_accurate_as_the_authors_of_the_data_publish(dataset):
    for record in of("Undefended", dataset, "clean"):
        interval = record.clean["clean"]
        assert interval.low <= PUBLISHED[dataset] <= interval.high, record.key


@cache
def checks() -> dict[str, Check]:
    """Returns the relations that the committed records can tell, by statement."""
    return {check.statement: check for check in external_checks(build_standings(RecordStore(RECORDS)))}


@pytest.mark.parametrize("relation", RELATIONS, ids=[statement for statement, _ in RELATIONS])
def test_a_published_relation_holds_in_the_committed_records(relation):
    found = checks()[relation[0]]
    assert found.holds, found.numbers
    assert found.source == relation[1]
    assert len(found.numbers) >= 2 and all(0 <= value <= 1 for _, value in found.numbers)


def test_relations_are_seen_to_break_and_left_out_without_their_rows():
    standings = build_standings(RecordStore(RECORDS))
    board = next(b for b in standings.boards if (b.dataset.name, b.budget.label) == (BREAST, "Linf 8/255"))
    others = tuple(found for found in standings.boards if found is not board)
    swapped = {"Madry2018PGDAT": "Undefended", "Undefended": "Madry2018PGDAT"}

    def renamed(row):
        return replace(row, defense=replace(row.defense, name=swapped.get(row.defense.name, row.defense.name)))

    wrong = replace(standings, boards=(*others, replace(board, rows=tuple(map(renamed, board.rows)))))
    assert not external_checks(wrong)[0].holds
    assert "Purifiers fall to attacks through them" not in {
        check.statement for check in external_checks(replace(standings, boards=others))
    }
