"""Where the files of data sets lie: the data folder of this machine, and a data set's file below it."""

from __future__ import annotations

import os
from pathlib import Path

from registry import DatasetSpec, Source
from registry.errors import DataMissingError

VARIABLE = "MEDROBUST_DATA"
"""Environment variable that names the data folder."""


def data_root(given: str | Path | None) -> Path:
    """Returns the data folder: the given one, else that of MEDROBUST_DATA, else the user's data folder."""
    if given is not None:
        return Path(given).expanduser()
    if os.environ.get(VARIABLE):
        return Path(os.environ[VARIABLE]).expanduser()
    import platformdirs

    return platformdirs.user_data_path("medrobustbench") / "data"


def find_file(source: Source, name: str, root: Path) -> Path | None:
    """Returns the file of a data set, or None where it is not there.

    Args:
        source: The file, e.g. "breastmnist/breastmnist.npz".
        name: Name of the data set; a folder of this name is looked into as well.
        root: The data folder; files may lie in folders of their own, or side by side as the medmnist package puts them.
    """
    return next((path for path in candidates(source, name, root) if path.is_file()), None)


def candidates(source: Source, name: str, root: Path) -> tuple[Path, ...]:
    """Returns the paths at which the file of a data set is looked for, in this order."""
    filename = Path(source.filename)
    return tuple(dict.fromkeys((root / filename, root / filename.name, root / name / filename.name)))


def require_file(spec: DatasetSpec, root: Path) -> Path:
    """Returns the file of a data set.

    Raises:
        DataMissingError: It is not in the data folder; the text names the places looked at and the remedy.
    """
    path = find_file(spec.source, spec.name, root)
    if path is None:
        places = ", ".join(str(place) for place in candidates(spec.source, spec.name, root))
        raise DataMissingError(f"data set {spec.name} is not here, looked for {places}; {remedy(spec)}")
    return path


def remedy(spec: DatasetSpec) -> str:
    """Returns what a user does to get the file of a data set."""
    if spec.source.urls:
        return f"get it with: python -m benchmark data download {spec.name}"
    return spec.source.how or f"put {spec.source.filename} into the data folder; see {spec.homepage}"
