"""The packed file of a data set: written whole or not at all, and only where it is the registered one."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from datasets.file_check import check_file
from registry import DatasetSpec
from registry.errors import DataMissingError

REMEDY = (
    "the originals, or the versions of NumPy, Pillow and zlib, are not those that the registered file was packed with"
)


def write_packed(arrays: Mapping[str, np.ndarray], spec: DatasetSpec, root: Path) -> Path:
    """Writes the file of a data set and returns its path.

    Args:
        arrays: By name, in the order in which the file holds them.
        spec: Names the file, its size and its checksums.
        root: The data folder.

    Raises:
        DataDamagedError: What was packed is not the registered file; nothing is left.
        OSError: The folder cannot be written.
    """
    path = root / spec.source.filename
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".packing-") as folder:
        packed = Path(folder) / path.name
        np.savez_compressed(packed, **arrays)
        check_file(packed, spec.source, REMEDY)
        packed.replace(path)
    return path


def require_original(path: Path, what: str) -> Path:
    """Returns the path of an original.

    Raises:
        DataMissingError: It is not there; the text says what belongs there.
    """
    if not path.is_file():
        raise DataMissingError(f"{path} is not there: put {what} there, then run the command again")
    return path


def cut(n: int, *shares: float) -> list[int]:
    """Returns where a list of n is cut so that its parts hold these shares, each place rounded.

    Example:
        >>> cut(106, 0.6, 0.1)
        [64, 74]
    """
    return [round(n * share) for share in np.cumsum(shares)]
