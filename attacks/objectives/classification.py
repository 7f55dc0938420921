"""Objectives on logits, for one label of two or more classes and for several labels at once."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from datasets.batch import Batch
from datasets.tasks.base import Task
from datasets.tasks.classification import weighted_share
from registry.errors import InvalidEntryError


class CrossEntropy:
    """The task's training loss: cross-entropy on logits; multi-label: mean binary cross-entropy."""

    def __init__(self, task: Task) -> None:
        self._task = task

    def __call__(self, logits: Tensor, batch: Batch, progress: Tensor) -> Tensor:
        """Returns (N,) from logits (N, classes)."""
        return self._task.training_loss(logits, batch)


TEMPERATURES = (0.3, 0.03)
"""Of the smooth share of wrong labels, at the first step and at the last."""


class Margin:
    """Largest wrong logit minus the true one; over 0 the prediction is wrong. Exists from 2 classes on.

    Multi-label: the mean over labels of the sigmoid of the logit's distance on the wrong side, a smooth share of wrong
    labels, each with its weight in the score. The mean distance itself has no bound, and an attack would spend eps on
    labels that are wrong already. Distances are in units of the sample's mean absolute logit times a temperature that
    falls along the steps: the scale of the logits, which changes no answer, changes no attack.
    Source: Carlini & Wagner 2017, arXiv:1608.04644, section V-B, f6.
    """

    def __init__(self, task: Task) -> None:
        self._multi_label = hasattr(task, "n_labels")

    def __call__(self, logits: Tensor, batch: Batch, progress: Tensor) -> Tensor:
        """Returns (N,) from logits (N, classes)."""
        if self._multi_label:
            falling = TEMPERATURES[0] * (TEMPERATURES[1] / TEMPERATURES[0]) ** progress.to(logits.dtype)
            unit = (falling * logits.detach().abs().mean(1)).clamp(min=torch.finfo(logits.dtype).tiny)[:, None]
            return weighted_share((logits / unit * (1 - 2 * batch.targets["labels"])).sigmoid(), batch)
        label = batch.targets["label"][:, None]
        true = logits.gather(1, label)[:, 0]
        return logits.scatter(1, label, -torch.inf).amax(1) - true


class TargetedMargin:
    """Logit of the goal class minus the true one; restart k aims at the k-th most likely wrong class.

    Source: Gowal et al. 2019, arXiv:1910.09338 (MultiTargeted).
    """

    def __init__(self, task: Task) -> None:
        _one_label(task, "targeted-margin")

    def aim(self, logits: Tensor, batch: Batch, restart: Tensor) -> Batch:
        """Returns the batch with "goal"; restarts beyond the last wrong class begin again with the first."""
        label = batch.targets["label"][:, None]
        order = logits.scatter(1, label, -torch.inf).argsort(1, descending=True)
        goal = order.gather(1, (restart % (logits.shape[1] - 1))[:, None])[:, 0]
        return batch.with_target("goal", goal)

    def __call__(self, logits: Tensor, batch: Batch, progress: Tensor) -> Tensor:
        """Returns (N,) from logits (N, classes)."""
        goal = logits.gather(1, batch.targets["goal"][:, None])[:, 0]
        return goal - logits.gather(1, batch.targets["label"][:, None])[:, 0]


class DifferenceOfLogitsRatio:
    """Margin over the distance of the first to the third largest logit; exists from 3 classes on.

    Source: Croce & Hein 2020, arXiv:2003.01690, equation 6.
    """

    def __init__(self, task: Task) -> None:
        _one_label(task, "dlr")
        if task.n_classes < 3:
            raise InvalidEntryError(f"objective dlr needs 3 classes or more, got {task.n_classes}; take margin")

    def __call__(self, logits: Tensor, batch: Batch, progress: Tensor) -> Tensor:
        """Returns (N,) from logits (N, classes)."""
        ordered = logits.sort(1, descending=True).values
        label = batch.targets["label"][:, None]
        margin = logits.scatter(1, label, -torch.inf).amax(1) - logits.gather(1, label)[:, 0]
        return margin / (ordered[:, 0] - ordered[:, 2] + 1e-12)


class TargetedDifferenceOfLogitsRatio(TargetedMargin):
    """Lead of the goal class over the true one, relative to the largest logit above the mean of the third and fourth.

    Restart k aims at the k-th most likely wrong class, as for the targeted margin; exists from 4 classes on.
    Source: Croce & Hein 2020, arXiv:2003.01690, equation 7.
    """

    def __init__(self, task: Task) -> None:
        _one_label(task, "targeted-dlr")
        if task.n_classes < 4:
            raise InvalidEntryError(
                f"objective targeted-dlr needs 4 classes or more, got {task.n_classes}; take targeted-margin"
            )

    def __call__(self, logits: Tensor, batch: Batch, progress: Tensor) -> Tensor:
        """Returns (N,) from logits (N, classes)."""
        ordered = logits.sort(1, descending=True).values
        spread = ordered[:, 0] - (ordered[:, 2] + ordered[:, 3]) / 2
        return super().__call__(logits, batch, progress) / (spread + 1e-12)


