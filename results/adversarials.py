"""Certificates of attack: the adversarials behind a record's scores, a few bits for each pixel, in one npz file.

Nearly all values of a strong Linf perturbation are +eps or -eps, so that signs alone often do as well as the exact
numbers. Each adversarial is kept in the coarsest form that was verified to score no higher: its perturbation in whole
steps of `scale * eps / level`, or, where no such form does, its exact values.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from registry.errors import DamagedRecordError
from results.foreign_npz import read_arrays
from results.migrate import WHAT_TO_DO

VERSION = 1
"""Version of the file's layout."""
EXACT = 0
"""Level of an adversarial that is kept in float32."""
LARGEST_LEVEL = 127
"""Finest steps that int8 holds."""
LARGEST_FILE = 1 << 30
"""Bytes that a file may unfold to; a larger one is refused before it is unfolded."""
_ARRAYS = {
    "version": (np.int32, 0),
    "shape": (np.int32, 1),
    "certified": (np.int32, 1),
    "sample_ids": (np.int32, 1),
    "budgets": (np.int16, 1),
    "levels": (np.uint8, 1),
    "scales": (np.float32, 1),
    "moved": (np.uint8, 1),
    "signs": (np.uint8, 1),
    "steps": (np.int8, 1),
    "exact": (np.uint8, 2),
}
"""Arrays of a file, each with its dtype and number of axes."""


@dataclass(frozen=True, kw_only=True)
class Adversarials:
    """Adversarials of one record, each with the budget from which on it holds.

    A sample's adversarial at a budget is the one with the largest `budgets` up to it; without one, the original is.
    """

    shape: tuple[int, ...]
    """Shape of one input."""
    certified: tuple[int, ...]
    """Indices of the record's budgets at which every lowered sample has its adversarial here."""
    sample_ids: np.ndarray
    """int64 (m,): row of the sample in its split."""
    budgets: np.ndarray
    """int64 (m,): index of the first budget at which it holds."""
    levels: np.ndarray
    """int64 (m,): steps that make up `scale * eps`, 1 to 127; 0 where the values are exact."""
    scales: np.ndarray
    """float32 (m,): largest value of the perturbation relative to eps, in (0, 1]."""
    steps: np.ndarray
    """int8 (m, ...): the perturbation in steps, at most `levels` in size; 0 where the values are exact."""
    exact: Mapping[int, np.ndarray] = field(default_factory=dict)
    """float32 adversarials in [0, 1] by their place in the other arrays, where `levels` is 0."""

    def __len__(self) -> int:
        return len(self.sample_ids)

    def points(self, originals: np.ndarray, eps: np.ndarray) -> np.ndarray:
        """Returns the adversarials before they are projected into the ball and [0, 1], float32 (m, ...).

        Args:
            originals: float32 (m, ...): the original of each adversarial.
            eps: float32, broadcastable to `originals`: its radius.
        """
        unit = (self.scales / np.maximum(self.levels, 1).astype(np.float32)).reshape(-1, *[1] * len(self.shape))
        points = originals + eps * (unit * self.steps.astype(np.float32))
        for place, values in self.exact.items():
            points[place] = values
        return points

    def holding(self, sample_ids: np.ndarray, budget: int) -> np.ndarray:
        """Returns for each sample the place of its adversarial at a budget, -1 for none: int64 (n,)."""
        latest: dict[int, int] = {}
        for place in np.argsort(self.budgets, kind="stable"):
            if self.budgets[place] <= budget:
                latest[int(self.sample_ids[place])] = int(place)
        return np.array([latest.get(int(sample), -1) for sample in sample_ids], dtype=np.int64)


def quantise(relative: np.ndarray, level: int, *, outward: bool) -> np.ndarray:
    """Returns perturbations in whole steps, int8.

    Args:
        relative: Perturbation relative to `scale * eps`, in [-1, 1].
        level: Steps that make up 1.
        outward: Round away from zero, so that no value gets smaller; otherwise to the nearest step.
    """
    size = np.abs(relative) * level
    whole = np.ceil(size - 1e-4 * level) if outward else np.rint(size)  # a rounding error is no step
    return (np.sign(relative) * np.clip(whole, 0, level)).astype(np.int8)


