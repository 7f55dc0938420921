"""Recomputes the scores of records from data, weights and adversarials, without attacking."""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import numpy as np
import torch

from attacks.judging import FINAL
from attacks.victim import ModelVictim
from benchmark.access import Subject, marked
from benchmark.assessment import check_model, full_precision
from benchmark.evaluation_cell import load_dataset
from benchmark.obstacles import base_chain, needs_weights
from benchmark.oracles import seen_by
from benchmark.rounding import judge_with_doubt, usual_spread
from benchmark.stored_adversarials import balls, stored_points, take
from benchmark.weights import current_weights
from datasets.batch import Batch
from datasets.tasks.base import task_for
from defenses.build import defended_model
from registry import DATASETS, DEFENSES, TASKS
from registry.errors import BenchmarkError, DataMissingError, NewerSchemaError, UnknownEntryError
from results.adversarials import Adversarials
from results.budgets import as_budget, as_threat_model
from results.consistency import CLEAN, cascades, certificate_problems, stochastic, table_problems
from results.record import EvaluationRecord, RecordStatus
from results.sample_table import SAMPLE_ID, score_column
from results.statistics import is_binary
from results.store import RecordStore

TOLERANCE = 1e-4
"""By how much a graded score may differ from the record's; 0/1 scores only where rounding decides them."""


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


class _Wrong(Exception):
    """The record does not hold, for the reason in the text."""


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
        except (_Wrong, BenchmarkError) as reason:
            return Verified(key=key, ending=Ending.FAILED, text=" ".join(str(reason).split()))

    def _check(self, key: str) -> str:
        record = self._store.read(key)
        if record.status is not RecordStatus.DONE:
            raise _Skip("its evaluation failed, there is no number to verify")
        table = self._store.samples(record)
        problems = table_problems(record, table)
        adversarials = None
        if record.adversarials is not None:
            adversarials = self._store.adversarials(record)
            problems += certificate_problems(record, table, adversarials)
        if problems:
            raise _Wrong("; ".join(problems))
        if record.budgets and not cascades(record):
            raise _Skip("agrees with its sample table; a replay or corruption keeps no adversarials, run it again")
        if record.budgets and adversarials is None:
            if written_in_schema(self._store, key) >= CERTIFIED_SINCE:
                raise _Wrong("it keeps no adversarials for its robust scores")
            raise _Skip("agrees with its sample table, but was made before adversarials were kept; run it again")
        subject, batch = self._subject(record), self._batch(record, table[SAMPLE_ID].to_numpy())
        with full_precision():
            found = recompute(subject, batch, record, adversarials)
        problems = _differences(record, table, found)
        if problems:
            raise _Wrong("; ".join(problems))
        return _summary(record, len(table))

    def _subject(self, record: EvaluationRecord) -> Subject:
        """Returns the model that a record is about, after checking that its weights are those of the record."""
        if record.checkpoint is None:
            raise _Wrong("it is done, yet names no weights")
        name, dataset, seed = record.defense["name"], record.dataset["name"], record.checkpoint.seed
        if (name, dataset, seed) not in self._subjects:
            self._subjects = {(name, dataset, seed): self._build(record, name, dataset, seed)}
        subject, sha256 = self._subjects[name, dataset, seed]
        if sha256 != record.checkpoint.sha256:
            raise _Wrong(f"the weights here have sha256 {sha256[:16]}, it names {record.checkpoint.sha256[:16]}")
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
                raise _Skip(f"the weights of {part.name} on {dataset} for seed {seed} are not here")
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
            raise _Wrong(f"the data here have sha256 {dataset.sha256[:16]}, it names {record.data_sha256[:16]}")
        size = len(dataset.splits[record.split])
        if len(sample_ids) and not 0 <= sample_ids.min() <= sample_ids.max() < size:
            raise _Wrong(f"it holds samples beyond the {size} of its split")
        batch = dataset.splits[record.split].take(sample_ids)
        return seen_by(DEFENSES[record.defense["name"]], batch, dataset.spec).to(self._place.device)


def written_in_schema(store: RecordStore, key: str) -> int:
    """Returns the schema that a record's file names, before any upgrade."""
    return int(json.loads(store.path_of(key).read_text(encoding="utf-8"))["schema"])


@dataclass(frozen=True)
class Recomputed:
    """Scores of all samples, and by how much another device may find them otherwise."""

    scores: np.ndarray
    """float32 (n,)."""
    doubt: np.ndarray
    """float32 (n,): share of the draws, 0 or 1 without noise, that the rounding of float32 decides."""


