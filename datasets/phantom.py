"""Generated data sets for every task: no file, one seeded generator, each sample independent of the others."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from datasets.batch import Dataset, Split
from datasets.phantom_image import MODALITIES
from datasets.phantom_scene import Scene, Signs, draw_scene
from registry import SPLITS, DatasetSpec
from registry.errors import InvalidEntryError

BENIGN = Signs(spiculated=False, heterogeneous=False)
MALIGNANT = Signs(spiculated=True, heterogeneous=True)
SIGNS: Mapping[int, tuple[Signs, ...]] = {
    2: (BENIGN, MALIGNANT),
    4: tuple(Signs(spiculated=s, heterogeneous=h) for s in (False, True) for h in (False, True)),
}
"""Visible signs of each class, by the number of classes."""
VISIBILITY: Mapping[str, float] = {"classification": 1.0, "multimodal": 1.0}
"""Visibility of the lesion by task, else `FAINT`."""
FAINT = 0.5
"""Where a lesion must be found rather than named it is faint: otherwise its grey levels alone would give it away."""


def _label(scenes: list[Scene]) -> dict[str, np.ndarray]:
    return {"label": np.array([scene.label for scene in scenes], dtype=np.int64)}


def _mask(scenes: list[Scene]) -> dict[str, np.ndarray]:
    return {"mask": np.stack([scene.mask() for scene in scenes])}


def _points(scenes: list[Scene]) -> dict[str, np.ndarray]:
    return {"points": np.stack([scene.points() for scene in scenes])}


def _boxes(scenes: list[Scene]) -> dict[str, np.ndarray]:
    return {
        "boxes": np.stack([scene.box()[None] for scene in scenes]),
        "classes": np.array([[scene.label] for scene in scenes], dtype=np.int64),
        "valid": np.ones((len(scenes), 1), dtype=bool),
    }


TARGETS: Mapping[str, Callable[[list[Scene]], dict[str, np.ndarray]]] = {
    "classification": _label,
    "segmentation": _mask,
    "landmark": _points,
    "detection": _boxes,
    "multimodal": _label,
}
"""What each task reads from the scenes."""


def read(spec: DatasetSpec, root: Path) -> Dataset:
    """Generates a phantom data set.

    Args:
        spec: Its name seeds the scenes; its task chooses the targets, its modalities the images.
        root: Not used: there is no file.

    Raises:
        InvalidEntryError: The spec asks for something the phantom cannot draw.
    """
    _check(spec)
    splits = {name: _split(spec, name) for name in SPLITS}
    return Dataset(spec=spec, splits=splits, sha256=checksum(splits))


def scene(spec: DatasetSpec, split: str, index: int) -> Scene:
    """Returns the scene behind one sample, a function of (data set name, split, index) alone."""
    signs = SIGNS[_kinds(spec)]
    label = index % len(signs)
    name = int.from_bytes(hashlib.sha256(spec.name.encode()).digest()[:8], "big")
    return draw_scene(
        size=spec.input_shape[-1],
        label=label,
        signs=signs[label],
        visibility=VISIBILITY.get(spec.task, FAINT),
        seed=(name, SPLITS.index(split), index),
    )


def checksum(splits: Mapping[str, Split]) -> str:
    """Returns the SHA-256 of all images and targets, in the order of the splits and of the targets' names."""
    digest = hashlib.sha256()
    for name in SPLITS:
        split = splits[name]
        for array in (split.images, *(split.targets[key] for key in sorted(split.targets))):
            digest.update(f"{array.shape}{array.dtype.newbyteorder('<').str}".encode())
            digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _split(spec: DatasetSpec, name: str) -> Split:
    scenes = [scene(spec, name, index) for index in range(spec.splits[name])]
    images = np.stack([[draw(s)[None] for draw in MODALITIES[: len(spec.modalities)]] for s in scenes])
    if len(spec.modalities) == 1:
        images = images[:, 0]
    return Split(images=images, targets=TARGETS[spec.task](scenes))


def _kinds(spec: DatasetSpec) -> int:
    """Returns how many kinds of lesion there are: the classes where they are lesions, else two."""
    return spec.n_classes if spec.task in ("classification", "detection", "multimodal") else 2


def _check(spec: DatasetSpec) -> None:
    if spec.task not in TARGETS:
        raise InvalidEntryError(
            f"data set {spec.name}: the phantom knows the tasks {', '.join(TARGETS)}, got {spec.task}"
        )
    if _kinds(spec) not in SIGNS:
        raise InvalidEntryError(f"data set {spec.name}: the phantom has 2 or 4 classes, got {spec.n_classes}")
    channels, height, width = spec.input_shape[-3:]
    if channels != 1 or height != width or height < 24:
        raise InvalidEntryError(
            f"data set {spec.name}: the phantom draws square grey images of 24 pixels or more, got {spec.input_shape}"
        )
    if len(spec.modalities) > len(MODALITIES):
        raise InvalidEntryError(
            f"data set {spec.name}: the phantom has {len(MODALITIES)} modalities, got {len(spec.modalities)}"
        )
