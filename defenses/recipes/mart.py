"""MART: adversarial training that weighs a sample's divergence by how unsure the model is of its clean image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from datasets.batch import Batch, Dataset
from datasets.tasks import task_for
from defenses.recipes.class_probabilities import class_divergence, require_one_label
from defenses.recipes.inner_pgd import inner_pgd, uniform_start, validation_attack
from defenses.recipes.options import InnerOptions, TrainingOptions, read_options
from defenses.recipes.training import Progress, Training, fit
from registry.errors import InvalidEntryError

FLOOR = 1e-4
"""Keeps the logarithm of the margin term finite where a wrong class is certain."""


@dataclass(frozen=True, kw_only=True)
class MartOptions(InnerOptions, TrainingOptions):
    """Hyper-parameters of the loop, of the inner attack, and the weight of the divergence."""

    beta: float = 5.0
    """Weight of the divergence, lambda in the paper."""

    def __post_init__(self) -> None:
        InnerOptions.__post_init__(self)
        TrainingOptions.__post_init__(self)
        if self.beta < 0:
            raise InvalidEntryError(f"option beta must be 0 or more, got {self.beta}")


def train(
    model: nn.Module,
    dataset: Dataset,
    options: Mapping[str, object],
    *,
    seed: int,
    device: str,
    progress: Progress | None = None,
) -> Training:
    """Trains a classifier by MART and selects the epoch of the best robust validation score.

    Args:
        model: Trained in place.
        dataset: Classification with one label per sample.
        options: See `MartOptions`.
        seed: Seed of everything random.
        device: Torch device.
        progress: Told the finished fraction and a short text after every step, or None.

    Raises:
        InvalidEntryError: Another task, or several labels at once.
    Source: Wang et al. 2020, "Improving Adversarial Robustness Requires Revisiting Misclassified Examples", ICLR,
    algorithm 1; the inner attack ascends the cross-entropy.
    """
    require_one_label(dataset.spec, "MART")
    chosen = read_options(MartOptions, options)
    task = task_for(dataset.spec)

    def batch_loss(model: nn.Module, batch: Batch, generator: torch.Generator) -> Tensor:
        start = uniform_start(batch.inputs, chosen.eps, generator)
        adversarials = inner_pgd(
            model, batch.inputs, start, lambda outputs: task.training_loss(outputs, batch), chosen, chosen.steps
        )
        return mart_loss(model(batch.inputs), model(adversarials), batch.targets["label"], chosen.beta).mean()

    return fit(
        model,
        dataset,
        chosen,
        seed=seed,
        device=device,
        progress=progress,
        batch_loss=batch_loss,
        attack=validation_attack(task, chosen),
    )


def mart_loss(clean_logits: Tensor, logits: Tensor, label: Tensor, beta: float) -> Tensor:
    """Returns -log q_y - log(1.0001 - max q_k over k != y) + beta KL(p || q) (1 - p_y), (N,).

    Args:
        clean_logits: Of the clean images, whose probabilities are p, (N, K).
        logits: Of the adversarials, whose probabilities are q, (N, K).
        label: y, int64 (N,).
        beta: Weight of the divergence.
    Source: Wang et al. 2020, the boosted cross-entropy and the regulariser of its training objective.
    """
    wrong = logits.softmax(1).scatter(1, label[:, None], 0.0).amax(1)
    boosted = F.cross_entropy(logits, label, reduction="none") - torch.log(1 + FLOOR - wrong)
    unsure = 1 - clean_logits.softmax(1).gather(1, label[:, None])[:, 0]
    return boosted + beta * class_divergence(logits, clean_logits) * unsure
