"""Where the data sets lie on this machine, and which of them are there."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from datasets.locate import data_root, find_file
from registry import DatasetSpec

__all__ = ["data_root", "present_datasets"]


def present_datasets(specs: Iterable[DatasetSpec], root: Path) -> frozenset[str]:
    """Returns the names of the data sets that are generated or whose file is in the data folder."""
    return frozenset(
        spec.name for spec in specs if spec.embedded or find_file(spec.source, spec.name, root) is not None
    )
