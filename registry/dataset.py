"""What a data set is: its task, shape, classes, splits, licence and source, without reading a byte of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from registry.errors import InvalidEntryError
from registry.lazy import Reference, reference_name, resolve
from registry.threat_model import Budget, linf

if TYPE_CHECKING:
    from datasets.batch import Dataset

SPLITS = ("train", "val", "test")


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """The one file a data set is read from."""

    filename: str
    """Path below the data folder, e.g. "breastmnist/breastmnist.npz"."""
    md5: str | None = None
    """Published checksum; None where none is published."""
    sha256: str | None = None
    """Checksum, preferred over MD5 where both are known."""
    size: int | None = None
    """Size in bytes."""
    urls: tuple[str, ...] = ()
    """Download addresses in the order to try; empty where the file cannot be downloaded directly."""
    how: str = ""
    """What to do where there is no address: where to ask, which command prepares the file."""


@dataclass(frozen=True, kw_only=True, slots=True)
class HarmfulConfusion:
    """A mistake that harms a patient more than another, e.g. malignant called benign."""

    true: int
    """Index of the true class."""
    predicted: int
    """Index of the predicted class."""
    title: str
    """How people call it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DatasetSpec:
    """A data set as the registry knows it."""

    name: str
    """Unique lower-case name, e.g. "breastmnist"; the entry's file carries it."""
    title: str
    """Name for people."""
    task: str
    """Name of the task, see `registry.TASKS`."""
    input_shape: tuple[int, ...]
    """(C, H, W); several modalities: (M, C, H, W)."""
    class_names: tuple[str, ...]
    """Classes in the order of their indices; segmentation: index 0 is the background; landmarks: their names."""
    splits: Mapping[str, int]
    """Number of samples of train, val and test."""
    license: str
    """Licence of the data, as published."""
    citation: str
    """Whom to cite."""
    reader: Reference
    """Reader `read(spec, root: Path) -> Dataset`."""
    source: Source | None = None
    """The file; None for generated data."""
    homepage: str = ""
    """Address of the publisher."""
    modalities: tuple[str, ...] = ("image",)
    """Names of the modalities, in the order of axis M."""
    multi_label: bool = False
    """Several labels may hold at once; targets are (N, L) of 0 and 1."""
    pixel_spacing_mm: float | None = None
    """Edge of a pixel in mm, where it is known."""
    harmful_confusions: tuple[HarmfulConfusion, ...] = ()
    """Mistakes that are counted on their own."""
    ranked_budget: Budget = field(default_factory=lambda: linf(4 / 255))
    """Budget of the ranked board, fixed before any defense is evaluated."""
    split_rule: str = "as published"
    """How the splits came about: as published, or by patient, volume or lesion."""
    shared_images: Mapping[str, int] = field(default_factory=dict)
    """Published exceptions: number of images that are pixel-identical in two splits, e.g. {"train/val": 8}."""
    mirrors: bool = True
    """Whether an image mirrored left to right keeps its label; it does not where a class is a side of the body."""
    notes: str = ""
    """What is dubious about the data."""
    revision: int = 1
    """Raised when the pixels, targets or splits change."""

    def __post_init__(self) -> None:
        if self.name != self.name.lower():
            raise InvalidEntryError(f"a data set's name is lower case, got {self.name!r}")
        if set(self.splits) != set(SPLITS):
            raise InvalidEntryError(f"data set {self.name}: splits must be {SPLITS}, got {tuple(self.splits)}")
        if len(self.input_shape) not in (3, 4):
            raise InvalidEntryError(
                f"data set {self.name}: input_shape is (C, H, W) or (M, C, H, W), got {self.input_shape}"
            )
        several = len(self.input_shape) == 4
        if several != (len(self.modalities) > 1) or (several and self.input_shape[0] != len(self.modalities)):
            raise InvalidEntryError(
                f"data set {self.name}: input_shape {self.input_shape} does not fit modalities {self.modalities}"
            )

    @property
    def n_classes(self) -> int:
        """Number of classes (segmentation: with background; landmark: number of points)."""
        return len(self.class_names)

    @property
    def embedded(self) -> bool:
        """Whether the data are generated and need no file."""
        return self.source is None

    def load(self, root: Path) -> Dataset:
        """Reads the data set.

        Args:
            root: The data folder.

        Raises:
            DataMissingError: Its file is not there; the text says how to get it.
            DataDamagedError: Its file is not what was published.
        """
        return resolve(self.reader)(self, root)

    def card(self) -> dict[str, object]:
        """Returns the JSON form that records carry."""
        return {
            "name": self.name,
            "title": self.title,
            "task": self.task,
            "input_shape": list(self.input_shape),
            "modalities": list(self.modalities),
            "class_names": list(self.class_names),
            "splits": dict(self.splits),
            "multi_label": self.multi_label,
            "license": self.license,
            "citation": self.citation,
            "homepage": self.homepage,
            "split_rule": self.split_rule,
            "pixel_spacing_mm": self.pixel_spacing_mm,
            "harmful_confusions": [
                {"true": c.true, "predicted": c.predicted, "title": c.title} for c in self.harmful_confusions
            ],
            "ranked_budget": self.ranked_budget.card(),
            "reader": reference_name(self.reader),
            "notes": self.notes,
            "revision": self.revision,
        }
