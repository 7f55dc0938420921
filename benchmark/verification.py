"""Recomputes the scores of records from data, weights and adversarials, without attacking."""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import numpy as np
import torch

from benchmark.access import Subject
from benchmark.assessment import full_precision
from benchmark.evaluation_cell import load_dataset
from benchmark.known_facts import other_cards, other_facts
from benchmark.obstacles import base_chain, needs_weights
from benchmark.oracles import seen_by
from benchmark.recompute import Recomputed, WrongRecord, recompute
from benchmark.weights import current_weights
from datasets.batch import Batch
from datasets.tasks.base import task_for
from defenses import checkpoints
from defenses.build import defended_model
from defenses.cards import damage
from registry import DATASETS, DEFENSES, TASKS, Randomness
from registry.errors import BenchmarkError, DataMissingError, NewerSchemaError, UnknownEntryError
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


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where data and weights are, and where to compute."""

    data_root: Path
    checkpoints: Path
    device: str


class _Skip(Exception):
    """The record cannot be checked here, for the reason in the text."""


class Verifier:
    """Checks records of one store; the last model stays in memory.

    Args:
        store: The records.
        place: Where data and weights are.
    """

    def __init__(self, store: RecordStore, place: Place) -> None:
        self._store, self._place = store, place
        self._subjects: dict[tuple[str, str, int], tuple[Subject, str]] = {}

    def check(self, key: str) -> Verified:
        """Returns whether the record of this key holds: its files, its own numbers, and what a model makes of them."""
        try:
            return Verified(key=key, ending=Ending.VERIFIED, text=self._check(key))
        except (_Skip, NewerSchemaError) as reason:
            return Verified(key=key, ending=Ending.SKIPPED, text=str(reason))
        except torch.OutOfMemoryError:
            return Verified(key=key, ending=Ending.SKIPPED, text="the device is out of memory; try --device cpu")
        except (WrongRecord, BenchmarkError) as reason:
            return Verified(key=key, ending=Ending.FAILED, text=" ".join(str(reason).split()))

    def _check(self, key: str) -> str:
        record = self._store.read(key)
        if record.status is not RecordStatus.DONE:
            raise _Skip("its evaluation failed, there is no number to verify")
        table = self._store.samples(record)
        problems = other_cards(record) + table_problems(record, table)
        adversarials = None
        if record.adversarials is not None:
            adversarials = self._store.adversarials(record)
            problems += certificate_problems(record, table, adversarials)
        if problems:
            raise WrongRecord("; ".join(problems))
        if record.budgets and not cascades(record):
            raise _Skip("agrees with its sample table; a replay or corruption keeps no adversarials, run it again")
        if record.budgets and adversarials is None:
            if written_in_schema(self._store, key) >= CERTIFIED_SINCE:
                raise WrongRecord("it keeps no adversarials for its robust scores")
            raise _Skip("agrees with its sample table, but was made before adversarials were kept; run it again")
        if record.defense["randomness"] == Randomness.MODEL and _on_cpu(record) != (self._place.device == "cpu"):
            raise _Skip(f"made on {record.provenance.device}, whose random weights another kind of device cannot draw")
        subject, batch = self._subject(record), self._batch(record, table[SAMPLE_ID].to_numpy())
        problems = other_facts(batch, table)
        if problems:
            raise WrongRecord("; ".join(problems))
        with full_precision():
            found = recompute(subject, batch, record, adversarials)
        problems, excused = _differences(record, table, found)
        if problems:
            raise WrongRecord("; ".join(problems))
        return _summary(record, len(table)) + (f"; rounding decides {excused} scores otherwise here" if excused else "")

    def _subject(self, record: EvaluationRecord) -> Subject:
        """Returns the model that a record is about, after checking that its weights are those of the record."""
        if record.checkpoint is None:
            raise WrongRecord("it is done, yet names no weights")
        name, dataset, seed = record.defense["name"], record.dataset["name"], record.checkpoint.seed
        if (name, dataset, seed) not in self._subjects:
            self._subjects = {(name, dataset, seed): self._build(record, name, dataset, seed)}
        subject, sha256 = self._subjects[name, dataset, seed]
        if sha256 != record.checkpoint.sha256:
            raise WrongRecord(f"the weights here have sha256 {sha256[:16]}, it names {record.checkpoint.sha256[:16]}")
        return subject

    def _build(self, record: EvaluationRecord, name: str, dataset: str, seed: int) -> tuple[Subject, str]:
        try:
            entry, spec = DEFENSES[name], DATASETS[dataset]
            chain = base_chain(entry, DEFENSES)
        except UnknownEntryError as error:
            raise _Skip(f"{error}; add its entry file with --entries") from error
        here = {"dataset": spec.revision, "task": TASKS[spec.task].revision, "defense": entry.revision}
        here |= {f"base:{part.name}": part.revision for part in chain[1:]}
        for part, revision in here.items():
            if record.revisions.get(part, revision) != revision:
                raise _Skip(f"made with revision {record.revisions[part]} of its {part}, this checkout has {revision}")
        for part in chain:
            released = any((c.dataset, c.seed) == (dataset, seed) for c in part.checkpoints)
            absent = current_weights(part, dataset, seed, self._place.checkpoints) is None
            if needs_weights(part) and absent and not released:
                present = checkpoints.find(part.name, dataset, seed, self._place.checkpoints)
                if present is not None and (damaged := damage(present)):
                    raise WrongRecord(f"{present.name} is damaged: {damaged}")
                raise _Skip(f"there are no current weights of {part.name} on {dataset} for seed {seed} here")
        model, info = defended_model(entry, spec, seed, self._place.checkpoints)
        model = model.to(self._place.device)
        return Subject(
            model=model, task=task_for(spec, detects=entry.detects), spec=spec, randomness=entry.randomness
        ), info.sha256

    def _batch(self, record: EvaluationRecord, sample_ids: np.ndarray) -> Batch:
        try:
            dataset = load_dataset(record.dataset["name"], self._place.data_root)
        except DataMissingError as error:
            raise _Skip(f"its data are not here: {' '.join(str(error).split())}") from error
        if dataset.sha256 != record.data_sha256:
            raise WrongRecord(f"the data here have sha256 {dataset.sha256[:16]}, it names {record.data_sha256[:16]}")
        size = len(dataset.splits[record.split])
        if len(sample_ids) and not 0 <= sample_ids.min() <= sample_ids.max() < size:
            raise WrongRecord(f"it holds samples beyond the {size} of its split")
        batch = dataset.splits[record.split].take(sample_ids)
        return seen_by(DEFENSES[record.defense["name"]], batch, dataset.spec).to(self._place.device)


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
