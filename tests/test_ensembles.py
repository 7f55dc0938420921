"""Rows say which members their records were made without; what is not certain from a record is not said."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from defenses.build import build_untrained
from defenses.stages import declared_stages, hidden_stages
from registry import DATASETS, DEFENSES, PROTOCOLS, ROOT, CellFacts, linf, load_entries
from reports.ensembles import OLDER
from reports.explanation import explain
from reports.leaderboard import Row, Standings
from reports.site import build_site
from reports.standings import build_standings
from tests.synthetic_records import Synthetic, make_dataset, make_defense, make_record, write_store
from tests.toys import cnn

load_entries()
RANKED = linf(8 / 255)
WITHOUT = frozenset({"apgd-bpda"})
JPEG = {"stages": ("transform",), "hidden_stages": ("transform",)}


def made(name: str, without: frozenset[str] = frozenset(), *, seed: int = 0, facts=None, **changes) -> Synthetic:
    """Returns a record of a registered defense with the members of today's ensemble, but for some."""
    entry, protocol = DEFENSES[name], PROTOCOLS["standard"]
    facts = {"task": "classification", "n_classes": 2, "randomness": entry.randomness} | (facts or {})
    known = CellFacts(**facts, ranked_budget=RANKED)
    revisions = {"dataset": 1, "task": 1, "defense": entry.revision, "protocol": protocol.revision, "engine": 1}
    record = make_record(
        dataset=make_dataset(ranked_budget=RANKED),
        defense=entry,
        protocol=protocol.card(),
        robust=(0.7, 0.6, 0.5, 0.3, 0.1, 0.0),
        seed=seed,
        revisions=revisions | changes,
    )
    budgets = []
    for own, result in zip(protocol.budgets, record.record.budgets, strict=True):
        ran = [member for member in protocol.ensemble(known, own) if member.name not in without]
        members = tuple(replace(result.members[0], name=member.name, card=member.card()) for member in ran)
        budgets.append(replace(result, members=members, planned=tuple(member.name for member in ran)))
    return replace(record, record=replace(record.record, budgets=tuple(budgets)))


def standings_of(folder: Path, *records: Synthetic) -> Standings:
    return build_standings(write_store(folder, records))


def row_of(standings: Standings, label: str = RANKED.label) -> Row:
    (board,) = (board for board in standings.boards if board.budget.label == label)
    return board.rows[0]


def remarks(row: Row) -> list[str]:
    return [text for text in row.reasons if OLDER in text]


def test_an_older_record_says_what_it_was_made_without_and_keeps_its_status(tmp_path):
    whole = row_of(standings_of(tmp_path / "a", made("JPEG", facts=JPEG)))
    row = row_of(standings_of(tmp_path / "b", made("JPEG", WITHOUT, facts=JPEG)))
    assert remarks(whole) == [] and (row.status, row.rank) == (whole.status, whole.rank) == ("verified", 1)
    (text,) = remarks(row)
    assert text.startswith("made by an older ensemble: without apgd-bpda, which would run today")
    assert text.endswith("move its record out of the results folder and run it again")


def test_board_page_and_explain_tell_it(tmp_path):
    store = write_store(tmp_path / "records", [made("JPEG", WITHOUT, facts=JPEG)])
    build_site(store, tmp_path / "site")
    for name in ("boards/breastmnist-linf-8-255.html", "defenses/JPEG.html"):
        assert "made by an older ensemble: without apgd-bpda" in (tmp_path / "site" / name).read_text(), name
    badge = (tmp_path / "site" / "boards/breastmnist-linf-8-255.html").read_text().split('<td class="status">')[1]
    assert "verified" in badge.split("‡")[0] and "‡" in badge.split("</td>")[0]
    assert "| verified ‡ |" in (tmp_path / "site" / "leaderboard.md").read_text()
    text = " ".join(explain(build_standings(store), "JPEG", "breastmnist").split())
    assert "Why - made by an older ensemble: without apgd-bpda" in text
    assert "Linf 1/255, Linf 2/255, Linf 4/255, Linf 16/255, Linf 32/255: made by an older ensemble" in text
    assert "out of the results folder and run it again: python -m benchmark run --suite full" in text


def test_full_effort_is_that_of_the_ranked_budget_whatever_a_card_rounds(tmp_path):
    old = made("GaussianInputNoise", frozenset({"mim-pooled16", "mim-pooled4", "apgd-ce-eot16"}))
    standings = standings_of(tmp_path, old)
    assert "without mim-pooled16, apgd-ce-eot16, which" in remarks(row_of(standings))[0]
    assert "without mim-pooled4, which" in remarks(row_of(standings, "Linf 16/255"))[0]


def test_of_several_seeds_the_older_ones_are_named(tmp_path):
    records = [made("JPEG", WITHOUT if seed < 2 else frozenset(), seed=seed, facts=JPEG) for seed in range(3)]
    (text,) = remarks(row_of(standings_of(tmp_path, *records)))
    assert text.startswith("seeds 0, 1: made by an older ensemble") and "move their records out" in text


@pytest.mark.parametrize(
    ("old", "why"),
    [
        (made("Liao2018HGD", facts={"stages": ("purifier",)}), "its stages have the true gradient"),
        (made("Undefended", frozenset({"transfer"}), facts={"has_twin": True}), "no member shows that it has a twin"),
        (made("JPEG", WITHOUT, facts=JPEG, defense=99), "the entry has another revision"),
        (made("JPEG", WITHOUT, facts=JPEG, protocol=99), "the protocol has another revision"),
        (make_record(defense=make_defense("NobodyKnows")), "the defense is not registered"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_nothing_is_said_that_is_not_certain(old, why, tmp_path):
    standings = standings_of(tmp_path, old)
    assert not [text for board in standings.boards for row in board.rows for text in remarks(row)], why


@pytest.mark.parametrize("entry", [entry for entry in DEFENSES if not entry.differentiable], ids=lambda e: e.name)
def test_stages_of_an_entry_without_a_true_gradient_hide_it(entry):
    """What a record's own card stands for where an older ensemble ran no member that shows it."""
    model = build_untrained(entry, DATASETS["phantom2"], base=cnn(2))
    assert bool(hidden_stages(model)) == bool(declared_stages(model))


def test_ensembles_are_known_without_torch():
    script = (
        "import sys\n"
        "sys.modules['torch'] = None\n"
        "from registry import PROTOCOLS, CellFacts, load_entries\n"
        "load_entries()\n"
        "facts = CellFacts(task='classification', n_classes=2, stages=('a',), hidden_stages=('a',), has_bare=True)\n"
        "assert all(p.ensemble(facts, b) for p in PROTOCOLS if p.ranks for b in p.budgets)\n"
    )
    ended = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
