"""Turns the outcome of a protocol into what a record holds: estimates, recalls, confusions, the sample table."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from attacks.engine import BudgetOutcome, Outcome
from attacks.member_run import MemberOutcome
from attacks.victim import ModelVictim
from benchmark.batch_design import design_of
from benchmark.draw_metrics import Observation, observe
from datasets.batch import Batch
from registry import DatasetSpec
from results import statistics
from results.bootstrap import drawn_images
from results.record import BudgetResult, Estimate, MemberResult
from results.sample_table import GROUP, SAMPLE_ID, WEIGHT

Facts = Mapping[str, np.ndarray]

CORPUS_RESAMPLES = 200
"""Bootstrap resamples behind the interval of a corpus metric."""


class Summary:
    """Everything a record says about scores.

    Args:
        victim: The unprepared victim.
        batch: The evaluated samples.
        spec: Their data set.
        outcome: What the protocol did.
    """

    def __init__(self, victim: ModelVictim, batch: Batch, spec: DatasetSpec, outcome: Outcome) -> None:
        self._task, self._spec = victim.task, spec
        clean = outcome.clean_scores.cpu().numpy()
        found = observe(victim, batch)
        facts = found.facts
        self._design = design_of(batch)
        self.samples = {SAMPLE_ID: batch.sample_ids.cpu().numpy(), "clean_score": clean}
        self.samples |= {} if self._design.groups is None else {GROUP: self._design.groups}
        self.samples |= {} if self._design.weights is None else {WEIGHT: self._design.weights}
        self.samples |= {f"clean_{name}": column for name, column in _columns(facts).items()}
        self.clean = {"clean": self._mean(clean)} | self._corpus(facts, len(clean)) | found.metrics
        self.clean_class_recall = self._recalls(facts, clean)
        self.clean_confusions = self._confusions(found)
        self.constant_predictor = _constant_predictor(facts)
        self.budgets = tuple(self._budget(k, b, victim, batch, clean) for k, b in enumerate(outcome.budgets))

    def table(self) -> pd.DataFrame:
        """Returns the per-sample facts, one row per sample."""
        return pd.DataFrame(self.samples)

    def _budget(
        self, k: int, outcome: BudgetOutcome, victim: ModelVictim, batch: Batch, clean: np.ndarray
    ) -> BudgetResult:
        scores = outcome.scores.cpu().numpy()
        worst = batch.with_inputs(outcome.points)
        found = observe(victim, worst)
        facts = found.facts
        self.samples |= {
            f"score_{k}": scores,
            f"member_{k}": np.array(outcome.found_by),
            f"step_{k}": outcome.step.cpu().numpy(),
        }
        self.samples |= {f"{name}_{k}": column for name, column in _columns(facts, targets=False).items()}
        success = statistics.attack_success_rate(clean, scores, self._task.fail_below, self._design)
        metrics = {"robust": self._mean(scores), "attack_success_rate": success} | self._corpus(facts, len(scores))
        return BudgetResult(
            budget=outcome.budget.card(),
            metrics=metrics | found.metrics,
            members=tuple(member_result(m) for m in outcome.members),
            planned=tuple(m.member.name for m in outcome.members),
            class_recall=self._recalls(facts, scores),
            confusions=self._confusions(found),
        )

    def _mean(self, scores: np.ndarray, rows: np.ndarray | slice = slice(None)) -> Estimate:
        """Returns the mean score of some samples, each with its weight."""
        return statistics.mean_estimate(scores[rows], statistics.is_binary(scores[rows]), self._design.take(rows))

    def _corpus(self, facts: Facts, n: int) -> dict[str, Estimate]:
        """Returns corpus metrics with percentile intervals over resampled images, or groups of them."""
        resampled: dict[str, list[float]] = {}
        for rows in drawn_images(n, CORPUS_RESAMPLES, self._design):
            for name, value in self._task.corpus_metrics({key: column[rows] for key, column in facts.items()}).items():
                resampled.setdefault(name, []).append(value)
        estimates = {}
        for name, value in self._task.corpus_metrics(facts).items():
            low, high = np.percentile(resampled.get(name) or [value], [2.5, 97.5])
            estimates[name] = Estimate(value=value, low=float(low), high=float(high), n=n)
        return estimates

    def _recalls(self, facts: Facts, scores: np.ndarray) -> dict[str, Estimate]:
        """Recall of each class that occurs: the mean score of its samples."""
        if "label" not in facts:
            return {}
        members = {name: facts["label"] == index for index, name in enumerate(self._spec.class_names)}
        return {name: self._mean(scores, rows) for name, rows in members.items() if rows.any()}

    def _confusions(self, found: Observation) -> dict[str, Estimate]:
        """How often a class is called another one; of a stochastic model the mean over single draws, as its score."""
        if "label" not in found.facts:
            return {}
        rates = {}
        for confusion in self._spec.harmful_confusions:
            members = found.facts["label"] == confusion.true
            if members.any():
                wrong = found.predictions == confusion.predicted
                rates[confusion.title] = self._mean(wrong.mean(0), members)
        return rates


def _columns(facts: Facts, *, targets: bool = True) -> dict[str, np.ndarray]:
    """Returns facts as flat columns; (N, K) becomes name[0] ... name[K-1]. What is the target's own appears once."""
    columns = {}
    for name, values in facts.items():
        if name in ("label", "labels", "true") and not targets:
            continue
        if values.ndim == 1:
            columns[name] = values
        else:
            columns |= {f"{name}[{j}]": values[:, j] for j in range(values.shape[1])}
    return columns


def _constant_predictor(facts: Facts) -> float | None:
    """Returns the score of always answering the most frequent class, of several labels of any constant answer."""
    if "label" in facts:
        return float(np.bincount(facts["label"]).max() / len(facts["label"]))
    return 0.5 if "labels" in facts else None


def member_result(outcome: MemberOutcome) -> MemberResult:
    """Returns what one attack did, as records keep it."""
    return MemberResult(
        name=outcome.member.name,
        card=outcome.member.card(),
        attempted=outcome.attempted,
        lowered=outcome.lowered,
        broken=outcome.broken,
        robust_after=outcome.robust_after,
        errors=outcome.errors,
        violations=outcome.violations,
        unmoved=outcome.unmoved,
        no_gradient=outcome.no_gradient,
        forwards=outcome.forwards,
        backwards=outcome.backwards,
        seconds=outcome.seconds,
        error=outcome.error,
        losses=outcome.losses,
        loss_rows=outcome.loss_rows,
    )
