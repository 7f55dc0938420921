"""Objectives on the logits of label maps, averaged over the pixels of an image."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from datasets.batch import Batch
from datasets.tasks.base import Task
from datasets.tasks.segmentation import soft_dice_loss

COLDEST = 0.03
"""Temperature of the softmax in which sharp Dice ends."""


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
    """Soft Dice of logits divided by a temperature that falls from 1 to 0.03 over the attack.

    Softmax at temperature 1 spreads the gradient over pixels that the budget cannot turn; as the temperature falls,
    the pixels next to their boundary alone are left, and the value approaches 1 - Dice of the label map itself.
    """

    def __init__(self, task: Task) -> None:
        self._n_classes = task.n_classes

    def __call__(self, logits: Tensor, batch: Batch, progress: Tensor) -> Tensor:
        """Returns (N,) from logits (N, classes, H, W)."""
        temperature = COLDEST ** progress.reshape(-1, 1, 1, 1).to(logits.dtype)
        return soft_dice_loss(logits / temperature, batch.targets["mask"], self._n_classes)


class Margin:
    """Mean over all pixels of the largest wrong logit minus the true one; it does not saturate, as Dice does."""

    def __init__(self, task: Task) -> None:
        pass

    def __call__(self, logits: Tensor, batch: Batch, progress: Tensor) -> Tensor:
        """Returns (N,) from logits (N, classes, H, W)."""
        mask = batch.targets["mask"][:, None]
        true = logits.gather(1, mask)[:, 0]
        return (logits.scatter(1, mask, -torch.inf).amax(1) - true).mean((1, 2))


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
