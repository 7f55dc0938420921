"""How fast the plan and the lists are; run with --benchmark-only."""

from __future__ import annotations

import subprocess
import sys

import pytest

from benchmark.obstacles import Machine
from benchmark.plan import plan
from benchmark.selection import Registries, Selection
from registry import ROOT, AttackProtocol, DatasetSpec, DefenseEntry, Need, Registry, TaskSpec
from tests.test_plan import dataset, defense, protocol, task

MACHINE = Machine(datasets=frozenset(), large_inputs=True)


@pytest.fixture
def ten_thousand() -> tuple[Selection, Registries]:
    """10 data sets, 50 defenses, 4 protocols, 5 seeds: 10,000 cells."""
    registries = Registries(
        tasks=Registry("task", TaskSpec),
        datasets=Registry("dataset", DatasetSpec),
        defenses=Registry("defense", DefenseEntry),
        protocols=Registry("protocol", AttackProtocol),
    )
    registries.tasks.add(task("classification"))
    for number in range(10):
        registries.datasets.add(dataset(f"toy{number}"))
    registries.defenses.add(defense("Undefended"))
    for number in range(49):
        registries.defenses.add(defense(f"D{number}", base="Undefended" if number % 2 else None))
    for number in range(4):
        registries.protocols.add(protocol(f"p{number}", needs=frozenset({Need.TWIN})))
    selection = Selection(
        title="large",
        datasets=tuple(registries.datasets),
        defenses=tuple(registries.defenses),
        protocols=tuple(registries.protocols),
        seeds=tuple(range(5)),
    )
    return selection, registries


def test_plan_of_10000_cells_takes_under_2_seconds(benchmark, ten_thousand):
    selection, registries = ten_thousand
    result = benchmark.pedantic(plan, args=(selection, MACHINE, registries), rounds=3)
    assert len(result.evaluations) == 10_000
    assert benchmark.stats.stats.max < 2.0


@pytest.mark.parametrize("arguments", [("list", "defenses"), ("--help",), ("run", "--help")], ids=" ".join)
def test_list_and_help_take_under_1_second(benchmark, arguments):
    command = [sys.executable, "-m", "benchmark", *arguments]
    ended = benchmark.pedantic(
        subprocess.run, args=(command,), kwargs={"cwd": ROOT, "capture_output": True, "check": True}, rounds=3
    )
    assert ended.stdout
    assert benchmark.stats.stats.median < 1.0
