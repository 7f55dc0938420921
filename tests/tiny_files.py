"""Small npz files with the layout of published data sets, and specs that describe them."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path

import numpy as np

from registry import SPLITS, DatasetSpec, Source

COUNTS = {"train": 6, "val": 3, "test": 4}


def tiny_spec(reader: str, **changes: object) -> DatasetSpec:
    """Returns the spec of a three-class data set of 13 images, without published checksums."""
    values = {
        "name": "tiny",
        "title": "Tiny",
        "task": "classification",
        "input_shape": (1, 8, 8),
        "class_names": ("a", "b", "c"),
        "splits": COUNTS,
        "license": "none",
        "citation": "none",
        "reader": reader,
        "source": Source(filename="tiny/tiny.npz", how="ask the owner for tiny.npz"),
    }
    return DatasetSpec(**(values | changes))


def tiny_arrays(spec: DatasetSpec) -> dict[str, np.ndarray]:
    """Returns arrays as the spec says, under the names that both readers know."""
    rng = np.random.default_rng(0)
    channels, height, width = spec.input_shape
    arrays = {}
    for split in SPLITS:
        n = spec.splits[split]
        shape = (n, height, width) if channels == 1 else (n, height, width, channels)
        arrays[f"{split}_images"] = rng.integers(0, 256, shape, dtype=np.uint8)
        if spec.task == "segmentation":
            arrays[f"{split}_masks"] = rng.integers(0, spec.n_classes, (n, height, width), dtype=np.uint8)
        elif spec.multi_label:
            arrays[f"{split}_labels"] = rng.integers(0, 2, (n, spec.n_classes), dtype=np.uint8)
        else:
            arrays[f"{split}_labels"] = (np.arange(n, dtype=np.uint8) % spec.n_classes)[:, None]
    return arrays


def write(root: Path, spec: DatasetSpec, arrays: dict[str, np.ndarray]) -> Path:
    """Writes the arrays to the file of the spec below the data folder."""
    path = root / spec.source.filename
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, **arrays)
    return path


def published(spec: DatasetSpec, path: Path) -> DatasetSpec:
    """Returns the spec with the size and MD5 of a file as published ones."""
    content = path.read_bytes()
    source = dataclasses.replace(spec.source, md5=hashlib.md5(content).hexdigest(), size=len(content))
    return dataclasses.replace(spec, source=source)
