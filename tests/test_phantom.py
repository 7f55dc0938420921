"""The phantom: reproducible, independent samples, targets that describe the drawn lesion, both cues present."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from datasets import phantom
from datasets.phantom_image import echo_image, stiffness_image
from datasets.phantom_scene import ATYPICAL, GRAINS
from registry import DATASETS, load_entries
from registry.errors import InvalidEntryError

load_entries()
NAMES = ("phantom2", "phantom4", "phantomseg")
CHECKSUMS = {
    "phantom2": "aa6075f4be6c59ff0d0c67d7af9eac33d4d7c78ea61c159e556d86a680ef861f",
    "phantom4": "c827e8885a64dbac5ca11e79fae8828e52341563e9aaede291dff7b11ef41de4",
    "phantomseg": "f5a610ed491b48db46bb48b102d10c526cf8bb5c0c99a3b2e5cfa278e6f46303",
}


def spec_for(name="phantom2", **changes):
    changes.setdefault("splits", {"train": 12, "val": 4, "test": 8})
    return dataclasses.replace(DATASETS[name], **changes)


def lesions(n=40):
    spec = spec_for("phantomseg")
    return [phantom.scene(spec, "train", index) for index in range(n)]


@pytest.fixture(scope="module", params=NAMES)
def dataset(request):
    return DATASETS[request.param].load(Path("unused"))


def test_pixels_and_targets_are_those_of_the_revision(dataset):
    expected = CHECKSUMS[dataset.spec.name]
    assert dataset.sha256 == expected, (
        f"the data of {dataset.spec.name} changed: raise its revision, then this checksum"
    )


def test_shapes_and_ranges(dataset):
    for name, n in dataset.spec.splits.items():
        split = dataset.splits[name]
        assert split.images.shape == (n, *dataset.spec.input_shape)
        assert split.images.dtype == np.uint8
        (target,) = split.targets.values()
        assert len(target) == n
        assert set(np.unique(target)) == set(range(dataset.spec.n_classes))
    assert 60 < dataset.splits["train"].images.mean() < 160


def test_the_checksum_follows_pixels_and_targets():
    data = spec_for().load(Path("unused"))
    changed = dict(data.splits)
    images = changed["test"].images.copy()
    images[3, 0, 5, 5] ^= 1
    changed["test"] = dataclasses.replace(changed["test"], images=images)
    assert phantom.checksum(changed) != data.sha256
    labels = {"label": 1 - data.splits["test"].targets["label"]}
    changed["test"] = dataclasses.replace(data.splits["test"], targets=labels)
    assert phantom.checksum(changed) != data.sha256


def test_a_sample_does_not_depend_on_how_many_are_drawn():
    few = spec_for().load(Path("unused"))
    more = spec_for(splits={"train": 20, "val": 6, "test": 9}).load(Path("unused"))
    for name in few.splits:
        n = len(few.splits[name])
        assert np.array_equal(few.splits[name].images, more.splits[name].images[:n])


def test_names_and_splits_give_other_samples():
    one, other = spec_for().load(Path("unused")), dataclasses.replace(spec_for(), name="phantomx").load(Path("unused"))
    first = [one.splits["train"].images[0], one.splits["test"].images[0], other.splits["train"].images[0]]
    assert not np.array_equal(first[0], first[1])
    assert not np.array_equal(first[0], first[2])


def test_signs_agree_with_the_class_but_not_always():
    spec = spec_for()
    typical = [
        phantom.scene(spec, "train", i).signs == phantom.SIGNS[2][phantom.scene(spec, "train", i).label]
        for i in range(300)
    ]
    assert np.mean(typical) == pytest.approx(1 - ATYPICAL, abs=0.06)


def test_grain_tells_the_class_and_is_small():
    spec = spec_for()
    assert len({tuple(sorted(grain)) for grain in GRAINS[2:]}) == len(GRAINS[2:])
    right = []
    for index in range(60):
        scene = phantom.scene(spec, "train", index)
        patch = np.where(scene.mask() > 0, echo_image(scene).astype(float), 0)
        along_x, along_y = np.abs(np.diff(patch, n=2, axis=1)), np.abs(np.diff(patch, n=2, axis=0))
        inside = scene.depth()[1:-1, 1:-1] > 2
        right.append((along_x[1:-1][inside].mean() < along_y[:, 1:-1][inside].mean()) == bool(scene.label))
    assert np.mean(right) > 0.9


def test_masks_points_and_boxes_describe_one_lesion():
    for scene in lesions():
        rows, columns = np.nonzero(scene.mask())
        left, top, right, low = scene.box()
        assert 0 <= left < right <= scene.size - 1
        assert 0 <= top < low <= scene.size - 1
        extent = (columns.min(), rows.min(), columns.max(), rows.max())
        assert np.abs(np.array(extent) - scene.box()).max() <= 2.5  # thin tips fall between pixels
        assert scene.points()[:, 0].min() == scene.points()[0, 0] == pytest.approx(left)
        assert scene.points()[:, 1].min() == scene.points()[1, 1] == pytest.approx(top)
        assert scene.points()[2, 0] == pytest.approx(right)
        assert scene.points()[3, 1] == pytest.approx(low)


def test_the_lesion_is_darker_in_one_modality_and_brighter_in_the_other():
    for scene in lesions(20):
        inside, outside = scene.depth() > 1.5, scene.depth() < -3
        stiffness = stiffness_image(scene).astype(float)
        assert stiffness[inside].mean() > stiffness[outside].mean() + 5
    echoes = [echo_image(s)[s.depth() > 1.5].mean() - echo_image(s)[s.depth() < -3].mean() for s in lesions(20)]
    assert np.mean(echoes) < -10


@pytest.mark.parametrize(
    ("task", "changes", "shapes"),
    [
        ("landmark", {"class_names": ("left", "top", "right", "bottom")}, {"points": (12, 4, 2)}),
        ("detection", {}, {"boxes": (12, 1, 4), "classes": (12, 1), "valid": (12, 1)}),
        ("multimodal", {"input_shape": (2, 1, 28, 28), "modalities": ("echo", "stiffness")}, {"label": (12,)}),
    ],
)
def test_other_tasks_read_the_same_scenes(task, changes, shapes):
    spec = spec_for(task=task, **changes)
    train = spec.load(Path("unused")).splits["train"]
    assert train.images.shape == (12, *spec.input_shape)
    assert {name: values.shape for name, values in train.targets.items()} == shapes
    assert len(train.all()) == 12


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"task": "poetry"}, "knows the tasks"),
        ({"class_names": ("a", "b", "c")}, "2 or 4 classes, got 3"),
        ({"input_shape": (3, 28, 28)}, "square grey images"),
        ({"input_shape": (1, 28, 32)}, "square grey images"),
        ({"input_shape": (3, 1, 28, 28), "modalities": ("a", "b", "c")}, "2 modalities, got 3"),
    ],
)
def test_what_cannot_be_drawn_is_refused(changes, text):
    with pytest.raises(InvalidEntryError, match=text):
        spec_for(**changes).load(Path("unused"))
