"""Reads data sets that were packed into one npz file: `<split>_images` with `<split>_labels` or `<split>_masks`."""

from __future__ import annotations

from pathlib import Path

from datasets.batch import Dataset, Split
from datasets.file_check import check_file
from datasets.locate import remedy, require_file
from datasets.npz_arrays import NpzArrays
from registry import SPLITS, DatasetSpec
from registry.errors import InvalidEntryError

GROUPS = ("patient", "volume", "lesion")
"""Arrays `<split>_<group>` (N,) that name what no two splits may share; the first one present is taken."""


def read(spec: DatasetSpec, root: Path) -> Dataset:
    """Reads a packed data set.

    The file holds, for each of train, val and test, `<split>_images` uint8 (N, H, W) or (N, H, W, 3), and by task
    `<split>_labels` (N, 1) for classification or `<split>_masks` (N, H, W) for segmentation, of whole numbers;
    other arrays are not read, apart from groups.

    Args:
        spec: Its `source` is the file, its shape, classes and splits are what the arrays must be.
        root: The data folder.

    Raises:
        DataMissingError: The file is not there.
        DataDamagedError: The file is truncated, altered, or has other arrays.
        InvalidEntryError: The task is neither classification with one label nor segmentation.
    """
    if spec.task not in ("classification", "segmentation") or spec.multi_label:
        raise InvalidEntryError(
            f"data set {spec.name}: a packed npz file holds one label a sample or masks; "
            f"write a reader of its own for {'several labels' if spec.multi_label else spec.task}"
        )
    path = require_file(spec, root)
    hint = f"delete it, then {remedy(spec)}"
    sha256 = check_file(path, spec.source, hint)
    with NpzArrays(path, spec, sha256, hint) as arrays:
        splits = {name: _split(spec, arrays, name) for name in SPLITS}
    return Dataset(spec=spec, splits=splits, sha256=sha256)


def _split(spec: DatasetSpec, arrays: NpzArrays, name: str) -> Split:
    target = {"mask": arrays.mask(name)} if spec.task == "segmentation" else {"label": arrays.label(name)}
    return Split(images=arrays.images(name), targets=target, groups=arrays.groups(name, GROUPS))
