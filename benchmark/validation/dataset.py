"""The contract of a data set: its card, its arrays, its splits."""

from __future__ import annotations

import hashlib
from collections import Counter
from itertools import combinations
from pathlib import Path

import numpy as np

from benchmark.data_folder import data_root
from benchmark.validation.card import dataset_card_checks
from benchmark.validation.check import Check, Unmet, check
from datasets.batch import Dataset
from datasets.tasks.base import task_for
from registry import SPLITS, DatasetSpec


def dataset_checks(spec: DatasetSpec, root: Path | None) -> list[Check]:
    """Returns every verdict on a data set.

    Args:
        spec: The data set.
        root: The data folder; None for the default one.
    """
    checks, loaded = dataset_card_checks(spec), []
    reading = check("its file is there and can be read", lambda: loaded.append(spec.load(data_root(root))))
    checks.append(reading)
    if not reading.ok:
        return checks
    dataset: Dataset = loaded[0]
    return [
        *checks,
        check("every split has the stated number of samples", _counts, dataset),
        check("images have the stated shape, and uint8 or float32 in [0, 1]", _images, dataset),
        check("targets are what the task scores", _targets, dataset),
        check("every class occurs in train and test", _classes, dataset),
        check("no image is in two splits, apart from stated ones", _duplicates, dataset),
        check("no patient, volume or lesion is in two splits", _groups, dataset),
        check("reading it twice gives the same checksum", _again, spec, dataset, data_root(root)),
    ]


def _counts(dataset: Dataset) -> str:
    for name in SPLITS:
        if len(dataset.splits[name]) != dataset.spec.splits[name]:
            raise Unmet(f"{name} holds {len(dataset.splits[name])} samples, the entry says {dataset.spec.splits[name]}")
    return "/".join(str(len(dataset.splits[name])) for name in SPLITS)


def _images(dataset: Dataset) -> str:
    for name, split in dataset.splits.items():
        if split.images.shape[1:] != dataset.spec.input_shape:
            raise Unmet(f"{name} holds images of {split.images.shape[1:]}, the entry says {dataset.spec.input_shape}")
        if split.images.dtype == np.uint8:
            continue
        if split.images.dtype != np.float32:
            raise Unmet(f"{name} holds images of {split.images.dtype}; store uint8 or float32")
        if not np.isfinite(split.images).all() or split.images.min() < 0 or split.images.max() > 1:
            raise Unmet(f"{name} holds values outside [0, 1]; scale them in the reader")
    return str(dataset.splits["test"].images.dtype)


def _targets(dataset: Dataset) -> str:
    task = task_for(dataset.spec)
    for split in dataset.splits.values():
        task.check_targets(split.all())
    return ", ".join(dataset.splits["test"].targets)


def _classes(dataset: Dataset) -> str:
    names = dataset.spec.class_names
    for split_name in ("train", "test"):
        targets = dataset.splits[split_name].targets
        if "labels" in targets:
            seen = set(np.flatnonzero(targets["labels"].sum(0)))
        elif "label" in targets or "mask" in targets:
            seen = set(np.unique(targets.get("label", targets.get("mask"))).tolist())
        else:
            return "not counted for this task"
        absent = [names[index] for index in range(len(names)) if index not in seen]
        if absent:
            raise Unmet(f"{split_name} has no sample of {', '.join(absent)}; drop the class or mend the split")
    return f"{len(names)} classes"


def _duplicates(dataset: Dataset) -> str:
    digests = {
        name: Counter(hashlib.sha256(np.ascontiguousarray(image).tobytes()).digest() for image in split.images)
        for name, split in dataset.splits.items()
    }
    shared = {f"{a}/{b}": len(digests[a].keys() & digests[b].keys()) for a, b in combinations(SPLITS, 2)}
    stated = {pair: dataset.spec.shared_images.get(pair, 0) for pair in shared}
    for pair, number in shared.items():
        if number > stated[pair]:
            raise Unmet(f"{number} images are in {pair}, the entry states {stated[pair]} in shared_images")
    return ", ".join(f"{number} in {pair} as stated" for pair, number in stated.items() if number) or "none"


def _groups(dataset: Dataset) -> str:
    groups = {
        name: set(np.asarray(split.groups).tolist())
        for name, split in dataset.splits.items()
        if split.groups is not None
    }
    if not groups:
        return "groups are not known"
    for a, b in combinations(groups, 2):
        both = groups[a] & groups[b]
        if both:
            raise Unmet(f"{len(both)} groups are in {a} and {b}, e.g. {next(iter(both))}; split by group")
    return f"{sum(map(len, groups.values()))} groups"


def _again(spec: DatasetSpec, dataset: Dataset, root: Path) -> str:
    if spec.load(root).sha256 != dataset.sha256:
        raise Unmet("two readings differ; a generator must depend on its seed alone")
    return dataset.sha256[:16]
