"""The boards as data: leaderboard.json and leaderboard.csv, fractions throughout."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable
from dataclasses import asdict

from reports.cards import PublishedClaim
from reports.controls import table
from reports.html import https
from reports.leaderboard import Change, Leaderboard, Row, Standings
from reports.pooling import Pooled
from results.record import Estimate

SCHEMA = 1
"""Version of leaderboard.json."""
DIGITS = 6
"""Decimals of exported fractions: more than any sample count resolves, fewer than machines disagree in."""

CSV_COLUMNS = [
    "task",
    "dataset",
    "norm",
    "eps",
    "support",
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
    "best_known",
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
    "training_seconds",
    "training_relative",
    "attack_forwards",
    "attack_backwards",
    "reasons",
    "records",
]


def render_json(standings: Standings) -> str:
    """Returns leaderboard.json: one object for each row of each board, and one for each control."""
    rows = [_json_row(board, row) for board in standings.boards for row in board.rows]
    controls = [
        {name: _number(v) if isinstance(v, float) else v for name, v in line.items()} for line in table(standings.exams)
    ]
    return (
        json.dumps(
            {"schema": SCHEMA, "rows": rows, "controls": controls}, indent=1, ensure_ascii=False, allow_nan=False
        )
        + "\n"
    )


def render_csv(standings: Standings) -> str:
    """Returns leaderboard.csv: the same rows, flat; lists are joined by "; "."""
    text = io.StringIO()
    writer = csv.DictWriter(text, CSV_COLUMNS, lineterminator="\n")
    writer.writeheader()
    for board in standings.boards:
        for row in board.rows:
            writer.writerow({name: _csv_value(value) for name, value in _csv_row(board, row).items()})
    return text.getvalue()


def _json_row(board: Leaderboard, row: Row) -> dict[str, object]:
    asr = row.attack_success_rate
    eps = board.budget.eps
    return {
        "task": board.dataset.task,
        "dataset": board.dataset.name,
        "threat_model": {
            "norm": str(board.budget.norm),
            "eps": list(eps) if isinstance(eps, tuple) else eps,
            "support": board.threat_model.support,
            "label": board.budget.label,
            "kind": str(board.threat_model.kind),
            "scope": str(board.threat_model.scope),
            "goal": str(board.threat_model.goal),
            "knowledge": str(board.threat_model.knowledge),
        },
        "ranked_budget": board.ranks,
        "in_aggregate": board.in_aggregate,
        "quality": board.quality,
        "constant_predictor": _number(board.constant_predictor),
        "defense": row.defense.name,
        "family": row.defense.family,
        "paper": _paper(row),
        "seeds": list(row.seeds),
        "n": row.n,
        "clean": _number(row.clean.value),
        "clean_interval": _ends(row.clean.estimate),
        "robust": _number(row.robust.value),
        "robust_interval": _ends(row.robust.estimate),
        "seed_spread": {"clean": _seeds(row.clean), "robust": _seeds(row.robust)},
        "drop": _number(row.drop),
        "attack_success_rate": _number(asr.value) if asr else None,
        "attack_success_interval": _ends(asr.estimate) if asr else None,
        "eligible": asr.estimate.n if asr else None,
        "best_known": _number(row.best_known.value),
        "best_known_interval": _ends(row.best_known.estimate),
        "lowered_by": list(row.lowered_by),
        "certified": _number(row.certified.value) if row.certified else None,
        "claimed": [_claim(claim) for claim in row.claims],
        "status": row.status,
        "upper_bound": row.upper_bound,
        "reasons": list(row.reasons),
        "flags": list(row.red_flags),
        "rank": row.rank,
        "tie_group": row.tie_group,
        "below_constant": row.below_constant,
        "class_recall": {name: _change(change) for name, change in row.class_recall.items()},
        "confusions": {name: _change(change) for name, change in row.confusions.items()},
        "metrics": {name: _change(change) for name, change in row.metrics.items()},
        "restored_clean": {name: _number(pooled.value) for name, pooled in row.restored_clean.items()},
        "cost": _cost(row),
        "records": list(row.records),
    }


def _csv_row(board: Leaderboard, row: Row) -> dict[str, object]:
    paper = row.defense.paper
    cost = _cost(row)
    eps = board.budget.values
    return {
        "task": board.dataset.task,
        "dataset": board.dataset.name,
        "norm": str(board.budget.norm),
        "eps": _number(eps[0]) if len(eps) == 1 else [_number(value) for value in eps],
        "support": board.threat_model.support,
        "defense": row.defense.name,
        "family": row.defense.family,
        "paper": paper.title if paper else "",
        "paper_url": https(paper.url) if paper else "",
        "seeds": row.seeds,
        "n": row.n,
        "clean": _number(row.clean.value),
        **dict(zip(("clean_low", "clean_high"), _ends(row.clean.estimate), strict=True)),
        "robust": _number(row.robust.value),
        **dict(zip(("robust_low", "robust_high"), _ends(row.robust.estimate), strict=True)),
        "attack_success_rate": _number(row.attack_success_rate.value) if row.attack_success_rate else None,
        "best_known": _number(row.best_known.value),
        "claimed": [_number(claim.value) for claim in row.claims],
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


def _csv_value(value: object) -> object:
    """Returns a cell's value; a text that a spreadsheet would run as a formula gets an apostrophe in front."""
    if isinstance(value, list | tuple):
        value = "; ".join(str(item) for item in value)
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r"):
        return "'" + value
    return "" if value is None else value


def _cost(row: Row) -> dict[str, object]:
    if row.cost is None:
        return {}
    plain = asdict(row.cost)
    return {name: _number(value) if isinstance(value, float) else value for name, value in plain.items()}


def _paper(row: Row) -> dict[str, object] | None:
    paper = row.defense.paper
    return None if paper is None else asdict(paper) | {"url": https(paper.url)}


def _claim(claim: PublishedClaim) -> dict[str, object]:
    return {
        "value": _number(claim.value),
        "metric": claim.metric,
        "dataset": claim.dataset,
        "protocol": claim.protocol,
        "source": claim.source,
    }


def _change(change: Change) -> dict[str, object]:
    attacked = change.attacked
    return {
        "clean": _number(change.clean.value) if change.clean else None,
        "attacked": _number(attacked.value),
        "attacked_interval": _ends(attacked.estimate),
        "n": attacked.estimate.n,
    }


def _seeds(pooled: Pooled) -> list[float]:
    return [_number(value) for value in pooled.seeds]


def _ends(estimate: Estimate) -> list[float | None]:
    return [_number(estimate.low), _number(estimate.high)]


def _number(value: float | None) -> float | None:
    """Returns a number rounded for export, or None where there is none."""
    return None if value is None or not math.isfinite(value) else round(value, DIGITS)


def boards_by_dataset(boards: Iterable[Leaderboard]) -> dict[str, list[Leaderboard]]:
    """Returns the boards of every data set, in their order."""
    found: dict[str, list[Leaderboard]] = {}
    for board in boards:
        found.setdefault(board.dataset.name, []).append(board)
    return found
