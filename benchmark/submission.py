"""Adversarials that somebody hands in: read as data only, and checked before any model sees them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from attacks.ball import Ball
from registry import Budget
from registry.errors import InputContractError
from results.foreign_npz import read_arrays

ARRAYS = {"adversarials": "(n, ...) float32 in [0, 1] or uint8", "sample_ids": "(n,) whole numbers"}
LARGEST_FILE = 1 << 30
"""Bytes that a file may unfold to."""


@dataclass(frozen=True, kw_only=True)
class Submission:
    """Adversarials of some samples of a test split."""

    adversarials: Tensor
    """float32 (n, ...) in [0, 1]."""
    sample_ids: np.ndarray
    """int64 (n,): row of each sample in the test split; no sample twice."""
    sha256: str
    """Checksum of the file."""


def read_submission(path: Path, input_shape: tuple[int, ...], n_test: int) -> Submission:
    """Returns the adversarials in a file; nothing in it is ever executed.

    Args:
        path: An npz file with the arrays `adversarials` and `sample_ids` alone.
        input_shape: Shape of one input of the data set.
        n_test: Number of samples in its test split.

    Raises:
        InputContractError: It is no such file, or a shape, type, value or sample is not what was expected.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputContractError(f"cannot read {path}: {error.strerror}; name an npz file") from error
    arrays = _arrays(content, path)
    points, ids = arrays["adversarials"], arrays["sample_ids"]
    if ids.ndim != 1 or ids.dtype.kind not in "iu" or not len(ids):
        raise InputContractError(f"sample_ids: expected {ARRAYS['sample_ids']}, got {ids.shape} of {ids.dtype}")
    if points.shape != (len(ids), *input_shape):
        raise InputContractError(
            f"adversarials: expected shape {(len(ids), *input_shape)} for {len(ids)} sample_ids, got {points.shape}"
        )
    ids = ids.astype(np.int64)
    unknown = ids[(ids < 0) | (ids >= n_test)]
    if len(unknown):
        raise InputContractError(
            f"sample_ids are rows of the test split, 0 to {n_test - 1}, got {int(unknown[0])}: {len(unknown)} unknown"
        )
    if len(np.unique(ids)) < len(ids):
        raise InputContractError("sample_ids: expected each sample once, got some twice; keep its best adversarial")
    return Submission(adversarials=_unit(points), sample_ids=ids, sha256=hashlib.sha256(content).hexdigest())


def check_ball(points: Tensor, sample_ids: np.ndarray, ball: Ball, budget: Budget) -> None:
    """Raises InputContractError where points lie outside the ball of their sample."""
    outside = (~ball.contains(points)).nonzero()[:, 0]
    if not len(outside):
        return
    first = int(outside[0])
    relative = float(ball.take(outside[:1]).size(points[outside[:1]])[0])
    raise InputContractError(
        f"{len(outside)} of {len(points)} adversarials leave {budget.label}: sample {sample_ids[first]} is "
        f"{relative:.4g} times eps from its original; project them, or hand them in at a larger --eps"
    )


def _arrays(content: bytes, path: Path) -> dict[str, np.ndarray]:
    expected = " and ".join(f"{name} {what}" for name, what in ARRAYS.items())
    try:
        return read_arrays(content, ARRAYS, LARGEST_FILE)
    except ValueError as error:
        raise InputContractError(f"{path}: expected an npz file with {expected}, without pickles ({error})") from error


def _unit(points: np.ndarray) -> Tensor:
    """Returns adversarials as float32 in [0, 1]."""
    if points.dtype == np.uint8:
        return torch.from_numpy(points).to(torch.float32) / 255
    if points.dtype != np.float32:
        raise InputContractError(f"adversarials: expected float32 in [0, 1] or uint8, got {points.dtype}")
    if not np.isfinite(points).all() or points.min() < 0 or points.max() > 1:
        bad = "NaN or infinity" if not np.isfinite(points).all() else f"{points.min():g} to {points.max():g}"
        raise InputContractError(f"adversarials: expected float32 in [0, 1], got {bad}; divide by 255 where needed")
    return torch.from_numpy(points.astype(np.float32))
