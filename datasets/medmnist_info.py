"""The 2D data sets of MedMNIST as the installed medmnist package lists them, read without importing it.

Importing medmnist imports torch and writes to the home folder; its list is a literal, which is parsed and never run.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

from datasets.medmnist_facts import CITATIONS, HARMFUL, NOTES, RANKED_LEVELS, SHARED_IMAGES, SIDED, SPLIT_RULES
from registry import SPLITS, DatasetSpec, Source, linf
from registry.errors import DataMissingError

SIZES = (28, 64, 128, 224)
"""Edges in pixels; names and files of the first carry no number."""

INSTALL = "install it with: python -m pip install -r requirements.txt"


def specs() -> tuple[DatasetSpec, ...]:
    """Returns the 2D data sets at 28, 64, 128 and 224 pixels, e.g. "breastmnist" and "breastmnist_64".

    Raises:
        DataMissingError: The medmnist package is not installed, or is of a version without this list.
    """
    info = read_info(info_file())
    return tuple(_spec(name, info[name], size) for name in CITATIONS for size in SIZES)


def info_file() -> Path:
    """Returns info.py of the installed medmnist package.

    Raises:
        DataMissingError: It is not installed.
    """
    found = PathFinder.find_spec("medmnist")  # looks along sys.path, imports nothing
    if found is None or not found.submodule_search_locations:
        raise DataMissingError(f"the medmnist package, which lists the MedMNIST data sets, is not installed; {INSTALL}")
    return Path(found.submodule_search_locations[0]) / "info.py"


def read_info(path: Path) -> Mapping[str, Mapping[str, Any]]:
    """Returns the literal assigned to INFO in a Python file, by name of the data set.

    Raises:
        DataMissingError: The file is not there, or has no such literal, or lacks one of the 2D data sets.
    """
    try:
        assigned = [
            node.value
            for node in ast.parse(path.read_text(encoding="utf-8")).body
            if isinstance(node, ast.Assign) and [getattr(t, "id", None) for t in node.targets] == ["INFO"]
        ]
        info = ast.literal_eval(assigned[-1])
    except (OSError, SyntaxError, ValueError, IndexError) as error:
        raise DataMissingError(
            f"expected a list of the MedMNIST data sets named INFO in {path}, found none ({error}); {INSTALL}"
        ) from None
    absent = sorted(CITATIONS.keys() - info.keys())
    if absent:
        raise DataMissingError(f"{path} does not list {', '.join(absent)}; {INSTALL}")
    return info


def _spec(name: str, info: Mapping[str, Any], size: int) -> DatasetSpec:
    suffix = "" if size == SIZES[0] else f"_{size}"
    ordinal, several = info["task"] == "ordinal-regression", info["task"].startswith("multi-label")
    classes = [info["label"][str(index)] for index in range(len(info["label"]))]
    return DatasetSpec(
        name=f"{name}{suffix}",
        title=info["python_class"] + (f", {size} px" if suffix else ""),
        task="classification",
        input_shape=(info["n_channels"], size, size),
        class_names=tuple(f"grade {label}" if ordinal else label for label in classes),
        splits={split: info["n_samples"][split] for split in SPLITS},
        license=info["license"],
        citation=f"Yang et al. 2023, MedMNIST v2, Scientific Data 10:41; images: {CITATIONS[name]}",
        reader="datasets.medmnist_npz:read",
        source=Source(filename=f"{name}/{name}{suffix}.npz", md5=info[f"MD5{suffix}"], urls=(info[f"url{suffix}"],)),
        homepage="https://medmnist.com",
        multi_label=several,
        revision=2 if several else 1,  # since 2 labels have weights
        harmful_confusions=HARMFUL.get(name, ()),
        split_rule=SPLIT_RULES.get(name, "as published, by image 7:1:2"),
        ranked_budget=linf((4 if suffix else RANKED_LEVELS.get(name, 4)) / 255),
        shared_images={} if suffix else SHARED_IMAGES.get(name, {}),
        mirrors=name not in SIDED,
        notes=NOTES.get(name, ""),
    )
