"""Segmentation: every pixel has one class; the score is the foreground Dice of the image."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from datasets.batch import Batch
from datasets.metrics.dice import class_overlaps, foreground_dice, foreground_iou
from datasets.metrics.surface import hd95
from datasets.tasks.base import Outputs, Predictions, one_tensor
from registry import TASKS, DatasetSpec
from registry.errors import InputContractError, ModelContractError


class Segmentation:
    """Label maps of `n_classes` classes, index 0 the background.

    Args:
        n_classes: Number of classes with the background, 2 or more.
    """

    spec = TASKS["segmentation"]
    fail_below = 0.5
    stop_at = 0.0

    def __init__(self, n_classes: int) -> None:
        self.n_classes = n_classes

    def check_targets(self, batch: Batch) -> None:
        mask = batch.targets.get("mask")
        if mask is None or mask.ndim != 3 or mask.dtype != torch.int64:
            raise InputContractError('expected targets {"mask": int64 (N, H, W)} for segmentation')
        if mask.shape[1:] != batch.inputs.shape[-2:]:
            raise InputContractError(
                f"masks must have the size of the images, {tuple(batch.inputs.shape[-2:])}, got {tuple(mask.shape[1:])}"
            )
        if mask.numel() and (mask.min() < 0 or mask.max() >= self.n_classes):
            raise InputContractError(
                f"mask values must be 0 to {self.n_classes - 1}, got {int(mask.min())} to {int(mask.max())}"
            )

    def check_outputs(self, outputs: object, batch: Batch) -> Outputs:
        logits = one_tensor(outputs, batch, f"logits of shape (N, {self.n_classes}, H, W)")
        wanted = (len(batch), self.n_classes, *batch.inputs.shape[-2:])
        if tuple(logits.shape) != wanted:
            raise ModelContractError(f"expected logits of shape {wanted}, one map per class, got {tuple(logits.shape)}")
        return logits

    def training_loss(self, outputs: Outputs, batch: Batch) -> Tensor:
        """Returns cross-entropy plus soft foreground Dice loss, (N,)."""
        mask = batch.targets["mask"]
        cross_entropy = F.cross_entropy(outputs, mask, reduction="none").mean((1, 2))
        return cross_entropy + soft_dice_loss(outputs, mask, self.n_classes)

    def decode(self, outputs: Outputs, batch: Batch) -> Predictions:
        return {"mask": outputs.argmax(1)}

    def score(self, predictions: Predictions, batch: Batch) -> Tensor:
        return foreground_dice(*class_overlaps(predictions["mask"], batch.targets["mask"], self.n_classes))

    def facts(self, predictions: Predictions, batch: Batch) -> dict[str, np.ndarray]:
        intersection, predicted, true = class_overlaps(predictions["mask"], batch.targets["mask"], self.n_classes)
        return {
            "intersection": intersection.cpu().numpy(),
            "predicted": predicted.cpu().numpy(),
            "true": true.cpu().numpy(),
            "iou": foreground_iou(intersection, predicted, true).cpu().numpy(),
            "hd95": hd95(predictions["mask"], batch.targets["mask"], self.n_classes).cpu().numpy(),
        }

    def corpus_metrics(self, facts: Mapping[str, np.ndarray]) -> dict[str, float]:
        pooled = {name: facts[name].sum(0) for name in ("intersection", "predicted", "true")}
        held = pooled["true"] > 0
        dice = 2 * pooled["intersection"] / np.maximum(pooled["predicted"] + pooled["true"], 1)
        has_target = facts["true"].sum(1) > 0
        metrics = {"iou": float(facts["iou"][has_target].mean())} if has_target.any() else {}
        if held.any():
            metrics["voxel_dice"] = float(dice[held].mean())
        if np.isfinite(facts["hd95"]).any():
            metrics["hd95"] = float(np.nanmean(facts["hd95"]))
        if (~has_target).any():
            metrics["false_positive_px"] = float(facts["predicted"][~has_target].sum(1).mean())
        return metrics


def soft_dice_loss(logits: Tensor, mask: Tensor, n_classes: int) -> Tensor:
    """Returns 1 - soft Dice of each image, averaged over the foreground classes in its target.

    Args:
        logits: float32 (N, n_classes, H, W).
        mask: int64 (N, H, W).
        n_classes: Number of classes with the background.

    Returns:
        (N,) in [0, 1]; an image with an empty target counts all its foreground classes.
    Source: Milletari et al. 2016, arXiv:1606.04797, section 3.
    """
    probabilities = logits.softmax(1)[:, 1:]
    true = F.one_hot(mask, n_classes)[..., 1:].movedim(-1, 1).to(logits.dtype)
    overlap = (probabilities * true).sum((2, 3))
    total = probabilities.sum((2, 3)) + true.sum((2, 3))
    dice = (2 * overlap + 1) / (total + 1)  # + 1 keeps an absent class finite
    held = (true.sum((2, 3)) > 0).to(logits.dtype)
    held = torch.where(held.sum(1, keepdim=True) > 0, held, torch.ones_like(held))
    return 1 - (dice * held).sum(1) / held.sum(1)


def build(spec: DatasetSpec) -> Segmentation:
    """Returns the segmentation task of a data set."""
    return Segmentation(spec.n_classes)
