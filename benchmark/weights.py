"""Which weights are present for a cell, without building a model."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from benchmark.cells import EvaluationCell, TrainingCell
from benchmark.obstacles import base_chain, needs_weights
from defenses import checkpoints
from defenses.cards import outdated
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
    """Returns the weight file of a defense, or None where it is absent or outdated, see `defenses.cards.outdated`."""

    def is_current(card: Mapping[str, object]) -> bool:
        return not outdated(card, entry, DATASETS[dataset])

    path = checkpoints.find(entry.name, dataset, seed, folder, is_current=is_current)
    if path is None:
        return None
    try:
        return path if is_current(checkpoints.read_card(path)) else None
    except CheckpointError:
        return None


@cache
def _sha256(path: Path, changed: int) -> str:
    """Returns the checksum of a file; `changed` makes a rewritten file another question."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
