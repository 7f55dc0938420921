"""Packs `pathmnist_subset` from the published PathMNIST: its first thousand training images, split anew by class."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from datasets.download import verify
from datasets.prepare.packing import cut, write_packed
from registry import DATASETS, SPLITS, DatasetSpec

TAKEN = 1000


def prepare(spec: DatasetSpec, root: Path) -> Path:
    """Returns the packed file, made from pathmnist.npz in the data folder.

    Args:
        spec: The entry of `pathmnist_subset`.
        root: The data folder.

    Raises:
        DataMissingError: PathMNIST is not there; the text says how to get it.
        DataDamagedError: It is not the published file, or what was packed is not the registered one.
    """
    whole = DATASETS["pathmnist"]
    with np.load(verify(whole.source, root, whole.name), allow_pickle=False) as arrays:
        images, labels = arrays["train_images"][:TAKEN], arrays["train_labels"][:TAKEN]
    return write_packed(packed(images, labels), spec, root)


def packed(images: np.ndarray, labels: np.ndarray) -> Mapping[str, np.ndarray]:
    """Returns the arrays of the packed file: 60, 10 and 30 % of each class.

    Args:
        images: uint8 (N, 28, 28, 3).
        labels: uint8 (N, 1), 0 to 8.
    """
    rng, rows = np.random.RandomState(0), {split: [] for split in SPLITS}
    for label in np.unique(labels):
        of_class = rng.permutation(np.flatnonzero(labels[:, 0] == label))
        for split, part in zip(SPLITS, np.split(of_class, cut(len(of_class), 0.6, 0.1)), strict=True):
            rows[split].append(part)
    arrays = {}
    for split, parts in rows.items():
        chosen = np.sort(np.concatenate(parts))
        arrays[f"{split}_images"], arrays[f"{split}_labels"] = images[chosen], labels[chosen]
        arrays[f"{split}_source_index"] = chosen.astype(np.int32)
    return arrays
