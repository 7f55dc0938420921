"""The model and the samples that a record is about, checked against the checksums that it names."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmark.access import Subject
from benchmark.evaluation_cell import load_dataset
from benchmark.obstacles import base_chain, needs_weights
from benchmark.oracles import seen_by
from benchmark.recompute import WrongRecord
from benchmark.weights import current_weights
from datasets.batch import Batch
from datasets.tasks.base import task_for
from defenses import checkpoints
from defenses.build import defended_model
from defenses.cards import damage
from registry import DATASETS, DEFENSES, TASKS
from registry.errors import DataMissingError, UnknownEntryError
from results.record import EvaluationRecord


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where data and weights are, and where to compute."""

    data_root: Path
    checkpoints: Path
    device: str


class Skip(Exception):
    """A record cannot be looked at here, for the reason in the text."""


class Recorded:
    """Loads what records are about; the last model stays in memory.

    Args:
        place: Where data and weights are.
    """

    def __init__(self, place: Place) -> None:
        self._place = place
        self._subjects: dict[tuple[str, str, int], tuple[Subject, str]] = {}

    def subject(self, record: EvaluationRecord) -> Subject:
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
            raise Skip(f"{error}; add its entry file with --entries") from error
        here = {"dataset": spec.revision, "task": TASKS[spec.task].revision, "defense": entry.revision}
        here |= {f"base:{part.name}": part.revision for part in chain[1:]}
        for part, revision in here.items():
            if record.revisions.get(part, revision) != revision:
                raise Skip(f"made with revision {record.revisions[part]} of its {part}, this checkout has {revision}")
        for part in chain:
            released = any((c.dataset, c.seed) == (dataset, seed) for c in part.checkpoints)
            absent = current_weights(part, dataset, seed, self._place.checkpoints) is None
            if needs_weights(part) and absent and not released:
                present = checkpoints.find(part.name, dataset, seed, self._place.checkpoints)
                if present is not None and (damaged := damage(present)):
                    raise WrongRecord(f"{present.name} is damaged: {damaged}")
                raise Skip(f"there are no current weights of {part.name} on {dataset} for seed {seed} here")
        model, info = defended_model(entry, spec, seed, self._place.checkpoints)
        model = model.to(self._place.device)
        return Subject(
            model=model, task=task_for(spec, detects=entry.detects), spec=spec, randomness=entry.randomness
        ), info.sha256

    def batch(self, record: EvaluationRecord, sample_ids: np.ndarray) -> Batch:
        """Returns the samples of a record, after checking that the data are those it was made from."""
        try:
            dataset = load_dataset(record.dataset["name"], self._place.data_root)
        except DataMissingError as error:
            raise Skip(f"its data are not here: {' '.join(str(error).split())}") from error
        if dataset.sha256 != record.data_sha256:
            raise WrongRecord(f"the data here have sha256 {dataset.sha256[:16]}, it names {record.data_sha256[:16]}")
        size = len(dataset.splits[record.split])
        if len(sample_ids) and not 0 <= sample_ids.min() <= sample_ids.max() < size:
            raise WrongRecord(f"it holds samples beyond the {size} of its split")
        batch = dataset.splits[record.split].take(sample_ids)
        return seen_by(DEFENSES[record.defense["name"]], batch, dataset.spec).to(self._place.device)
