"""Whether a record, its sample table and its certificates say the same; no model is needed to tell."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from results.adversarials import Adversarials
from results.budgets import as_budget
from results.record import Estimate, EvaluationRecord
from results.sample_design import SampleDesign
from results.sample_table import SAMPLE_ID, score_column
from results.statistics import FAIL_BELOW, attack_success_rate, is_binary, mean_estimate

CLEAN = "clean_score"
ROUNDING = 1e-6
"""By how much a mean may differ: tables are float32."""


def table_problems(record: EvaluationRecord, table: pd.DataFrame) -> list[str]:
    """Returns where a record's numbers are not those of its sample table, in words.

    Args:
        record: A finished record.
        table: Its sample table.
    """
    columns = [SAMPLE_ID, CLEAN]
    for index in range(len(record.budgets)):
        columns += [score_column(index), f"member_{index}", f"step_{index}"]
    missing = [name for name in columns if name not in table.columns]
    if missing:
        return [f"its sample table lacks the columns {', '.join(missing)}"]
    if record.samples is not None and len(table) != record.samples.rows:
        return [f"its sample table has {len(table)} rows, the record says {record.samples.rows}"]
    scores = table[[CLEAN, *(score_column(index) for index in range(len(record.budgets)))]].to_numpy(np.float64).T
    if not ((scores >= 0) & (scores <= 1)).all():
        return ["its sample table holds scores outside [0, 1]"]
    return [*_order_problems(record, scores), *_number_problems(record, table, scores), *_finders(record, table)]


def certificate_problems(record: EvaluationRecord, table: pd.DataFrame, adversarials: Adversarials) -> list[str]:
    """Returns which samples are said to be broken without an adversarial, and other gaps of the certificates, in words.

    Args:
        record: A finished record with certificates.
        table: Its sample table.
        adversarials: Its certificates.
    """
    problems = []
    stated = record.adversarials
    if stated.certified != adversarials.certified or stated.count != len(adversarials):
        problems.append("its file of adversarials covers other budgets or samples than the record says")
    every = tuple(range(len(record.budgets)))
    needed = required_budgets(record, table)
    if not needed <= set(adversarials.certified) <= set(every):
        problems.append(f"it needs adversarials at the budgets {sorted(needed)}, has them at {adversarials.certified}")
    strangers = set(adversarials.sample_ids.tolist()) - set(table[SAMPLE_ID].tolist())
    if strangers:
        problems.append(f"adversarials of samples that were not evaluated: {_some(strangers)}")
    if len(adversarials) and not set(adversarials.budgets.tolist()) <= set(every):
        problems.append("adversarials at a budget that the record does not have")
    for index in set(adversarials.certified) & set(every):
        bare = adversarials.holding(table[SAMPLE_ID].to_numpy(), index) < 0
        lowered = (table[score_column(index)] < table[CLEAN]).to_numpy()
        if (lowered & bare).any():
            names = _some(table[SAMPLE_ID][lowered & bare])
            problems.append(f"samples lowered at budget {index} without an adversarial: {names}")
    return problems


def required_budgets(record: EvaluationRecord, table: pd.DataFrame) -> set[int]:
    """Returns the budgets that must have certificates: all for 0/1 scores without noise, else the ranked one."""
    scores = table[[CLEAN, *(score_column(index) for index in range(len(record.budgets)))]].to_numpy()
    if is_binary(scores) and not stochastic(record):
        return set(range(len(record.budgets)))
    ranked = record.protocol.get("ranked_budget") or record.dataset.get("ranked_budget")
    if not ranked:
        return set()
    return {index for index, result in enumerate(record.budgets) if as_budget(result.budget) == as_budget(ranked)}


def stochastic(record: EvaluationRecord) -> bool:
    """Returns whether the defense draws random numbers, so that scores are estimates and need not fall with eps."""
    return record.defense.get("randomness", "none") != "none"


def cascades(record: EvaluationRecord) -> bool:
    """Returns whether scores are worst cases; those of replays and corruptions are of one point at one budget."""
    return bool(record.protocol.get("cascades", True))


def _order_problems(record: EvaluationRecord, scores: np.ndarray) -> Iterator[str]:
    """Without noise, worst cases never rise above the clean scores, nor from a smaller budget to a larger one.

    Candidates against a stochastic defense are selected on other draws than the ones they are scored on.
    """
    if not cascades(record) or stochastic(record):
        return
    for index, row in enumerate(scores[1:]):
        before = scores[: index + 1].min(0)
        if (row > before + ROUNDING).any():
            yield f"scores rise at budget {index} on {int((row > before + ROUNDING).sum())} samples"


def _number_problems(record: EvaluationRecord, table: pd.DataFrame, scores: np.ndarray) -> Iterator[str]:
    stated = [("clean", record.clean.get("clean")), *(("robust", r.metrics.get("robust")) for r in record.budgets)]
    design = SampleDesign.of(table)
    for index, ((name, estimate), row) in enumerate(zip(stated, scores, strict=True)):
        at = f"{name} score" + (f" at budget {index - 1}" if index else "")
        yield from _differs(at, estimate, mean_estimate(row, is_binary(row), design))
    for index, (result, row) in enumerate(zip(record.budgets, scores[1:], strict=True)):
        if "attack_success_rate" in result.metrics:
            found = attack_success_rate(scores[0], row, FAIL_BELOW, design)
            yield from _differs(f"attack success rate at budget {index}", result.metrics["attack_success_rate"], found)
        for name, estimate in result.class_recall.items():
            try:
                members = table["clean_label"].to_numpy() == record.dataset["class_names"].index(name)
            except (KeyError, ValueError):
                yield f"recall of {name} at budget {index}, a class without samples"
                continue
            found = mean_estimate(row[members], is_binary(row[members]), design.take(members))
            yield from _differs(f"recall of {name} at budget {index}", estimate, found)


def _differs(what: str, stated: Estimate | None, found: Estimate) -> Iterator[str]:
    if stated is None:
        yield f"the record states no {what}"
    elif stated.n != found.n:
        yield f"{what}: the record says n = {stated.n}, its sample table {found.n}"
    elif any(abs(getattr(stated, end) - getattr(found, end)) > ROUNDING for end in ("value", "low", "high")):
        yield f"{what}: the record says {_words(stated)}, its sample table {_words(found)}"


def _finders(record: EvaluationRecord, table: pd.DataFrame) -> Iterator[str]:
    """Every lowered sample was found at some step by a member that ran at this budget or a smaller one."""
    escalation = getattr(record, "escalation", None)
    ran = {member.name for member in escalation.members} if escalation else set()
    for index, result in enumerate(record.budgets):
        ran |= {member.name for member in result.members}
        found_by, step = table[f"member_{index}"].fillna(""), table[f"step_{index}"]
        strangers = set(found_by) - ran - {""}
        if strangers:
            yield f"found at budget {index} by {', '.join(sorted(strangers))}, which did not run"
        lowered = table[score_column(index)] < table[CLEAN]
        nobody = lowered & ((found_by == "") | (step < 0))
        if nobody.any():
            yield f"samples lowered at budget {index} by nobody: {_some(table[SAMPLE_ID][nobody])}"


def _some(samples) -> str:
    names = sorted(int(sample) for sample in samples)
    return ", ".join(str(name) for name in names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _words(estimate: Estimate) -> str:
    return f"{estimate.value:.2%} [{estimate.low:.2%}, {estimate.high:.2%}]"
