"""One training cell: reads the data, trains by the entry's recipe, leaves the weights in a folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from benchmark.cells import TrainingCell
from defenses.train import train_defense
from registry import DATASETS, DEFENSES


def train_cell(
    cell: TrainingCell,
    *,
    data_root: Path,
    checkpoints: Path,
    device: str,
    progress: Callable[[float, str], None],
) -> Path:
    """Trains a defense and returns the path of its weights; the caller holds the claim on the cell.

    Args:
        cell: What to train.
        data_root: The data folder.
        checkpoints: Folder of this machine's weights.
        device: torch name of the device.
        progress: Told the finished share, 0 to 1, and what is done at the moment.

    Raises:
        DataError: The data set is absent or damaged.
        CheckpointError: The weights of its base are absent or damaged.
    """
    dataset = DATASETS[cell.dataset].load(data_root)
    return train_defense(
        DEFENSES[cell.defense], dataset, cell.seed, device=device, folder=checkpoints, progress=progress
    )
