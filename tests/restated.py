"""A record that states what its sample table holds."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd

from results.record import BudgetResult, EvaluationRecord
from results.statistics import attack_success_rate, is_binary, mean_estimate


def restated(record: EvaluationRecord, table: pd.DataFrame) -> EvaluationRecord:
    """Returns the record with the numbers that a sample table gives."""

    def budget(index: int, result: BudgetResult) -> BudgetResult:
        scores, labels = table[f"score_{index}"], table["clean_label"]
        recall = {
            name: mean_estimate(scores[labels == place], is_binary(scores))
            for place, name in enumerate(record.dataset["class_names"])
            if (labels == place).any()
        }
        success = attack_success_rate(table["clean_score"], scores, 0.5)
        metrics = result.metrics | {"robust": mean_estimate(scores, is_binary(scores)), "attack_success_rate": success}
        return replace(result, metrics=metrics, class_recall=recall)

    clean = record.clean | {"clean": mean_estimate(table["clean_score"], is_binary(table["clean_score"]))}
    return replace(record, clean=clean, budgets=tuple(budget(*item) for item in enumerate(record.budgets)))
