"""Adversarial training in which clean and adversarial batches pass through normalisations of their own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from datasets.batch import Batch, Dataset
from datasets.tasks import task_for
from defenses.architectures.dual_norm import DualBatchNorm2d, branch
from defenses.recipes.inner_pgd import inner_pgd, uniform_start, validation_attack
from defenses.recipes.options import InnerOptions, TrainingOptions, read_options
from defenses.recipes.training import Progress, Training, fit
from registry.errors import InvalidEntryError


@dataclass(frozen=True, kw_only=True)
class DualNormOptions(InnerOptions, TrainingOptions):
    """Hyper-parameters of the loop and of the inner attack."""

    def __post_init__(self) -> None:
        InnerOptions.__post_init__(self)
        TrainingOptions.__post_init__(self)


def train(
    model: nn.Module,
    dataset: Dataset,
    options: Mapping[str, object],
    *,
    seed: int,
    device: str,
    progress: Progress | None = None,
) -> Training:
    """Trains a model on the mean of its clean and its adversarial loss; the epoch is selected as it will be used.

    The inner attack goes through the adversarial normalisation.

    Args:
        model: With dual normalisation, see `defenses.architectures.dual_norm`; trained in place.
        dataset: Any task whose outputs are one tensor.
        options: See `DualNormOptions`.
        seed: Seed of everything random.
        device: Torch device.
        progress: Told the finished fraction and a short text after every step, or None.

    Raises:
        InvalidEntryError: The model has no dual normalisation.
    Source: Han et al. 2021, doi 10.1038/s41467-021-24464-3, section Methods.
    """
    if not any(isinstance(module, DualBatchNorm2d) for module in model.modules()):
        raise InvalidEntryError(
            f"expected a model with dual batch normalisation, got {type(model).__name__} without; "
            'set build="defenses.architectures.dual_norm:build"'
        )
    chosen = read_options(DualNormOptions, options)
    task = task_for(dataset.spec)

    def batch_loss(model: nn.Module, batch: Batch, generator: torch.Generator) -> Tensor:
        def loss(outputs: Tensor) -> Tensor:
            return task.training_loss(outputs, batch)

        with branch(model, "adversarial"):
            start = uniform_start(batch.inputs, chosen.eps, generator)
            adversarials = inner_pgd(model, batch.inputs, start, loss, chosen, chosen.steps)
            robust = loss(model(adversarials)).mean()
        with branch(model, "clean"):
            return (loss(model(batch.inputs)).mean() + robust) / 2

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
