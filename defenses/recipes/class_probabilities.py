"""What losses on class probabilities share: the data sets they are for, and a divergence."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from registry import DatasetSpec
from registry.errors import InvalidEntryError


def require_one_label(dataset: DatasetSpec, method: str) -> None:
    """Raises InvalidEntryError where a sample has no label, or several at once."""
    if dataset.task != "classification" or dataset.multi_label:
        kind = f"{dataset.task} of several labels" if dataset.multi_label else dataset.task
        raise InvalidEntryError(
            f"{method} compares class probabilities of one label; data set {dataset.name} is {kind}"
        )


def class_divergence(logits: Tensor, clean_logits: Tensor) -> Tensor:
    """Returns the Kullback-Leibler divergence of the clean probabilities from the given ones, (N,)."""
    return F.kl_div(F.log_softmax(logits, 1), F.log_softmax(clean_logits, 1), log_target=True, reduction="none").sum(1)
