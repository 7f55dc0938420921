"""Whose words pages show: the entry's where it is of the record's revision, the record's own elsewhere."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import pytest

from registry import DEFENSES, ROOT, Claim, load_entries
from reports.cards import read_cell
from reports.site import build_site
from tests.synthetic_records import make_defense, make_record, write_store

STALE = Claim(value=0.5, metric="robust_accuracy", dataset="breastmnist", protocol="PGD", source="Table 9")


@pytest.fixture
def entry():
    load_entries()
    return DEFENSES["Madry2018PGDAT"]


def stale_record(entry, revision: int):
    """A record of the entry's defense that was made when its words were others."""
    old = replace(entry, summary="An old summary.", departures="Old departures.", claims=(STALE,), paper=None)
    made = make_record(defense=replace(old, differentiable=False, truth=None))
    return replace(made, record=replace(made.record, revisions=made.record.revisions | {"defense": revision}))


def test_the_words_of_an_entry_of_the_same_revision_replace_those_of_the_record(entry):
    facts = read_cell(stale_record(entry, entry.revision).record).defense
    assert (facts.summary, facts.departures) == (entry.summary, entry.departures)
    assert facts.paper.title == entry.paper.title and STALE.value not in [claim.value for claim in facts.claims]
    assert facts.truth.statement == entry.truth.statement
    assert facts.differentiable is False  # a fact of what was evaluated, no word


@pytest.mark.parametrize("difference", [-1, 1])
def test_a_record_of_another_revision_keeps_its_own_words(entry, difference):
    facts = read_cell(stale_record(entry, entry.revision + difference).record).defense
    assert (facts.summary, facts.departures) == ("An old summary.", "Old departures.")
    assert facts.paper is None and facts.truth is None and [claim.value for claim in facts.claims] == [0.5]


def test_a_record_of_a_defense_that_nobody_registered_keeps_its_own_words():
    facts = read_cell(make_record(defense=make_defense("Somebody2027", departures="Mine.")).record).defense
    assert (facts.name, facts.departures) == ("Somebody2027", "Mine.")


def test_a_page_shows_the_present_departures_and_is_the_same_bytes_twice(entry, tmp_path):
    made = stale_record(entry, entry.revision)
    for name in ("a", "b"):
        build_site(write_store(tmp_path / f"records-{name}", [made]), tmp_path / name)
    page = (tmp_path / "a/defenses/Madry2018PGDAT.html").read_bytes()
    assert page == (tmp_path / "b/defenses/Madry2018PGDAT.html").read_bytes()
    assert b"Old departures." not in page and b"An old summary." not in page


def test_reading_the_words_of_entries_needs_no_torch():
    code = (
        "import sys; from tests.synthetic_records import make_record; from reports.cards import read_cell; "
        "read_cell(make_record().record); from registry import DEFENSES; "
        "assert len(DEFENSES) and 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
