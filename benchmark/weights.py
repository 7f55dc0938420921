"""Which weights are present for a cell, without building a model."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

from benchmark.cells import EvaluationCell, TrainingCell
from benchmark.obstacles import base_chain, needs_weights
from defenses import checkpoints
from registry import DATASETS, DEFENSES, DefenseEntry
from registry.errors import CheckpointError


def checkpoints_folder(results: Path) -> Path:
    """Returns where the weights trained for a results folder lie; git ignores it.

    It lies deeper than records do, so that the cards beside the weights are not taken for records.
    """
    return results / "checkpoints" / "trained"


def is_trained(cell: TrainingCell, folder: Path) -> bool:
    """Returns whether the weights of a training are present, or released for download."""
    entry = DEFENSES[cell.defense]
    released = any((c.dataset, c.seed) == (cell.dataset, cell.seed) for c in entry.checkpoints)
    return released or current_weights(entry, cell.dataset, cell.seed, folder) is not None


def weights_sha256(cell: EvaluationCell, folder: Path) -> str | None:
    """Returns the checksum that a record of this cell would name, or None where weights are not all present.

    One file: its sha256. A chain of bases: sha256 of the joined checksums, the innermost base first, as in
    `defenses.build.defended_model`.
    """
    digests = []
    for entry in reversed(base_chain(DEFENSES[cell.defense], DEFENSES)):
        if not needs_weights(entry):
            continue
        path = current_weights(entry, cell.dataset, cell.training_seed, folder)
        if path is None:
            return None
        digests.append(_sha256(path, path.stat().st_mtime_ns))
    return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()


def current_weights(entry: DefenseEntry, dataset: str, seed: int, folder: Path) -> Path | None:
    """Returns the weight file of a defense, or None where it is absent or of an older revision."""
    revisions = (entry.revision, DATASETS[dataset].revision)
    path = checkpoints.find(entry.name, dataset, seed, folder, revisions=revisions)
    if path is None:
        return None
    try:
        card = checkpoints.read_card(path)
    except CheckpointError:
        return None
    return path if not card or (card.get("defense_revision"), card.get("dataset_revision")) == revisions else None


@cache
def _sha256(path: Path, changed: int) -> str:
    """Returns the checksum of a file; `changed` makes a rewritten file another question."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
