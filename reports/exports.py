"""The boards as data: leaderboard.json, fractions throughout."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
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


def render_json(standings: Standings) -> str:
    """Returns leaderboard.json: one object for each row of each board, and one for each control."""
    rows = [_json_row(board, row) for board in standings.boards for row in board.rows]
    controls = [
        {name: number(v) if isinstance(v, float) else v for name, v in line.items()} for line in table(standings.exams)
    ]
    return (
        json.dumps(
            {"schema": SCHEMA, "rows": rows, "controls": controls}, indent=1, ensure_ascii=False, allow_nan=False
        )
        + "\n"
    )


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
        "constant_predictor": number(board.constant_predictor),
        "defense": row.defense.name,
        "family": row.defense.family,
        "paper": _paper(row),
        "seeds": list(row.seeds),
        "n": row.n,
        "clean": number(row.clean.value),
        "clean_interval": ends(row.clean.estimate),
        "robust": number(row.robust.value),
        "robust_interval": ends(row.robust.estimate),
        "seed_spread": {"clean": _seeds(row.clean), "robust": _seeds(row.robust)},
        "drop": number(row.drop),
        "attack_success_rate": number(asr.value) if asr else None,
        "attack_success_interval": ends(asr.estimate) if asr else None,
        "eligible": list(row.eligible),
        "broken": list(row.broken),
        "best_known": number(row.best_known.value),
        "best_known_interval": ends(row.best_known.estimate),
        "lowered_by": list(row.lowered_by),
        "balanced_accuracy": _change(row.balanced) if row.balanced else None,
        "trained_for": [budget.card() | {"label": budget.label} for budget in row.trained_for],
        "certified": number(row.certified.value) if row.certified else None,
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
        "restored_clean": {name: number(pooled.value) for name, pooled in row.restored_clean.items()},
        "cost": cost_of(row),
        "records": list(row.records),
    }


def cost_of(row: Row) -> dict[str, object]:
    """Returns what a row costs; a latency of its own where one device measured all seeds, and one for each device."""
    if row.cost is None:
        return {}
    plain = asdict(row.cost)
    alone = row.cost.latencies[0] if len(row.cost.latencies) == 1 else None
    plain["latency_ms_1"] = alone.batch_1_ms if alone else None
    plain["latency_ms_64"] = alone.batch_64_ms if alone else None
    plain["latencies"] = [_rounded(found) for found in plain["latencies"]]
    return _rounded(plain)


def _rounded(values: Mapping[str, object]) -> dict[str, object]:
    return {name: number(value) if isinstance(value, float) else value for name, value in values.items()}


def _paper(row: Row) -> dict[str, object] | None:
    paper = row.defense.paper
    return None if paper is None else asdict(paper) | {"url": https(paper.url)}


def _claim(claim: PublishedClaim) -> dict[str, object]:
    return {
        "value": number(claim.value),
        "metric": claim.metric,
        "dataset": claim.dataset,
        "protocol": claim.protocol,
        "source": claim.source,
    }


def _change(change: Change) -> dict[str, object]:
    attacked = change.attacked
    return {
        "clean": number(change.clean.value) if change.clean else None,
        "attacked": number(attacked.value),
        "attacked_interval": None if change.at_least else ends(attacked.estimate),
        "at_least": change.at_least,
        "n": attacked.estimate.n,
    }


def _seeds(pooled: Pooled) -> list[float]:
    return [number(value) for value in pooled.seeds]


def ends(estimate: Estimate) -> list[float | None]:
    """Returns both ends of an interval, rounded for export."""
    return [number(estimate.low), number(estimate.high)]


def number(value: float | None) -> float | None:
    """Returns a number rounded for export, or None where there is none."""
    return None if value is None or not math.isfinite(value) else round(value, DIGITS)


def boards_by_dataset(boards: Iterable[Leaderboard]) -> dict[str, list[Leaderboard]]:
    """Returns the boards of every data set, in their order."""
    found: dict[str, list[Leaderboard]] = {}
    for board in boards:
        found.setdefault(board.dataset.name, []).append(board)
    return found
