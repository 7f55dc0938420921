"""Reads the 2D data sets of MedMNIST at any resolution, straight from their npz files."""

from __future__ import annotations

from pathlib import Path

from datasets.batch import Dataset, Split
from datasets.file_check import check_file
from datasets.locate import remedy, require_file
from datasets.npz_arrays import NpzArrays
from datasets.tasks.classification import label_weights
from registry import SPLITS, DatasetSpec


def read(spec: DatasetSpec, root: Path) -> Dataset:
    """Reads a MedMNIST data set.

    Images of a split that need more than 256 MiB are unpacked once beside the file and memory-mapped, where the
    folder can be written; otherwise they are kept in memory as uint8.

    Args:
        spec: One of `datasets.medmnist_info.specs`. Several labels become float32 (N, L) and have weights, grades are
            plain classes.
        root: The data folder.

    Raises:
        DataMissingError: The file is not there.
        DataDamagedError: The file is truncated, a web page, has another checksum or other arrays.
    Source: Yang et al. 2023, Scientific Data 10:41; layout of the release Zenodo 10519652.
    """
    path = require_file(spec, root)
    hint = f"delete it, then {remedy(spec)}"
    sha256 = check_file(path, spec.source, hint)
    with NpzArrays(path, spec, sha256, hint) as arrays:
        splits = {name: _split(spec, arrays, name) for name in SPLITS}
    return Dataset(spec=spec, splits=splits, sha256=sha256)


def _split(spec: DatasetSpec, arrays: NpzArrays, name: str) -> Split:
    if not spec.multi_label:
        return Split(images=arrays.images(name), targets={"label": arrays.label(name)})
    labels = arrays.labels(name)
    return Split(images=arrays.images(name), targets={"labels": labels, "weights": label_weights(labels)})
