"""`list`: what the registry holds, and which entry files are broken."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import benchmark.suites  # noqa: F401 - registers the suites
from benchmark.commands.options import add_command, add_entries
from benchmark.table import format_table
from registry import DATASETS, DEFENSES, PROTOCOLS, ROOT, SUITES, TASKS, Registry, load_entries

REGISTRIES: dict[str, Registry] = {
    "datasets": DATASETS,
    "defenses": DEFENSES,
    "protocols": PROTOCOLS,
    "suites": SUITES,
    "tasks": TASKS,
}


def add_to(commands: argparse._SubParsersAction) -> None:
    """Adds the command to the parser."""
    parser = add_command(
        commands,
        "list",
        "list the data sets, defenses, protocols, suites or tasks",
        "defenses\ndatasets --json\nprotocols --entries my_protocol.py",
    )
    names = "{" + ",".join(REGISTRIES) + "}"
    parser.add_argument("what", choices=tuple(REGISTRIES), metavar=names, help="what to list")
    parser.add_argument("--json", action="store_true", help="print cards as JSON instead of a table")
    add_entries(parser)
    parser.set_defaults(execute=execute)


def execute(args: argparse.Namespace) -> int:
    """Prints a table or JSON, with the broken entry files at its end."""
    broken = load_entries(args.entries)
    registry = REGISTRIES[args.what]
    if args.json:
        cards = [{**_card(entry), "origin": _shown(registry.origin(entry.name))} for entry in registry]
        files = [{"file": _shown(item.file), "error": item.error} for item in broken]
        print(json.dumps({args.what: cards, "broken": files}, indent=2, ensure_ascii=False, default=str))
        return 0
    headings, row = TABLES[args.what]
    print(format_table(headings, [row(entry) for entry in registry]))
    if broken:
        print(f"\n{len(broken)} broken entry file(s), left out:")
        print(format_table(("file", "error"), [(_shown(item.file), item.error) for item in broken]))
    return 0


def _card(entry: Any) -> dict[str, object]:
    return entry.card() if hasattr(entry, "card") else asdict(entry)


def _shown(origin: str) -> str:
    """Returns a path relative to the checkout where it lies in it."""
    return origin.removeprefix(f"{ROOT}/")


def _dataset(spec: Any) -> tuple[object, ...]:
    size = " x ".join(str(edge) for edge in spec.input_shape)
    counts = "/".join(str(spec.splits[name]) for name in ("train", "val", "test"))
    return spec.name, spec.task, size, spec.n_classes, counts, spec.license


def _defense(entry: Any) -> tuple[object, ...]:
    paper = f"{entry.paper.authors} {entry.paper.year}" if entry.paper else ""
    return entry.name, entry.family, ", ".join(entry.tasks), entry.base or "", paper, entry.summary


def _protocol(protocol: Any) -> tuple[object, ...]:
    budgets = ", ".join(budget.label for budget in protocol.budgets)
    ranks = "yes" if protocol.ranks else "no"
    return protocol.name, ", ".join(protocol.tasks), ranks, protocol.threat_model.label, budgets, protocol.title


def _suite(suite: Any) -> tuple[object, ...]:
    patterns = (", ".join(names) for names in (suite.datasets, suite.defenses, suite.protocols))
    return suite.name, *patterns, suite.n_samples or "all", suite.title


def _task(task: Any) -> tuple[object, ...]:
    return task.name, task.quality, ", ".join(metric.name for metric in task.metrics), task.score


TABLES: dict[str, tuple[tuple[str, ...], Callable[[Any], tuple[object, ...]]]] = {
    "datasets": (("name", "task", "input", "classes", "train/val/test", "licence"), _dataset),
    "defenses": (("name", "family", "tasks", "wraps", "paper", "summary"), _defense),
    "protocols": (("name", "tasks", "ranks", "threat model", "budgets", "title"), _protocol),
    "suites": (("name", "data sets", "defenses", "protocols", "n", "title"), _suite),
    "tasks": (("name", "quality", "further metrics", "score of one sample"), _task),
}
