"""Every embedded data set, and every real one that is in the data folder, is what its entry says."""

import hashlib
from itertools import combinations

import numpy as np
import pytest

from datasets.locate import data_root, find_file
from datasets.tasks.base import task_for
from registry import DATASETS, SPLITS, load_entries

load_entries()
SMALL = 64 << 20
"""Bytes of the largest file that is read here."""


def _concerned(spec) -> bool:
    """Returns whether a data set is tested, or seen to be skipped; absent large versions are left out in silence."""
    large = spec.reader == "datasets.medmnist_npz:read" and spec.input_shape[-1] > 28
    return spec.embedded or not large or find_file(spec.source, spec.name, data_root(None)) is not None


@pytest.fixture(scope="module", params=[spec.name for spec in DATASETS if _concerned(spec)])
def dataset(request):
    spec, root = DATASETS[request.param], data_root(None)
    if not spec.embedded:
        path = find_file(spec.source, spec.name, root)
        if path is None:
            pytest.skip(f"{spec.source.filename} is not in the data folder (MEDROBUST_DATA)")
        if path.stat().st_size > SMALL:
            pytest.skip(f"{spec.source.filename} is larger than {SMALL >> 20} MiB")
    return spec.load(root)


def hashes(split) -> list[bytes]:
    return [hashlib.sha256(np.ascontiguousarray(image).tobytes()).digest() for image in split.images]


def test_split_sizes_and_shapes(dataset):
    assert {name: len(split) for name, split in dataset.splits.items()} == dict(dataset.spec.splits)
    for split in dataset.splits.values():
        assert split.images.shape[1:] == dataset.spec.input_shape
        assert all(len(values) == len(split) for values in split.targets.values())


def test_targets_are_what_the_task_scores(dataset):
    task = task_for(dataset.spec)
    for split in dataset.splits.values():
        task.check_targets(split.all())


def test_images_lie_between_0_and_1_and_are_not_blank(dataset):
    for split in dataset.splits.values():
        inputs = split.take(range(min(64, len(split)))).inputs
        assert inputs.min() >= 0 and inputs.max() <= 1
        assert (inputs.flatten(1).std(1) > 0).all()


def test_no_image_is_in_two_splits_beyond_the_stated_ones(dataset):
    known = {name: set(hashes(split)) for name, split in dataset.splits.items()}
    shared = {f"{a}/{b}": len(known[a] & known[b]) for a, b in combinations(SPLITS, 2)}
    assert {pair: count for pair, count in shared.items() if count} == dict(dataset.spec.shared_images)


def test_no_group_is_in_two_splits(dataset):
    groups = [set(split.groups.tolist()) for split in dataset.splits.values() if split.groups is not None]
    if "lesion" in dataset.spec.split_rule.split(",")[0] or "volume" in dataset.spec.split_rule.split(",")[0]:
        assert len(groups) == len(SPLITS)
    for a, b in combinations(groups, 2):
        assert not a & b


def test_stated_confusions_are_between_classes(dataset):
    for confusion in dataset.spec.harmful_confusions:
        assert confusion.true != confusion.predicted
        assert {confusion.true, confusion.predicted} <= set(range(dataset.spec.n_classes))


def test_the_checksum_is_that_of_the_file(dataset):
    assert len(dataset.sha256) == 64
    if not dataset.spec.embedded:
        path = find_file(dataset.spec.source, dataset.spec.name, data_root(None))
        assert hashlib.sha256(path.read_bytes()).hexdigest() == dataset.sha256
