"""Objectives on the logits of label maps, averaged over the pixels of an image."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from datasets.batch import Batch
from datasets.tasks.base import Task
from datasets.tasks.segmentation import soft_dice_loss


class CrossEntropy:
    """Mean cross-entropy of all pixels."""

    def __init__(self, task: Task) -> None:
        pass

    def __call__(self, logits: Tensor, batch: Batch, progress: Tensor) -> Tensor:
        """Returns (N,) from logits (N, classes, H, W)."""
        return F.cross_entropy(logits, batch.targets["mask"], reduction="none").mean((1, 2))


class SoftDice:
    """1 - soft Dice over the foreground classes in the target: what the score measures, made smooth."""

    def __init__(self, task: Task) -> None:
        self._n_classes = task.n_classes

    def __call__(self, logits: Tensor, batch: Batch, progress: Tensor) -> Tensor:
        """Returns (N,) from logits (N, classes, H, W)."""
        return soft_dice_loss(logits, batch.targets["mask"], self._n_classes)


class Margin:
    """Mean over all pixels of the largest wrong logit minus the true one; it does not saturate, as Dice does."""

    def __init__(self, task: Task) -> None:
        pass

    def __call__(self, logits: Tensor, batch: Batch, progress: Tensor) -> Tensor:
        """Returns (N,) from logits (N, classes, H, W)."""
        mask = batch.targets["mask"][:, None]
        true = logits.gather(1, mask)[:, 0]
        return (logits.scatter(1, mask, -torch.inf).amax(1) - true).mean((1, 2))


OBJECTIVES = {"cross-entropy": CrossEntropy, "soft-dice": SoftDice, "margin": Margin}