class DetectorMargin(Margin):
    """The smaller of the classes' margin and the best class's lead over rejection; over 0 the detector is fooled.

    With the rejection's logit at the best class plus c (score - threshold), the lead is c (threshold - score). Outputs
    without that logit, such as a twin's, have the margin of their classes.
    Source: Tramer 2022, arXiv:2107.11630; Carlini and Wagner 2017, arXiv:1705.07263: one loss for both parts.
    """

    def __init__(self, task: Task) -> None:
        _one_label(task, "detector-margin")
        super().__init__(task)
        self._n_classes = task.n_classes

    def __call__(self, logits: Tensor, batch: Batch, progress: Tensor) -> Tensor:
        """Returns (N,) from logits (N, classes + 1)."""
        classes = logits[:, : self._n_classes]
        return _not_rejected(super().__call__(classes, batch, progress), classes, logits)


class DetectorTargetedMargin(TargetedMargin):
    """The smaller of the goal's lead over the true class and the best class's lead over rejection."""

    def __init__(self, task: Task) -> None:
        super().__init__(task)
        self._n_classes = task.n_classes

    def aim(self, logits: Tensor, batch: Batch, restart: Tensor) -> Batch:
        """Returns the batch with "goal", a class."""
        return super().aim(logits[:, : self._n_classes], batch, restart)

    def __call__(self, logits: Tensor, batch: Batch, progress: Tensor) -> Tensor:
        """Returns (N,) from logits (N, classes + 1)."""
        classes = logits[:, : self._n_classes]
        return _not_rejected(super().__call__(classes, batch, progress), classes, logits)


class CrossEntropyOfProbabilities:
    """Cross-entropy that takes probabilities for logits, as papers have it by mistake; for replays only.

    Its gradient carries the extra factor p (1 - p): where the model is confident it underflows, and the sign of zero
    moves no pixel. Multi-label: the mean over labels of the binary cross-entropy that takes sigmoids for logits.
    """

    def __init__(self, task: Task) -> None:
        self._task, self._multi_label = task, hasattr(task, "n_labels")

    def __call__(self, logits: Tensor, batch: Batch, progress: Tensor) -> Tensor:
        """Returns (N,) from logits (N, classes)."""
        if self._multi_label:
            return self._task.training_loss(logits.sigmoid(), batch)
        return F.cross_entropy(logits.softmax(1), batch.targets["label"], reduction="none")


class ClampedBinaryCrossEntropy:
    """Binary cross-entropy of each probability against the one-hot label, clamped at 1e-7 as Keras does; for replays.

    Where a probability is clamped its gradient is exactly zero. Multi-label: of each sigmoid against its label.
    """

    def __init__(self, task: Task) -> None:
        self._multi_label = hasattr(task, "n_labels")

    def __call__(self, logits: Tensor, batch: Batch, progress: Tensor) -> Tensor:
        """Returns (N,) from logits (N, classes)."""
        if self._multi_label:
            probabilities, wanted = logits.sigmoid(), batch.targets["labels"]
        else:
            probabilities = logits.softmax(1)
            wanted = F.one_hot(batch.targets["label"], logits.shape[1]).to(logits.dtype)
        probabilities = probabilities.clamp(1e-7, 1 - 1e-7)
        return F.binary_cross_entropy(probabilities, wanted, reduction="none").mean(1)


class FeatureDistance:
    """Distance of features from those of the original, for sources whose outputs are features and not logits.

    Source: Tramer et al. 2020, arXiv:2002.08347, section 4: the objective is aimed at what the defense relies on.
    """

    def __init__(self, task: Task) -> None:
        pass

    def aim(self, features: Tensor, batch: Batch, restart: Tensor) -> Batch:
        """Returns the batch with "goal", the features (N, D) of the originals."""
        return batch.with_target("goal", features)

    def __call__(self, features: Tensor, batch: Batch, progress: Tensor) -> Tensor:
        """Returns (N,), the squared Euclidean distance of features (N, D)."""
        return (features - batch.targets["goal"]).square().sum(1)


def _not_rejected(margin: Tensor, classes: Tensor, logits: Tensor) -> Tensor:
    if logits.shape[1] == classes.shape[1]:
        return margin
    return torch.minimum(margin, classes.amax(1) - logits[:, -1])


def _one_label(task: Task, name: str) -> None:
    if hasattr(task, "n_labels"):
        raise InvalidEntryError(f"objective {name} is for one label a sample, this task has several; take margin")


OBJECTIVES = {
    "cross-entropy": CrossEntropy,
    "margin": Margin,
    "targeted-margin": TargetedMargin,
    "detector-margin": DetectorMargin,
    "detector-targeted-margin": DetectorTargetedMargin,
    "dlr": DifferenceOfLogitsRatio,
    "targeted-dlr": TargetedDifferenceOfLogitsRatio,
    "feature-distance": FeatureDistance,
    "probability-cross-entropy": CrossEntropyOfProbabilities,
    "clamped-binary-cross-entropy": ClampedBinaryCrossEntropy,
}
