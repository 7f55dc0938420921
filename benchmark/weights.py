"""Which weights are present for a cell, without building a model."""

from __future__ import annotations

from pathlib import Path

from benchmark.cells import EvaluationCell, TrainingCell
from benchmark.obstacles import base_chain, needs_weights
from defenses import checkpoints
from defenses.cards import joined, released, unfit
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
    if released(entry, cell.dataset, cell.seed) is not None:
        return True
    return current_weights(entry, cell.dataset, cell.seed, folder) is not None


def weights_sha256(cell: EvaluationCell, folder: Path) -> str | None:
    """Returns the checksum that a record of this cell would name, or None where weights are not all present.

    One file: its sha256. A chain of bases: sha256 of the joined checksums, the innermost base first, as in
    `defenses.build.defended_model`.
    """
    return _chain_sha256(DEFENSES[cell.defense], cell.dataset, cell.training_seed, folder)


def current_weights(entry: DefenseEntry, dataset: str, seed: int, folder: Path) -> Path | None:
    """Returns the weight file of a defense, or None where it is absent, outdated or damaged; `defenses.cards.unfit`.

    Weights that were trained around others than the present ones of their base are outdated, too.
    """
    below = None if entry.base is None else _chain_sha256(DEFENSES[entry.base], dataset, seed, folder)

    def is_current(path: Path) -> bool:
        return not unfit(path, entry, DATASETS[dataset], seed, below)

    path = checkpoints.find(entry.name, dataset, seed, folder, is_current=is_current)
    if path is None:
        return None
    try:
        return path if is_current(path) else None
    except CheckpointError:
        return None


def _chain_sha256(entry: DefenseEntry, dataset: str, seed: int, folder: Path) -> str | None:
    """Returns the checksum of the weights of a defense and its bases, or None where they are not all present."""
    digests = []
    for link in reversed(base_chain(entry, DEFENSES)):
        if not needs_weights(link):
            continue
        path = current_weights(link, dataset, seed, folder)
        if path is None:
            return None
        digests.append(checkpoints.file_sha256(path))
    return joined(digests)
