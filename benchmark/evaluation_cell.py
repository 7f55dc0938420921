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
from benchmark.environment import device_name, package_versions
from benchmark.journal_folder import JournalFolder, sources_sha256
from benchmark.oracles import seen_by, twin_of
from datasets.batch import Dataset
from datasets.tasks.base import task_for
from defenses.build import CheckpointInfo, defended_model
from registry import DATASETS, DEFENSES, PROTOCOLS, TWIN, Need
from results.adversarials import Adversarials
from results.record import Checkpoint, EvaluationRecord


def evaluate_cell(
    cell: EvaluationCell, *, data_root: Path, checkpoints: Path, device: str, progress: Progress, unfinished: Path
) -> tuple[EvaluationRecord, pd.DataFrame, Adversarials | None]:
    """Returns the record of a cell, its sample table and its certificates.

    Args:
        cell: What to evaluate.
        data_root: The data folder.
        checkpoints: Local folder of weights; those of the repository come first.
        device: Torch device.
        progress: Told the share that is done, and what is running.
        unfinished: Folder that keeps what the cell has done until it has a record.

    Raises:
        CheckpointError: Weights are absent, refused or damaged.
        DataError: The data cannot be read.
        ViolatedCertificateError: An attack found less than the defense's certificate proves.
    """
    dataset = load_dataset(cell.dataset, data_root)
    entry, protocol = DEFENSES[cell.defense], PROTOCOLS[cell.protocol]
    model, info = defended_model(entry, dataset.spec, cell.training_seed, checkpoints)
    subject = Subject(
        model=model.to(device),
        task=task_for(dataset.spec, detects=entry.detects),
        spec=dataset.spec,
        randomness=entry.randomness,
        twin=twin_of(entry, _twin(cell, dataset, checkpoints, device)) if Need.TWIN in protocol.needs else None,
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
    journal = JournalFolder(unfinished, _circumstances(cell, identity, device))
    told = {"device": device, "progress": progress, "journal": journal}
    record, samples, adversarials = assess(subject, batch, protocol, identity, **told)
    return *with_certificates(entry, model, batch.to(device), record, samples), adversarials


@lru_cache(maxsize=2)
def load_dataset(name: str, data_root: Path) -> Dataset:
    """Returns a data set; the last two stay in memory."""
    return DATASETS[name].load(data_root)


def _twin(cell: EvaluationCell, dataset: Dataset, checkpoints: Path, device: str) -> nn.Module | None:
    """Returns the undefended model of the same data set and seed; none for the undefended model itself."""
    if cell.defense == TWIN:
        return None
    return defended_model(DEFENSES[TWIN], dataset.spec, cell.training_seed, checkpoints)[0].to(device)


def _circumstances(cell: EvaluationCell, identity: Identity, device: str) -> dict[str, object]:
    """Returns what the steps of a cell depend on beside its key."""
    found = ((DATASETS, cell.dataset), (DEFENSES, cell.defense), (PROTOCOLS, cell.protocol))
    entries = [Path(registry.origin(name).rpartition(":")[0]) for registry, name in found]
    return {
        "data": identity.data_sha256,
        "weights": identity.checkpoint.sha256,
        "device": device_name(device),
        "packages": package_versions(),
        "sources": sources_sha256(entries),
    }


def _checkpoint(info: CheckpointInfo) -> Checkpoint:
    return Checkpoint(
        sha256=info.sha256, seed=info.seed, files=tuple(path.name for path in info.files), card=dict(info.card)
    )
