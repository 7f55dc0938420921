"""What a record says beside its scores that the registry and the data know better: its rules, and its samples."""

from __future__ import annotations

import numpy as np
import pandas as pd

from benchmark.batch_design import design_of
from datasets.batch import Batch
from registry import DATASETS, DEFENSES, PROTOCOLS
from results.budgets import as_budget
from results.record import EvaluationRecord
from results.sample_table import GROUP, WEIGHT


def other_cards(record: EvaluationRecord) -> list[str]:
    """Returns which of a record's own rules are not those of the registry's entries of the same revision, in words.

    A record that names no revision is taken for one of the present.
    What can be checked of a record hangs on them: whether it has certificates, whether scores may rise, what is noise.
    """
    found = [*_defense(record), *_protocol(record), *_dataset(record)]
    wrong = [(what, stated, known) for what, stated, known in found if stated != known]
    return [f"its card says that {what} is {stated}, the entry {known}" for what, stated, known in wrong]


def _is_current(record: EvaluationRecord, part: str, revision: int) -> bool:
    return record.revisions.get(part, revision) == revision


def _defense(record: EvaluationRecord) -> list[tuple[str, object, object]]:
    name = record.defense["name"]
    if name not in DEFENSES or not _is_current(record, "defense", DEFENSES[name].revision):
        return []
    stated = record.defense.get("randomness", "none")
    return [("the defense's randomness", stated, str(DEFENSES[name].randomness))]


def _protocol(record: EvaluationRecord) -> list[tuple[str, object, object]]:
    name = record.protocol["name"]
    if name not in PROTOCOLS or not _is_current(record, "protocol", PROTOCOLS[name].revision):
        return []
    known = PROTOCOLS[name].card()
    defaults = {"threat_model": None, "ranks": False, "cascades": True}
    return [(f"the protocol's {key}", record.protocol.get(key, usual), known[key]) for key, usual in defaults.items()]


def _dataset(record: EvaluationRecord) -> list[tuple[str, object, object]]:
    name = record.dataset["name"]
    if name not in DATASETS or not _is_current(record, "dataset", DATASETS[name].revision):
        return []
    known = DATASETS[name]
    found = [("the list of classes", list(record.dataset["class_names"]), list(known.class_names))]
    if record.budgets:
        found.append(("the ranked budget", as_budget(record.dataset["ranked_budget"]).label, known.ranked_budget.label))
    return found


def other_facts(batch: Batch, table: pd.DataFrame) -> list[str]:
    """Returns what a sample table says of the samples themselves that is not what the data say."""
    design = design_of(batch)
    known = {GROUP: design.groups, WEIGHT: design.weights, "clean_label": batch.targets.get("label")}
    problems = []
    for name, expected in known.items():
        if (expected is None) != (name not in table):
            problems.append(f"its sample table {'has' if expected is None else 'lacks'} the column {name}")
        elif expected is not None and not np.allclose(table[name].to_numpy(), np.asarray(expected), rtol=1e-5):
            problems.append(f"the column {name} of its sample table is not that of the data")
    return problems
