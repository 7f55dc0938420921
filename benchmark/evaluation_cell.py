"""One evaluation cell of a plan: loads data and weights by name and assesses the model."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
from torch import nn

from benchmark.assessment import Identity, Progress, Subject, assess
from benchmark.cells import EvaluationCell
from benchmark.certificates import with_certificates
from benchmark.environment import hardware, package_versions
from benchmark.journal_folder import JournalFolder
from benchmark.oracles import seen_by, twin_of
from datasets.batch import Batch, Dataset
from datasets.tasks.base import task_for
from defenses.build import CheckpointInfo, defended_model
from registry import DATASETS, DEFENSES, PROTOCOLS, TWIN, Need
from results.adversarials import Adversarials
from results.record import Checkpoint, EvaluationRecord

EXAMPLES = 512
"""Samples of `val` on which faster copies of a model are compared with it, at most: a physical batch of them is."""


def examples_of(dataset: Dataset) -> Batch:
    """Returns samples that are the same for all cells of a data set, whatever of `test` they attack."""
    val = dataset.splits["val"]
    return val.take(np.arange(min(EXAMPLES, len(val))))


def evaluate_cell(
    cell: EvaluationCell,
    *,
    data_root: Path,
    checkpoints: Path,
    device: str,
    progress: Progress,
    unfinished: Path,
    sources: str,
) -> tuple[EvaluationRecord, pd.DataFrame, Adversarials | None]:
    """Returns the record of a cell, its sample table and its certificates.

    Args:
        cell: What to evaluate.
        data_root: The data folder.
        checkpoints: Local folder of weights; those of the repository come first.
        device: Torch device.
        progress: Told the share that is done, and what is running.
        unfinished: Folder that keeps what the cell has done until it has a record.
        sources: Checksum of the code that runs.

    Raises:
        CheckpointError: Weights are absent, refused or damaged.
        DataError: The data cannot be read.
        ViolatedCertificateError: An attack found less than the defense's certificate proves.
    """
    dataset = load_dataset(cell.dataset, data_root)
    entry, protocol = DEFENSES[cell.defense], PROTOCOLS[cell.protocol]
    model, info = defended_model(entry, dataset.spec, cell.training_seed, checkpoints)
    twin, twin_info = _twin(cell, dataset, checkpoints) if Need.TWIN in protocol.needs else (None, None)
    subject = Subject(
        model=model.to(device),
        task=task_for(dataset.spec, detects=entry.detects),
        spec=dataset.spec,
        randomness=entry.randomness,
        twin=twin and twin_of(entry, twin.to(device)),
        examples=seen_by(entry, examples_of(dataset), dataset.spec),
    )
    identity = Identity(
        key=cell.key,
        data_sha256=dataset.sha256,
        split=cell.split,
        defense=entry.card(),
        checkpoint=_checkpoint(info),
        attack_seed=cell.attack_seed,
        revisions=cell.revisions,
    )
    batch = seen_by(entry, dataset.splits[cell.split].take(np.arange(cell.n_samples)), dataset.spec)
    circumstances = {
        "data": dataset.sha256,
        "weights": info.sha256,
        "twin": twin_info and twin_info.sha256,
        "device": hardware(device),
        "packages": package_versions(),
        "sources": sources,
    }
    told = {"device": device, "progress": progress, "journal": JournalFolder(unfinished, circumstances)}
    record, samples, adversarials = assess(subject, batch, protocol, identity, **told)
    return *with_certificates(entry, model, batch.to(device), record, samples), adversarials


@lru_cache(maxsize=2)
def load_dataset(name: str, data_root: Path) -> Dataset:
    """Returns a data set; the last two stay in memory."""
    return DATASETS[name].load(data_root)


def _twin(
    cell: EvaluationCell, dataset: Dataset, checkpoints: Path
) -> tuple[nn.Module, CheckpointInfo] | tuple[None, None]:
    """Returns the undefended model of the same data set and seed; none for the undefended model itself."""
    if cell.defense == TWIN:
        return None, None
    return defended_model(DEFENSES[TWIN], dataset.spec, cell.training_seed, checkpoints)


def _checkpoint(info: CheckpointInfo) -> Checkpoint:
    return Checkpoint(
        sha256=info.sha256, seed=info.seed, files=tuple(path.name for path in info.files), card=dict(info.card)
    )
