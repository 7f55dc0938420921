"""Boards say who is missing, with a command that produces the row."""

from __future__ import annotations

import shlex
from dataclasses import replace

import pytest

from benchmark.cli import parser
from registry import Family, KnownBy, Truth
from reports.absent import unmeasured
from reports.site import render_site
from reports.standings import build_standings
from tests.synthetic_records import make_defense, make_protocol, make_record, write_store

CLEAN = make_protocol("clean")


@pytest.fixture
def standings(tmp_path):
    oracle = make_defense("Oracle", ranks=False)
    known = Truth(known_by=KnownBy.ATTACK, statement="Nothing.")
    control = make_defense("ControlX", family=Family.CONTROL_HONEST, truth=known)
    made = [make_record(defense=make_defense("Undefended"))]
    made += [make_record(defense=make_defense("Madry2018PGDAT"), seed=seed) for seed in range(3)]
    for defense in (make_defense("Undefended"), make_defense("Late"), oracle, control):
        made.append(make_record(defense=defense, protocol=CLEAN))
    return build_standings(write_store(tmp_path, made))


def test_who_has_no_row_is_named_with_the_command_that_gives_one(standings):
    board = standings.boards[0]
    found = unmeasured(board, standings.others)
    assert [item.defense.name for item in found.absent] == ["Late"], "neither oracles nor controls"
    assert found.few_seeds == ("Undefended",)
    for command, seeds, names in ((found.produce, (0,), ["Late"]), (found.repeat, (0, 1, 2), ["Undefended"])):
        words = shlex.split(command)
        assert words[:3] == ["python", "-m", "benchmark"]
        asked = parser().parse_args(words[3:])
        assert asked.defense == names and tuple(asked.seeds) == seeds
        assert (asked.dataset, asked.protocol) == ([board.dataset.name], ["standard"])
    page = render_site(standings)[f"boards/breastmnist-linf-{board.budget.label.split()[1].replace('/', '-')}.html"]
    assert found.produce in page.decode() and found.repeat in page.decode()


def test_a_full_board_lacks_nothing(standings):
    board = standings.boards[0]
    full = replace(board, rows=tuple(row for row in board.rows if row.defense.name == "Madry2018PGDAT"))
    found = unmeasured(full, [cell for cell in standings.others if cell.defense.name != "Late"])
    assert [item.defense.name for item in found.absent] == ["Undefended"], "a clean score alone is no row"
    assert (found.few_seeds, found.repeat) == ((), "")
    assert unmeasured(board, ()).produce == ""


def test_commands_keep_to_the_samples_of_their_board(standings):
    board = standings.boards[0]
    assert "--n " not in unmeasured(board, standings.others).produce
    fewer = unmeasured(replace(board, n=78), standings.others)
    assert " --n 78 " in fewer.produce and " --n 78 " in fewer.repeat
