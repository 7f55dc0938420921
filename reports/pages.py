"""The index, the boards and the methodology page."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from jinja2 import Environment

from registry import DEFENSES, RESTORATION, TASKS, Norm
from registry.metric import MetricSpec, TaskSpec
from reports.absent import unmeasured
from reports.addresses import INDEX, METHODOLOGY, board_page, corruption_page, defense_page, unusual_rules
from reports.cards import DefenseFacts
from reports.exam import TOLERANCE
from reports.external_checks import external_checks
from reports.groups import dependence
from reports.html import metric_spec
from reports.leaderboard import AGGREGATE_MINIMUM, Leaderboard, Row, Standings
from reports.mean_ranks import mean_ranks
from results.measurements import Measurement

AUDIT_SAMPLES = 256
"""Largest number of samples that soundness probes look at, as in `attacks.soundness.audit`."""
BELOW_ROOT = "../"
"""From a page in a folder to the root of the site."""


def render_index(env: Environment, standings: Standings, defenses: Iterable[DefenseFacts]) -> str:
    """Returns the first page: the best rows of every data set, all defenses, and what could not be read."""
    return env.get_template(INDEX).render(
        page="index",
        root="",
        site=standings,
        tasks=[_task_summary(name, boards) for name, boards in _ranked_boards(standings.boards).items()],
        n_datasets=len({board.dataset.name for board in standings.boards}),
        defenses=[
            {"facts": facts, "href": defense_page(facts.name)}
            for facts in defenses
            if not facts.family.startswith("control-")
        ],
    )


def render_methodology(env: Environment, standings: Standings, measurements: Sequence[Measurement] = ()) -> str:
    """Returns the page that says what a number means, and what the engine was measured at."""
    return env.get_template(METHODOLOGY).render(
        page="methodology",
        root="",
        site=standings,
        minimum=AGGREGATE_MINIMUM,
        audit=AUDIT_SAMPLES,
        tolerance=round(100 * TOLERANCE),
        address=defense_page,
        measurements=measurements,
        checks=external_checks(standings),
        entries=DEFENSES,
    )


def render_board(
    env: Environment,
    standings: Standings,
    board: Leaderboard,
    siblings: Iterable[Leaderboard],
    corrupted: frozenset[str] = frozenset(),
) -> str:
    """Returns the page of one board.

    Args:
        env: The environment.
        standings: All boards and other cells, for the footer and for who is missing.
        board: The board.
        siblings: All boards of its data set, itself among them; they become the links between budgets.
        corrupted: Data sets that have a corruption board.
    """
    restoration = {spec.name for spec in RESTORATION}
    names = sorted({name for row in board.rows for name in row.metrics} - restoration)
    specs = [metric_spec(board.dataset.task, name) for name in names]
    known = [spec.name for spec in task_spec(board.dataset.task).metrics]
    classes = _first_order(row.class_recall for row in board.rows)
    return env.get_template("board.html").render(
        page="board",
        root=BELOW_ROOT,
        site=standings,
        board=board,
        task=task_spec(board.dataset.task),
        tabs=[*(_tab(sibling, board) for sibling in siblings), *_corruption_tab(board.dataset.name, corrupted)],
        ranked=[_linked(row) for row in board.ranked],
        unranked=[_linked(row) for row in board.unranked],
        restored=[_linked(row) for row in (*board.ranked, *board.unranked) if row.restored_clean],
        restoration=restored_specs(),
        certified=[_linked(row) for row in (*board.ranked, *board.unranked) if row.certified],
        remarks=[_linked(row) for row in (*board.unranked, *board.ranked) if row.reasons],
        classes=classes,
        chance=_chance(board),
        unprobed="" if board.ranks else unprobed(board),
        confusions=_first_order(row.confusions for row in board.rows),
        at_least=any(found.at_least for row in board.rows for found in row.confusions.values()),
        dependence=dependence(board),
        unmeasured=unmeasured(board, standings.others),
        metrics=sorted(specs, key=lambda spec: (known.index(spec.name) if spec.name in known else 99, spec.name)),
        markdown=BELOW_ROOT + board_page(board, "md"),
        address=defense_page,
    )


def restored_specs() -> dict[str, MetricSpec]:
    """Returns how the quality of restored images is called, by name."""
    return {spec.name: spec for spec in RESTORATION}


def task_spec(name: str) -> TaskSpec:
    """Returns how a task is called; a task that is not registered here is called by its name."""
    if name in TASKS:
        return TASKS[name]
    return TaskSpec(name=name, title=name.capitalize(), score="", quality="score", build="", metrics=())


def unprobed(board: Leaderboard) -> str:
    """Returns what to know of a board on whose budget no soundness probe ran; L0 has few probes at any budget."""
    if board.budget.norm == Norm.L0:
        return (
            "In L0 no attacks are compared with each other, only gradients are probed: a verified row says less here."
        )
    if board.probed:
        return ""
    return (
        "No soundness probe ran at this budget, and attacks had less effort than at the budget of full effort, "
        "so that a verified row says less here."
    )


def front_board(boards: Iterable[Leaderboard]) -> Leaderboard:
    """Returns the board that stands for a data set: its ranked budget, else the first."""
    boards = list(boards)
    return next((board for board in boards if board.ranks), boards[0])


def _chance(board: Leaderboard) -> float | None:
    """Returns the balanced accuracy of a constant answer; None where rows have none."""
    classes = _first_order(row.class_recall for row in board.rows)
    return 1 / len(classes) if classes and any(row.balanced for row in board.rows) else None


def _linked(row: Row) -> dict[str, object]:
    return {"row": row, "href": BELOW_ROOT + defense_page(row.defense.name)}


def _tab(sibling: Leaderboard, board: Leaderboard) -> dict[str, object]:
    label = " ".join([sibling.budget.label, *unusual_rules(sibling.threat_model)])
    return {
        "label": label,
        "href": BELOW_ROOT + board_page(sibling),
        "current": sibling is board,
        "ranked": sibling.ranks,
    }


def _corruption_tab(name: str, corrupted: frozenset[str]) -> list[dict[str, object]]:
    """Returns the link to a data set's corruption board, where it has one."""
    href = BELOW_ROOT + corruption_page(name)
    return [{"label": "corruptions", "href": href, "current": False, "ranked": False}] if name in corrupted else []


