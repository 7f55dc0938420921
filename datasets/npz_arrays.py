"""The arrays of a data set's npz file, each checked against the spec as it is read."""

from __future__ import annotations

import lzma
import tokenize
import zipfile
import zlib
from pathlib import Path

import numpy as np

from datasets.npz_unpack import LARGE, map_member
from registry import DatasetSpec
from registry.errors import DataDamagedError

UNREADABLE = (
    *(AttributeError, EOFError, LookupError, MemoryError, OSError, OverflowError, SyntaxError, TypeError, ValueError),
    RuntimeError,  # NotImplementedError and RecursionError are of this kind
    *(lzma.LZMAError, tokenize.TokenError, zipfile.BadZipFile, zlib.error),
)
"""What zipfile, numpy and their like raise on a torn or foreign file."""


class NpzArrays:
    """An open npz file with arrays named `<split>_<what>`; nothing in it is ever unpickled.

    Args:
        path: The file.
        spec: What its arrays must be.
        sha256: Checksum of the file; names the folder that large arrays are unpacked into.
        remedy: What to do where the file is not what was published, for error texts.
    """

    def __init__(self, path: Path, spec: DatasetSpec, sha256: str, remedy: str) -> None:
        self.path, self.spec, self.sha256, self.remedy = path, spec, sha256, remedy
        try:
            self._zip = zipfile.ZipFile(path)
        except UNREADABLE as error:
            raise self._damaged(f"it is not a whole npz file ({error})") from None
        self.names = tuple(name.removesuffix(".npy") for name in self._zip.namelist())

    def __enter__(self) -> NpzArrays:
        return self

    def __exit__(self, *exception: object) -> None:
        self._zip.close()

    def images(self, split: str) -> np.ndarray:
        """Returns the images of a split, uint8 (N, C, H, W); large ones are memory-mapped."""
        channels, height, width = self.spec.input_shape
        stored = (height, width) if channels == 1 else (height, width, channels)
        images = self._array(f"{split}_images", (self.spec.splits[split], *stored))
        if images.dtype != np.uint8:
            raise self._damaged(f"expected {split}_images of uint8, got {images.dtype}")
        return images[:, None] if channels == 1 else np.moveaxis(images, -1, 1)

    def label(self, split: str) -> np.ndarray:
        """Returns the class of each sample, int64 (N,), from the stored (N, 1)."""
        labels = self._array(f"{split}_labels", (self.spec.splits[split], 1))
        self._check_range(f"{split}_labels", labels, self.spec.n_classes)
        return labels[:, 0].astype(np.int64)

    def labels(self, split: str) -> np.ndarray:
        """Returns the labels of each sample, float32 (N, L) of 0 and 1."""
        labels = self._array(f"{split}_labels", (self.spec.splits[split], self.spec.n_classes))
        self._check_range(f"{split}_labels", labels, 2)
        return labels.astype(np.float32)

    def mask(self, split: str) -> np.ndarray:
        """Returns the class of each pixel, uint8 (N, H, W), index 0 the background."""
        masks = self._array(f"{split}_masks", (self.spec.splits[split], *self.spec.input_shape[1:]))
        self._check_range(f"{split}_masks", masks, self.spec.n_classes)
        return masks

    def groups(self, split: str, kinds: tuple[str, ...]) -> np.ndarray | None:
        """Returns the group of each sample, (N,), from the first of these arrays that is there, or None."""
        name = next((f"{split}_{kind}" for kind in kinds if f"{split}_{kind}" in self.names), None)
        return None if name is None else self._array(name, (self.spec.splits[split],))

    def _array(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        if name not in self.names:
            raise self._damaged(f"expected an array {name}, it holds {', '.join(self.names) or 'none'}")
        try:
            array = self._read(f"{name}.npy")
        except UNREADABLE as error:
            raise self._damaged(f"array {name} cannot be read ({error})") from None
        if array.shape != shape:
            raise self._damaged(f"expected {name} of shape {shape}, got {array.shape}")
        return array

    def _read(self, member: str) -> np.ndarray:
        if self._zip.getinfo(member).file_size > LARGE:
            mapped = map_member(self._zip, member, self.path, self.sha256)
            if mapped is not None:
                return mapped
        with self._zip.open(member) as file:
            return np.lib.format.read_array(file, allow_pickle=False)

    def _check_range(self, name: str, values: np.ndarray, count: int) -> None:
        if not np.issubdtype(values.dtype, np.integer):
            raise self._damaged(f"expected {name} of whole numbers, got {values.dtype}")
        if values.size and (values.min() < 0 or values.max() >= count):
            raise self._damaged(f"expected {name} of 0 to {count - 1}, got {values.min()} to {values.max()}")

    def _damaged(self, reason: str) -> DataDamagedError:
        return DataDamagedError(f"{self.path} is not what data set {self.spec.name} needs: {reason}; {self.remedy}")
