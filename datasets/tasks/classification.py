"""Classification: one label of two or more classes, or several labels at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
from scipy.stats import rankdata
from torch import Tensor
from torch.nn import functional as F

from datasets.batch import Batch
from datasets.tasks.base import Outputs, Predictions, one_tensor
from registry import TASKS, DatasetSpec
from registry.errors import InputContractError, ModelContractError


class Classification:
    """One label a sample; the score is 1 where the most likely class is the label, else 0.

    Args:
        n_classes: Number of classes, 2 or more.
    """

    spec = TASKS["classification"]
    fail_below = 0.5
    stop_at = 0.0

    def __init__(self, n_classes: int) -> None:
        self.n_classes = n_classes

    def check_targets(self, batch: Batch) -> None:
        label = batch.targets.get("label")
        if label is None or label.ndim != 1 or label.dtype != torch.int64:
            raise InputContractError('expected targets {"label": int64 (N,)} for classification')
        if len(batch) and (label.min() < 0 or label.max() >= self.n_classes):
            raise InputContractError(
                f"labels must be 0 to {self.n_classes - 1} for {self.n_classes} classes, "
                f"got {int(label.min())} to {int(label.max())}"
            )

    def check_outputs(self, outputs: object, batch: Batch) -> Outputs:
        logits = one_tensor(outputs, batch, f"logits of shape (N, {self.n_classes})")
        if logits.shape != (len(batch), self.n_classes):
            raise ModelContractError(
                f"expected logits of shape ({len(batch)}, {self.n_classes}), one per class, got {tuple(logits.shape)}"
            )
        return logits

    def training_loss(self, outputs: Outputs, batch: Batch) -> Tensor:
        return F.cross_entropy(outputs, batch.targets["label"], reduction="none")

    def decode(self, outputs: Outputs, batch: Batch) -> Predictions:
        return {"prediction": outputs.argmax(1), "probabilities": outputs.softmax(1)}

    def score(self, predictions: Predictions, batch: Batch) -> Tensor:
        return (predictions["prediction"] == batch.targets["label"]).to(torch.float32)

    def facts(self, predictions: Predictions, batch: Batch) -> dict[str, np.ndarray]:
        return {
            "label": batch.targets["label"].cpu().numpy(),
            "prediction": predictions["prediction"].cpu().numpy(),
            "probabilities": predictions["probabilities"].cpu().numpy().astype(np.float32),
        }

    def corpus_metrics(self, facts: Mapping[str, np.ndarray]) -> dict[str, float]:
        label, probabilities = facts["label"], facts["probabilities"]
        right, held = facts["prediction"] == label, np.unique(label)
        metrics = {"balanced_accuracy": float(np.mean([right[label == k].mean() for k in held]))}
        if len(held) == self.n_classes:  # undefined where a class has no sample
            shown = (1,) if self.n_classes == 2 else range(self.n_classes)  # one class against the rest
            metrics["auroc"] = float(np.mean([_area(label == k, probabilities[:, k]) for k in shown]))
        return metrics


def label_weights(labels: np.ndarray) -> np.ndarray:
    """Returns how much each label of each sample counts in the balanced accuracy, averaged over labels.

    A right value counts 1 / (2 s), s being the share of samples with the same value: every label then has balanced
    accuracy as its mean. A label that has the same value in all samples counts nothing.

    Args:
        labels: 0 and 1, (N, L): all samples of a split.

    Returns:
        float32 (N, L); 1 everywhere if no label has both values.
    Source: Brodersen et al. 2010, "The balanced accuracy and its posterior distribution".
    """
    positive = np.asarray(labels, dtype=np.float64).mean(0)
    both = (positive > 0) & (positive < 1)
    if not both.any():
        return np.ones(labels.shape, dtype=np.float32)
    share = np.where(labels == 1, positive, 1 - positive)
    return np.where(both, 0.5 / share / both.mean(), 0.0).astype(np.float32)


class MultiLabelClassification:
    """Several labels at once; the score is the share of labels that are right, each with its weight.

    With the weights of `label_weights` the mean of scores, each times the mean weight of its sample, is the balanced
    accuracy averaged over labels, and whatever lowers a score lowers that. The training loss has the same weights:
    without them a network learns to deny every rare label.

    Args:
        n_labels: Number of labels.
    """

    spec = replace(TASKS["classification"], quality="balanced accuracy")
    fail_below = 0.5
    stop_at = 0.0

    def __init__(self, n_labels: int) -> None:
        self.n_labels = n_labels

    def check_targets(self, batch: Batch) -> None:
        labels, weights = batch.targets.get("labels"), batch.targets.get("weights")
        if labels is None or labels.ndim != 2 or labels.shape[1] != self.n_labels:
            raise InputContractError(f'expected targets {{"labels": float32 (N, {self.n_labels})}} of 0 and 1')
        if weights is None:
            raise InputContractError('expected targets {"weights": float32}, of `label_weights` over the whole split')
        if not torch.isin(labels, torch.tensor([0.0, 1.0], device=labels.device)).all():
            raise InputContractError("multi-label targets must be 0 or 1")
        if len(labels) and (weights.shape != labels.shape or (weights < 0).any() or not weights.any(1).all()):
            raise InputContractError(
                f"weights of labels must be at least 0, of shape {tuple(labels.shape)}, and not all 0 for a sample"
            )

    def check_outputs(self, outputs: object, batch: Batch) -> Outputs:
        logits = one_tensor(outputs, batch, f"logits of shape (N, {self.n_labels})")
        if logits.shape != (len(batch), self.n_labels):
            raise ModelContractError(
                f"expected logits of shape ({len(batch)}, {self.n_labels}), one per label, got {tuple(logits.shape)}"
            )
        return logits

    def training_loss(self, outputs: Outputs, batch: Batch) -> Tensor:
        loss = F.binary_cross_entropy_with_logits(outputs, batch.targets["labels"], reduction="none")
        return (loss * batch.targets["weights"]).mean(1)

    def decode(self, outputs: Outputs, batch: Batch) -> Predictions:
        return {"predictions": (outputs > 0).to(torch.float32), "probabilities": outputs.sigmoid()}

    def score(self, predictions: Predictions, batch: Batch) -> Tensor:
        return weighted_share((predictions["predictions"] == batch.targets["labels"]).to(torch.float32), batch)

    def facts(self, predictions: Predictions, batch: Batch) -> dict[str, np.ndarray]:
        return {
            "labels": batch.targets["labels"].cpu().numpy().astype(np.uint8),
            "predictions": predictions["predictions"].cpu().numpy().astype(np.uint8),
            "probabilities": predictions["probabilities"].cpu().numpy().astype(np.float32),
        }

    def corpus_metrics(self, facts: Mapping[str, np.ndarray]) -> dict[str, float]:
        labels, probabilities = facts["labels"], facts["probabilities"]
        both = [k for k in range(self.n_labels) if 0 < labels[:, k].sum() < len(labels)]
        if not both:
            return {}
        right = facts["predictions"] == labels
        balanced = [(right[labels[:, k] == 0, k].mean() + right[labels[:, k] == 1, k].mean()) / 2 for k in both]
        areas = [_area(labels[:, k] == 1, probabilities[:, k]) for k in both]
        return {"balanced_accuracy": float(np.mean(balanced)), "auroc": float(np.mean(areas))}


def weighted_share(values: Tensor, batch: Batch) -> Tensor:
    """Returns the mean of (N, L) values over labels, each with its weight in the batch: (N,)."""
    weights = batch.targets["weights"].to(values)
    return (values * weights).sum(1) / weights.sum(1)


def _area(positive: np.ndarray, scores: np.ndarray) -> float:
    """Returns the area under the ROC curve: how often a positive sample scores above a negative one, ties half.

    Thousands of resamples are scored, for which `sklearn.metrics.roc_auc_score` takes too long; it is the tests' judge.
    Source: Hanley and McNeil 1982, Radiology 143, doi 10.1148/radiology.143.1.7063747.
    """
    n = int(positive.sum())
    return float((rankdata(scores)[positive].sum() - n * (n + 1) / 2) / (n * (len(scores) - n)))


def build(spec: DatasetSpec) -> Classification | MultiLabelClassification:
    """Returns the classification task of a data set."""
    return MultiLabelClassification(spec.n_classes) if spec.multi_label else Classification(spec.n_classes)