def recompute(
    subject: Subject, batch: Batch, record: EvaluationRecord, adversarials: Adversarials | None
) -> dict[str, Recomputed]:
    """Returns the canonical scores of the originals and of the certified budgets, by the column of the sample table.

    Args:
        subject: The model of the record.
        batch: The samples, in the order of the sample table.
        record: The record.
        adversarials: Its certificates, or None where nobody attacked.

    Raises:
        _Wrong: An adversarial lies outside its ball or outside [0, 1].
    """
    subject = check_model(subject, batch)
    batch = marked(subject, batch)
    victim = ModelVictim(
        subject.model,
        subject.task,
        slots=subject.slots(batch),
        randomness=subject.randomness,
        seed=record.attack_seed,
    )
    spread = usual_spread(victim, batch)
    clean = _judged(victim, batch, spread)
    found = {CLEAN: clean}
    if adversarials is None:
        return found
    attacked = _attacked(victim, batch, record, adversarials, spread)
    for index in adversarials.certified:
        place = adversarials.holding(batch.sample_ids.cpu().numpy(), index)
        held, bare = attacked if len(attacked.scores) else clean, place < 0
        scores = np.where(bare, clean.scores, held.scores[place])
        scores = scores if stochastic(record) else np.minimum(clean.scores, scores)
        doubt = np.where(bare, clean.doubt, np.maximum(clean.doubt, held.doubt[place]))
        found[score_column(index)] = Recomputed(scores, doubt)
    return found


def _judged(victim: ModelVictim, batch: Batch, spread: float) -> Recomputed:
    return Recomputed(*(part.cpu().numpy() for part in judge_with_doubt(victim, batch, FINAL, spread)))


def _attacked(victim: ModelVictim, batch: Batch, record: EvaluationRecord, adversarials, spread: float) -> Recomputed:
    """Returns the canonical score of each adversarial."""
    row_of = {int(sample): row for row, sample in enumerate(batch.sample_ids.tolist())}
    scores, doubt = np.zeros((2, len(adversarials)), dtype=np.float32)
    for index, result in enumerate(record.budgets):
        places = np.flatnonzero(adversarials.budgets == index)
        if not len(places):
            continue
        rows = torch.tensor([row_of[int(sample)] for sample in adversarials.sample_ids[places]])
        part = batch.take(rows.to(batch.inputs.device))
        budget = as_budget(result.budget)
        ball = balls(as_threat_model(record.protocol["threat_model"]), budget, part)
        if adversarials.shape != tuple(part.inputs.shape[1:]):
            raise _Wrong(f"its adversarials have shape {adversarials.shape}, its inputs {tuple(part.inputs.shape[1:])}")
        points = stored_points(take(adversarials, places), part, ball)
        outside = (~ball.contains(points)).nonzero()[:, 0]
        if len(outside):
            sample = int(part.sample_ids[outside[0]])
            raise _Wrong(f"{len(outside)} adversarials lie outside {budget.label}, the first one of sample {sample}")
        judged = _judged(victim, part.with_inputs(points), spread)
        scores[places], doubt[places] = judged.scores, judged.doubt
    return Recomputed(scores, doubt)


def _differences(record: EvaluationRecord, table, found: dict[str, Recomputed]) -> list[str]:
    """Returns the columns whose recomputed scores are not those of the sample table."""
    problems = []
    for column, recomputed in found.items():
        scores, stated = recomputed.scores, table[column].to_numpy(np.float64)
        exact = is_binary(stated) and is_binary(scores) and not stochastic(record)
        wrong = ~(np.abs(scores - stated) <= (0 if exact else TOLERANCE) + recomputed.doubt)
        if wrong.any():
            first = int(np.flatnonzero(wrong)[0])
            at = "clean" if column == CLEAN else as_budget(record.budgets[int(column.split("_")[1])].budget).label
            problems.append(
                f"{int(wrong.sum())} of {len(stated)} scores at {at} are others: sample {table[SAMPLE_ID][first]} "
                f"scores {scores[first]:.4g}, the record says {stated[first]:.4g}"
            )
    return problems


def _summary(record: EvaluationRecord, n: int) -> str:
    if record.adversarials is None:
        return f"clean {record.clean['clean'].value:.1%} of {n} samples"
    shown = [
        f"{as_budget(record.budgets[index].budget).label} {record.budgets[index].metrics['robust'].value:.1%}"
        for index in record.adversarials.certified
    ]
    return f"{record.adversarials.count} adversarials on {n} samples give {', '.join(shown)}"
