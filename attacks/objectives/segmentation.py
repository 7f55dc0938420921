"""Objectives on the logits of label maps, averaged over the pixels of an image."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from datasets.batch import Batch
from datasets.tasks.base import Task
from datasets.tasks.segmentation import soft_dice_loss

WARMEST, COLDEST = 0.1, 0.03
"""Temperatures of the softmax in which sharp Dice begins and ends, in mean margins of the image."""


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


class SharpDice:
    """Soft Dice of logits over a temperature that falls from 0.1 to 0.03 of the image's mean margin.

    The softmax of soft Dice spreads its gradient over pixels that the budget cannot turn; a cold one looks at those
    next to their boundary alone, and comes close to 1 - Dice of the label map itself. The mean margin, absolute and
    over the foreground of target and prediction, makes it the same for logits of any scale; it has no gradient.
    """

    def __init__(self, task: Task) -> None:
        self._n_classes = task.n_classes

    def __call__(self, logits: Tensor, batch: Batch, progress: Tensor) -> Tensor:
        """Returns (N,) from logits (N, classes, H, W)."""
        mask = batch.targets["mask"]
        share = WARMEST * (COLDEST / WARMEST) ** progress.to(logits.dtype)
        temperature = share * _mean_margin(logits.detach(), mask)
        return soft_dice_loss(logits / temperature[:, None, None, None], mask, self._n_classes)


class Margin:
    """Mean over all pixels of the largest wrong logit minus the true one; it does not saturate, as Dice does."""

    def __init__(self, task: Task) -> None:
        pass

    def __call__(self, logits: Tensor, batch: Batch, progress: Tensor) -> Tensor:
        """Returns (N,) from logits (N, classes, H, W)."""
        return _margins(logits, batch.targets["mask"]).mean((1, 2))


class SegPGD:
    """Cross-entropy in which right and wrong pixels weigh 1 - s and s; s grows from 0 to 1/2 over the attack.

    Early steps turn pixels that are still right, late ones keep those that are wrong from turning back.
    Source: Gu et al. 2022, arXiv:2207.12391, section 3.2; the weight is s(t) = t / (2 T), the progress over two.
    """

    def __init__(self, task: Task) -> None:
        pass

    def __call__(self, logits: Tensor, batch: Batch, progress: Tensor) -> Tensor:
        """Returns (N,) from logits (N, classes, H, W)."""
        mask = batch.targets["mask"]
        wrong = (progress / 2).reshape(-1, 1, 1).to(logits.dtype)
        weight = torch.where(logits.argmax(1) == mask, 1 - wrong, wrong)
        return (weight * F.cross_entropy(logits, mask, reduction="none")).mean((1, 2))


class CosPGD:
    """Cross-entropy weighted by how close each pixel's probabilities are to its true class; weights have no gradient.

    Source: Agnihotri et al. 2023, arXiv:2302.02213, section 3; untargeted, the cosine of softmax and one-hot target.
    """

    def __init__(self, task: Task) -> None:
        pass

    def __call__(self, logits: Tensor, batch: Batch, progress: Tensor) -> Tensor:
        """Returns (N,) from logits (N, classes, H, W)."""
        mask = batch.targets["mask"]
        probabilities = logits.detach().softmax(1)
        weight = probabilities.gather(1, mask[:, None])[:, 0] / probabilities.norm(dim=1)
        return (weight * F.cross_entropy(logits, mask, reduction="none")).mean((1, 2))


class MaskedCrossEntropy:
    """Cross-entropy of the pixels that are still right, over all pixels: wrong ones cost no more effort.

    Source: Croce, Singh, Hein 2023, arXiv:2306.12941, section 2.
    """

    def __init__(self, task: Task) -> None:
        pass

    def __call__(self, logits: Tensor, batch: Batch, progress: Tensor) -> Tensor:
        """Returns (N,) from logits (N, classes, H, W)."""
        mask = batch.targets["mask"]
        right = logits.argmax(1) == mask
        return (right * F.cross_entropy(logits, mask, reduction="none")).mean((1, 2))


class JensenShannon:
    """Jensen-Shannon divergence of each pixel's probabilities from its one-hot target, in [0, log 2].

    With p the probability of the true class it is log 2 + (p log p - (1 + p) log(1 + p)) / 2: its gradient fades
    where a pixel is certainly wrong.
    Source: Croce, Singh, Hein 2023, arXiv:2306.12941, section 2.
    """

    def __init__(self, task: Task) -> None:
        pass

    def __call__(self, logits: Tensor, batch: Batch, progress: Tensor) -> Tensor:
        """Returns (N,) from logits (N, classes, H, W)."""
        logarithm = logits.log_softmax(1).gather(1, batch.targets["mask"][:, None])[:, 0]
        true = logarithm.exp()
        divergence = math.log(2) + (true * logarithm - (1 + true) * true.log1p()) / 2
        return divergence.mean((1, 2))


def _margins(logits: Tensor, mask: Tensor) -> Tensor:
    """Returns the largest wrong logit minus the true one of each pixel, (N, H, W)."""
    mask = mask[:, None]
    return logits.scatter(1, mask, -torch.inf).amax(1) - logits.gather(1, mask)[:, 0]


def _mean_margin(logits: Tensor, mask: Tensor) -> Tensor:
    """Returns the mean absolute margin over the foreground of target and prediction, over 0: (N,)."""
    foreground = (mask > 0) | (logits.argmax(1) > 0)
    foreground |= ~foreground.flatten(1).any(1)[:, None, None]  # an empty image counts all its pixels
    total = (_margins(logits, mask).abs() * foreground).sum((1, 2))
    return (total / foreground.sum((1, 2))).clamp(min=torch.finfo(logits.dtype).tiny ** 0.5)


OBJECTIVES = {
    "cross-entropy": CrossEntropy,
    "cospgd": CosPGD,
    "jensen-shannon": JensenShannon,
    "margin": Margin,
    "masked-cross-entropy": MaskedCrossEntropy,
    "segpgd": SegPGD,
    "sharp-dice": SharpDice,
    "soft-dice": SoftDice,
}
