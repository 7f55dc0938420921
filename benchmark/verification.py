"""Recomputes the scores of records from data, weights and adversarials, without attacking."""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import torch

from benchmark.assessment import full_precision
from benchmark.known_facts import other_cards, other_facts
from benchmark.recompute import Recomputed, WrongRecord, recompute
from benchmark.recorded import Place, Recorded, Skip
from registry import Randomness
from registry.errors import BenchmarkError, NewerSchemaError
from results.budgets import as_budget
from results.consistency import CLEAN, cascades, certificate_problems, stochastic, table_problems
from results.record import EvaluationRecord, RecordStatus
from results.sample_table import SAMPLE_ID
from results.statistics import is_binary
from results.store import RecordStore

TOLERANCE = 1e-4
"""By how much a graded score may differ from the record's; 0/1 scores only where rounding decides them."""


EXCUSED = 0.01
"""Share of a column's samples that the rounding of float32 may excuse."""

CERTIFIED_SINCE = 2
"""Schema of the first records that kept adversarials."""


class Ending(StrEnum):
    """How the verification of a record ended."""

    VERIFIED = "ok"
    FAILED = "FAIL"
    SKIPPED = "skip"


@dataclass(frozen=True, kw_only=True)
class Verified:
    """What was found out about one record."""

    key: str
    ending: Ending
    text: str
    """What was recomputed, what does not hold, or why it could not be checked."""


class Verifier:
    """Checks records of one store; the last model stays in memory.

    Args:
        store: The records.
        place: Where data and weights are.
    """

    def __init__(self, store: RecordStore, place: Place) -> None:
        self._store, self._place, self._recorded = store, place, Recorded(place)

    def check(self, key: str) -> Verified:
        """Returns whether the record of this key holds: its files, its own numbers, and what a model makes of them."""
        try:
            return Verified(key=key, ending=Ending.VERIFIED, text=self._check(key))
        except (Skip, NewerSchemaError) as reason:
            return Verified(key=key, ending=Ending.SKIPPED, text=str(reason))
        except torch.OutOfMemoryError:
            return Verified(key=key, ending=Ending.SKIPPED, text="the device is out of memory; try --device cpu")
        except (WrongRecord, BenchmarkError) as reason:
            return Verified(key=key, ending=Ending.FAILED, text=" ".join(str(reason).split()))

    def _check(self, key: str) -> str:
        record = self._store.read(key)
        if record.status is not RecordStatus.DONE:
            raise Skip("its evaluation failed, there is no number to verify")
        table = self._store.samples(record)
        problems = other_cards(record) + table_problems(record, table)
        adversarials = None
        if record.adversarials is not None:
            adversarials = self._store.adversarials(record)
            problems += certificate_problems(record, table, adversarials)
        if problems:
            raise WrongRecord("; ".join(problems))
        if record.budgets and not cascades(record):
            raise Skip("agrees with its sample table; a replay or corruption keeps no adversarials, run it again")
        if record.budgets and adversarials is None:
            if written_in_schema(self._store, key) >= CERTIFIED_SINCE:
                raise WrongRecord("it keeps no adversarials for its robust scores")
            raise Skip("agrees with its sample table, but was made before adversarials were kept; run it again")
        if record.defense["randomness"] == Randomness.MODEL and _on_cpu(record) != (self._place.device == "cpu"):
            raise Skip(f"made on {record.provenance.device}, whose random weights another kind of device cannot draw")
        subject = self._recorded.subject(record)
        batch = self._recorded.batch(record, table[SAMPLE_ID].to_numpy())
        problems = other_facts(batch, table)
        if problems:
            raise WrongRecord("; ".join(problems))
        with full_precision():
            found = recompute(subject, batch, record, adversarials)
        problems, excused = _differences(record, table, found)
        if problems:
            raise WrongRecord("; ".join(problems))
        return _summary(record, len(table)) + (f"; rounding decides {excused} scores otherwise here" if excused else "")


def written_in_schema(store: RecordStore, key: str) -> int:
    """Returns the schema that a record's file names, before any upgrade."""
    return int(json.loads(store.path_of(key).read_text(encoding="utf-8"))["schema"])


def _on_cpu(record: EvaluationRecord) -> bool:
    return record.provenance.device.startswith("cpu")


def _differences(record: EvaluationRecord, table, found: dict[str, Recomputed]) -> tuple[list[str], int]:
    """Returns the columns whose recomputed scores are not those of the sample table, and how many rounding excuses.

    What it excuses in a column may come to one sample, or to `EXCUSED` of them.
    """
    problems, excuses = [], 0
    for column, recomputed in found.items():
        scores, stated = recomputed.scores, table[column].to_numpy(np.float64)
        exact = is_binary(stated) and is_binary(scores) and not stochastic(record)
        difference, allowed = np.abs(scores - stated), 0 if exact else TOLERANCE
        wrong = ~(difference <= allowed + recomputed.doubt)
        excused = ~wrong & (difference > allowed)
        excuses += int(excused.sum())
        if difference[excused].sum() > max(1, EXCUSED * len(stated)):
            wrong |= excused
        if wrong.any():
            first = int(np.flatnonzero(wrong)[0])
            at = "clean" if column == CLEAN else as_budget(record.budgets[int(column.split("_")[1])].budget).label
            problems.append(
                f"{int(wrong.sum())} of {len(stated)} scores at {at} are others: sample {table[SAMPLE_ID][first]} "
                f"scores {scores[first]:.4g}, the record says {stated[first]:.4g}"
            )
    return problems, excuses


def _summary(record: EvaluationRecord, n: int) -> str:
    if record.adversarials is None:
        return f"clean {record.clean['clean'].value:.1%} of {n} samples"
    shown = [
        f"{as_budget(record.budgets[index].budget).label} {record.budgets[index].metrics['robust'].value:.1%}"
        for index in record.adversarials.certified
    ]
    return f"{record.adversarials.count} adversarials on {n} samples give {', '.join(shown)}"
