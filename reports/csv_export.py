"""The boards as a flat table: leaderboard.csv, the same rows and fractions as leaderboard.json."""

from __future__ import annotations

import csv
import io

from reports.exports import cost_of, ends, number
from reports.html import https
from reports.leaderboard import Leaderboard, Row, Standings

CSV_COLUMNS = [
    "task",
    "dataset",
    "norm",
    "eps",
    "support",
    "ranked_budget",
    "defense",
    "family",
    "paper",
    "paper_url",
    "seeds",
    "n",
    "clean",
    "clean_low",
    "clean_high",
    "robust",
    "robust_low",
    "robust_high",
    "attack_success_rate",
    "attack_success_low",
    "attack_success_high",
    "eligible",
    "broken",
    "best_known",
    "best_known_low",
    "best_known_high",
    "balanced_accuracy_clean",
    "balanced_accuracy",
    "balanced_accuracy_low",
    "balanced_accuracy_high",
    "trained_for",
    "claimed",
    "status",
    "upper_bound",
    "red_flags",
    "rank",
    "tie_group",
    "below_constant",
    "in_aggregate",
    "parameters",
    "flops",
    "latency_ms_1",
    "latency_ms_64",
    "device",
    "training_seconds",
    "training_devices",
    "attack_forwards",
    "attack_backwards",
    "reasons",
    "records",
]


def render_csv(standings: Standings) -> str:
    """Returns leaderboard.csv: the same rows, flat; lists are joined by "; "."""
    text = io.StringIO()
    writer = csv.DictWriter(text, CSV_COLUMNS, lineterminator="\n")
    writer.writeheader()
    for board in standings.boards:
        for row in board.rows:
            writer.writerow({name: _csv_value(value) for name, value in _csv_row(board, row).items()})
    return text.getvalue()


def _csv_row(board: Leaderboard, row: Row) -> dict[str, object]:
    paper = row.defense.paper
    cost = cost_of(row)
    eps = board.budget.values
    return {
        "task": board.dataset.task,
        "dataset": board.dataset.name,
        "norm": str(board.budget.norm),
        "eps": number(eps[0]) if len(eps) == 1 else [number(value) for value in eps],
        "support": board.threat_model.support,
        "ranked_budget": board.ranks,
        "defense": row.defense.name,
        "family": row.defense.family,
        "paper": paper.title if paper else "",
        "paper_url": https(paper.url) if paper else "",
        "seeds": row.seeds,
        "n": row.n,
        "clean": number(row.clean.value),
        **dict(zip(("clean_low", "clean_high"), ends(row.clean.estimate), strict=True)),
        "robust": number(row.robust.value),
        **dict(zip(("robust_low", "robust_high"), ends(row.robust.estimate), strict=True)),
        **_success_columns(row),
        "eligible": row.eligible,
        "broken": row.broken,
        "best_known": number(row.best_known.value),
        **dict(zip(("best_known_low", "best_known_high"), ends(row.best_known.estimate), strict=True)),
        **_balanced_columns(row),
        "trained_for": [budget.label for budget in row.trained_for],
        "claimed": [number(claim.value) for claim in row.claims],
        "status": row.status,
        "upper_bound": row.upper_bound,
        "red_flags": row.red_flags,
        "rank": row.rank,
        "tie_group": row.tie_group,
        "below_constant": row.below_constant,
        "in_aggregate": board.in_aggregate,
        **{name: cost[name] for name in CSV_COLUMNS if name in cost},
        "reasons": row.reasons,
        "records": row.records,
    }


def _success_columns(row: Row) -> dict[str, object]:
    found = row.attack_success_rate
    if found is None:
        return {}
    low, high = ends(found.estimate)
    return {"attack_success_rate": number(found.value), "attack_success_low": low, "attack_success_high": high}


def _balanced_columns(row: Row) -> dict[str, object]:
    found = row.balanced
    if found is None:
        return {}
    low, high = ends(found.attacked.estimate)
    return {
        "balanced_accuracy_clean": number(found.clean.value) if found.clean else None,
        "balanced_accuracy": number(found.attacked.value),
        "balanced_accuracy_low": low,
        "balanced_accuracy_high": high,
    }


def _csv_value(value: object) -> object:
    """Returns a cell's value; a text that a spreadsheet would run as a formula gets an apostrophe in front."""
    if isinstance(value, list | tuple):
        value = "; ".join(str(item) for item in value)
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r"):
        return "'" + value
    return "" if value is None else value