def pack(adversarials: Adversarials) -> bytes:
    """Returns the file of these adversarials; equal ones give equal bytes."""
    flat = adversarials.steps.reshape(len(adversarials), int(np.prod(adversarials.shape)))
    signs = flat[adversarials.levels == 1]
    exact = [adversarials.exact[place] for place in np.flatnonzero(adversarials.levels == EXACT)]
    values = np.array(exact, dtype="<f4").reshape(-1, 1)
    arrays = {
        "version": VERSION,
        "shape": adversarials.shape,
        "certified": adversarials.certified,
        "sample_ids": adversarials.sample_ids,
        "budgets": adversarials.budgets,
        "levels": adversarials.levels,
        "scales": adversarials.scales,
        "moved": np.packbits(signs != 0),
        "signs": np.packbits(signs[signs != 0] > 0),
        "steps": flat[adversarials.levels > 1].reshape(-1),
        "exact": values.view(np.uint8).reshape(-1, 4).T,  # bytes of like meaning side by side compress better
    }
    buffer = io.BytesIO()
    typed = {name: np.ascontiguousarray(values, dtype=_ARRAYS[name][0]) for name, values in arrays.items()}
    typed["version"] = np.array(VERSION, dtype=np.int32)
    np.savez_compressed(buffer, **typed)
    return buffer.getvalue()


def unpack(content: bytes, origin: str) -> Adversarials:
    """Returns the adversarials that a file holds; nothing in it is ever executed.

    Args:
        content: Bytes of the file.
        origin: Where it comes from, for error texts.

    Raises:
        DamagedRecordError: It is torn or altered, its arrays contradict each other, or a perturbation leaves its ball.
    """
    try:
        return _build(_read(content))
    except (ValueError, MemoryError) as error:
        raise DamagedRecordError(f"{origin}: no file of adversarials ({error}); {WHAT_TO_DO}") from error


def _read(content: bytes) -> dict[str, np.ndarray]:
    arrays = read_arrays(content, _ARRAYS, LARGEST_FILE)
    for name, (dtype, axes) in _ARRAYS.items():
        found = arrays[name]
        if found.dtype != dtype or found.ndim != axes:
            raise ValueError(f"expected {name} of {np.dtype(dtype)} with {axes} axes, got {found.dtype}")
    if arrays["version"] != VERSION:
        raise ValueError(f"its layout has version {arrays['version']}, this checkout reads {VERSION}")
    return arrays


def _build(arrays: dict[str, np.ndarray]) -> Adversarials:
    shape = tuple(int(edge) for edge in arrays["shape"])
    levels, scales = arrays["levels"].astype(np.int64), arrays["scales"]
    m, size = len(levels), math.prod(shape)
    if {len(arrays[name]) for name in ("sample_ids", "budgets", "scales")} != {m}:
        raise ValueError("its arrays differ in length")
    if not 0 < size <= LARGEST_FILE or m * size > LARGEST_FILE or (m and levels.max() > LARGEST_LEVEL):
        raise ValueError("its shape or a level makes no sense")
    if not ((scales > 0) & (scales <= 1)).all():
        raise ValueError("a perturbation lies outside its ball: its scale is not in (0, 1]")
    steps = np.zeros((m, size), dtype=np.int8)
    coarse, fine, exact = levels == 1, levels > 1, levels == EXACT
    steps[coarse] = _signs(arrays["moved"], arrays["signs"], int(coarse.sum()), size)
    steps[fine] = arrays["steps"].reshape(int(fine.sum()), size)
    if (np.abs(steps.astype(np.int16)) > levels[:, None]).any():
        raise ValueError("a perturbation lies outside its ball: it has more steps than its level")
    values = np.ascontiguousarray(arrays["exact"].T).view("<f4").reshape(int(exact.sum()), *shape)
    if not ((values >= 0) & (values <= 1)).all():
        raise ValueError("an adversarial lies outside [0, 1]")
    return Adversarials(
        shape=shape,
        certified=tuple(int(index) for index in arrays["certified"]),
        sample_ids=arrays["sample_ids"].astype(np.int64),
        budgets=arrays["budgets"].astype(np.int64),
        levels=levels,
        scales=scales,
        steps=steps.reshape(m, *shape),
        exact={int(place): row.astype(np.float32) for place, row in zip(np.flatnonzero(exact), values, strict=True)},
    )


def _signs(moved: np.ndarray, signs: np.ndarray, rows: int, size: int) -> np.ndarray:
    """Returns perturbations of level 1 from one bit for what moved and one bit for the sign of what did."""
    if len(moved) != -(-rows * size // 8):
        raise ValueError("its bits do not fit its number of adversarials")
    where = np.unpackbits(moved, count=rows * size).astype(bool)
    count = int(where.sum())
    if len(signs) != -(-count // 8):
        raise ValueError("its signs do not fit its bits")
    flat = np.zeros(rows * size, dtype=np.int8)
    flat[where] = 2 * np.unpackbits(signs, count=count).astype(np.int8) - 1
    return flat.reshape(rows, size)
