"""Batches of samples and the data sets they are taken from, for every task and any number of modalities."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from registry import DatasetSpec
from registry.errors import InputContractError


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Samples, row by row.

    `targets` by task: classification "label" int64 (N,), or multi-label "labels" float32 (N, L)
    and, where their means are to be balanced, "weights" float32 (N, L), see `label_weights`;
    segmentation "mask" int64 (N, H, W); landmark "points" float32 (N, K, 2) as x, y in pixels;
    detection "boxes" float32 (N, B, 4) as x1, y1, x2, y2 in pixels, "classes" int64 (N, B), "valid" bool (N, B).
    An attack may add "goal", int64 (N,): the class it steers towards.
    """

    sample_ids: Tensor
    """int64 (N,): row of the sample in its split; keys every random draw."""
    inputs: Tensor
    """float32 (N, C, H, W), or (N, M, C, H, W) with M modalities; in [0, 1]."""
    targets: Mapping[str, Tensor] = field(default_factory=dict)
    """Ground truth, each with leading axis N."""
    context: Tensor | None = None
    """float32 (N, F): tabular data that no attack changes, or None."""
    present: Tensor | None = None
    """bool (N, M): which modalities the sample has, or None for all."""
    groups: Tensor | None = None
    """int64 (N,): samples with the same number are of one patient, volume or lesion, or None where nobody knows."""

    def __post_init__(self) -> None:
        n = self.inputs.shape[0]
        parts = {"sample_ids": self.sample_ids, "context": self.context, "present": self.present, "groups": self.groups}
        parts |= self.targets
        for name, tensor in parts.items():
            if tensor is not None and tensor.shape[0] != n:
                raise InputContractError(f"expected {n} rows of {name!r}, as many as inputs, got {tensor.shape[0]}")

    def __len__(self) -> int:
        return self.inputs.shape[0]

    def take(self, rows: Tensor | slice) -> Batch:
        """Returns the batch of these rows (indices, a boolean mask, or a slice)."""
        return self._map(lambda tensor: tensor[rows])

    def to(self, device: torch.device | str) -> Batch:
        """Returns the batch on a device."""
        return self._map(lambda tensor: tensor.to(device))

    @property
    def weights(self) -> Tensor | None:
        """float32 (N,): how much the score of each sample counts in a mean, or None where all count alike."""
        weights = self.targets.get("weights")
        return None if weights is None else weights.mean(1)

    def mean(self, scores: Tensor) -> float:
        """Returns the mean of the samples' scores (N,), each with its weight, as boards take it; 0 of none."""
        if not len(self):
            return 0.0
        weights = self.weights
        return float(scores.mean()) if weights is None else float((scores * weights).sum() / weights.sum())

    def with_inputs(self, inputs: Tensor) -> Batch:
        """Returns the same samples with other inputs."""
        return replace(self, inputs=inputs)

    def with_target(self, name: str, values: Tensor) -> Batch:
        """Returns the same samples with one more target, e.g. the goal of a targeted attack."""
        return replace(self, targets={**self.targets, name: values})

    def _map(self, change) -> Batch:
        return Batch(
            sample_ids=change(self.sample_ids),
            inputs=change(self.inputs),
            targets={name: change(tensor) for name, tensor in self.targets.items()},
            context=None if self.context is None else change(self.context),
            present=None if self.present is None else change(self.present),
            groups=None if self.groups is None else change(self.groups),
        )


def concatenate(batches: list[Batch]) -> Batch:
    """Joins batches of one data set, in order."""
    first = batches[0]

    def join(tensors: list[Tensor | None]) -> Tensor | None:
        return None if tensors[0] is None else torch.cat(tensors)

    return Batch(
        sample_ids=join([b.sample_ids for b in batches]),
        inputs=join([b.inputs for b in batches]),
        targets={name: join([b.targets[name] for b in batches]) for name in first.targets},
        context=join([b.context for b in batches]),
        present=join([b.present for b in batches]),
        groups=join([b.groups for b in batches]),
    )


@dataclass(frozen=True, kw_only=True)
class Split:
    """One split as arrays; images stay as they are stored until rows are taken."""

    images: np.ndarray
    """uint8 in 0..255 or float32 in [0, 1]; (N, C, H, W) or (N, M, C, H, W)."""
    targets: Mapping[str, np.ndarray]
    """Ground truth with leading axis N, see `Batch.targets`."""
    context: np.ndarray | None = None
    """float32 (N, F), or None."""
    present: np.ndarray | None = None
    """bool (N, M), or None."""
    groups: np.ndarray | None = None
    """(N,): patient, volume or lesion of each sample, where known; no group is in two splits."""

    def __len__(self) -> int:
        return len(self.images)

    def take(self, rows: np.ndarray | slice | range) -> Batch:
        """Returns the batch of these rows, with images as float32 in [0, 1]."""
        index = np.arange(len(self))[rows] if isinstance(rows, slice) else np.asarray(rows, dtype=np.int64)
        images = torch.from_numpy(np.ascontiguousarray(self.images[index]))
        if images.dtype == torch.uint8:
            images = images.to(torch.float32) / 255
        return Batch(
            sample_ids=torch.from_numpy(index),
            inputs=images.to(torch.float32),
            targets={name: _tensor(values[index]) for name, values in self.targets.items()},
            context=None if self.context is None else _tensor(self.context[index]),
            present=None if self.present is None else _tensor(self.present[index]),
            groups=None if self.groups is None else _tensor(self._group_numbers[index]),
        )

    @cached_property
    def _group_numbers(self) -> np.ndarray:
        """The groups of all samples as 0 to G - 1, int64 (N,)."""
        return np.unique(self.groups, return_inverse=True)[1].reshape(-1).astype(np.int64)

    def all(self) -> Batch:
        """Returns the whole split as one batch."""
        return self.take(slice(None))


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """A data set in memory (or memory-mapped): its spec, its splits, and the checksum of its bytes."""

    spec: DatasetSpec
    """What it is."""
    splits: Mapping[str, Split]
    """train, val and test."""
    sha256: str
    """Checksum of the file, or of the generated arrays."""


def _tensor(values: np.ndarray) -> Tensor:
    """Returns a tensor of the dtype that targets have: int64, float32 or bool."""
    tensor = torch.from_numpy(np.ascontiguousarray(values))
    if tensor.dtype == torch.bool:
        return tensor
    return tensor.to(torch.float32 if tensor.dtype.is_floating_point else torch.int64)
