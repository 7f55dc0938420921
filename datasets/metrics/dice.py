"""Dice and intersection over union of label maps, with the empty cases decided."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def class_overlaps(prediction: Tensor, mask: Tensor, n_classes: int) -> tuple[Tensor, Tensor, Tensor]:
    """Counts voxels of each foreground class.

    Args:
        prediction: int64 (N, H, W), class indices.
        mask: int64 (N, H, W), class indices.
        n_classes: Number of classes with the background, which is index 0.

    Returns:
        Intersection, predicted and true voxels, each int64 (N, n_classes - 1).
    """
    predicted = F.one_hot(prediction, n_classes)[..., 1:].bool()
    true = F.one_hot(mask, n_classes)[..., 1:].bool()
    return (predicted & true).sum((1, 2)), predicted.sum((1, 2)), true.sum((1, 2))


def foreground_dice(intersection: Tensor, predicted: Tensor, true: Tensor) -> Tensor:
    """Returns the mean Dice of each image over the foreground classes that its target holds.

    An image with an empty target scores 1 where nothing is predicted, else 0.

    Args:
        intersection, predicted, true: Voxel counts, (N, K), from `class_overlaps`.

    Returns:
        float32 (N,) in [0, 1].
    """
    dice = 2 * intersection / (predicted + true).clamp(min=1)
    return _mean_over_target(dice, predicted, true)


def foreground_iou(intersection: Tensor, predicted: Tensor, true: Tensor) -> Tensor:
    """Returns the mean intersection over union of each image; arguments and empty cases as in `foreground_dice`."""
    union = predicted + true - intersection
    return _mean_over_target(intersection / union.clamp(min=1), predicted, true)


def _mean_over_target(values: Tensor, predicted: Tensor, true: Tensor) -> Tensor:
    held = true > 0
    mean = (values * held).sum(1) / held.sum(1).clamp(min=1)
    empty_score = (predicted.sum(1) == 0).to(values.dtype)
    return torch.where(held.any(1), mean, empty_score).to(torch.float32)