def _first_order(mappings: Iterable[dict[str, object]]) -> list[str]:
    """Returns the names of all mappings, in the order in which they first appear."""
    return list(dict.fromkeys(name for mapping in mappings for name in mapping))


def _ranked_boards(boards: Iterable[Leaderboard]) -> dict[str, list[Leaderboard]]:
    """Returns the front board of every data set, by task."""
    by_dataset: dict[tuple[str, str], list[Leaderboard]] = {}
    for board in boards:
        by_dataset.setdefault((board.dataset.task, board.dataset.name), []).append(board)
    by_task: dict[str, list[Leaderboard]] = {}
    for (task, _), found in by_dataset.items():
        by_task.setdefault(task, []).append(front_board(found))
    return by_task


def _task_summary(name: str, boards: list[Leaderboard]) -> dict[str, object]:
    summaries = [_summary(board) for board in boards]
    return {
        "title": task_spec(name).title,
        "quality": " or ".join(dict.fromkeys(board.quality for board in boards)),
        "summaries": summaries,
        "matrix": _matrix(boards),
        "below": any(item["best"] and item["best"][0]["row"].below_constant for item in summaries),
        "balanced": any(row.balanced for board in boards for row in board.rows),
    }


def _summary(board: Leaderboard) -> dict[str, object]:
    best = [row for row in board.ranked if row.rank == 1]
    return {
        "board": board,
        "href": board_page(board),
        "best": [{"row": row, "href": defense_page(row.defense.name)} for row in best],
        "undefended": board.undefended,
    }


def _matrix(boards: list[Leaderboard]) -> dict[str, object]:
    """Returns all defenses by all data sets of a task, in the order of their mean rank."""
    rows: dict[str, list[Row | None]] = {}
    for place, board in enumerate(boards):
        for row in board.rows:
            rows.setdefault(row.defense.name, [None] * len(boards))[place] = row
    ranks = mean_ranks(boards)
    lines = [
        {"name": name, "href": defense_page(name), "cells": cells, "mean_rank": ranks.get(name)}
        for name, cells in rows.items()
    ]
    lines.sort(key=lambda line: (line["mean_rank"] is None, line["mean_rank"] or 0, line["name"].lower()))
    return {
        "rows": lines,
        "columns": boards,
        "n_aggregate": sum(board.in_aggregate for board in boards),
        "constant": any(board.constant_predictor is not None for board in boards),
    }
