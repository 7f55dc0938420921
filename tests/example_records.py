"""A small finished record and its sample table, for the tests of results."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from results.record import (
    BudgetResult,
    Checkpoint,
    Cost,
    Estimate,
    EvaluationRecord,
    Flag,
    MemberResult,
    Provenance,
    RecordStatus,
)

KEY = "phantom/Undefended/standard-s0-0123456789ab"
WHITE_BOX = {"kind": "ball", "norm": "Linf", "scope": "each", "support": "everything", "knowledge": "white-box"}


def example_budget(robust: float = 0.25, n: int = 8, eps: float = 4 / 255, **changes: Any) -> BudgetResult:
    """Returns a worst case at Linf eps with two members."""
    members = tuple(
        MemberResult(name=name, card={"options": {"steps": 20}}, attempted=n, lowered=2, broken=1, robust_after=robust)
        for name in ("apgd-margin", "square")
    )
    result = BudgetResult(
        budget={"norm": "Linf", "eps": eps},
        metrics={"robust": Estimate(value=robust, low=0.0, high=1.0, n=n)},
        members=members,
        planned=("apgd-margin", "square"),
    )
    return replace(result, **changes)


def example_record(**changes: Any) -> EvaluationRecord:
    """Returns a finished record of 8 samples whose probes found nothing."""
    record = EvaluationRecord(
        key=KEY,
        status=RecordStatus.DONE,
        dataset={"name": "phantom", "title": "Phantom"},
        data_sha256="d" * 64,
        split="test",
        n_planned=8,
        defense={"name": "Undefended", "claims": []},
        checkpoint=Checkpoint(sha256="c" * 64, seed=0, files=("model.safetensors",)),
        protocol={"name": "standard", "threat_model": WHITE_BOX},
        attack_seed=0,
        revisions={"dataset": 1, "task": 1, "defense": 1, "protocol": 1, "engine": 1},
        quality="accuracy",
        clean={"clean": Estimate(value=0.875, low=0.53, high=0.98, n=8)},
        budgets=(example_budget(),),
        flags=(Flag(name="zero-gradient", red=False, evidence="0.0 % of the gradients vanish, red from 10 %"),),
        cost=Cost(
            seconds=1.5,
            forwards=800,
            backwards=160,
            parameters=1000,
            flops=None,
            latency_ms_1=0.5,
            latency_ms_64=2.0,
            training_seconds=None,
        ),
        provenance=Provenance(
            started_at="2026-01-01T00:00:00+00:00",
            commit=None,
            dirty=False,
            python="3.11",
            platform="Linux x86_64",
            device="cpu (1 thread)",
            packages={"torch": "2.14.1"},
        ),
    )
    return replace(record, **changes)


def example_samples(scores: list[float] | None = None) -> pd.DataFrame:
    """Returns a sample table of one budget."""
    clean = [1.0] * 7 + [0.0] if scores is None else [1.0] * len(scores)
    scores = [0, 0, 1, 0, 0, 1, 0, 0] if scores is None else scores
    return pd.DataFrame(
        {
            "sample_id": np.arange(len(scores)),
            "clean_score": np.array(clean),
            "score_0": np.array(scores, dtype=np.float64),
            "member_0": pd.Series(["square" if score == 0 else "" for score in scores], dtype="category"),
            "step_0": np.full(len(scores), 7),
        }
    )
