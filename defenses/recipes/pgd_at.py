"""Adversarial training: the loss is taken at the end of a PGD attack on each training image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from datasets.batch import Batch, Dataset
from datasets.tasks import task_for
from defenses.recipes.inner_pgd import inner_pgd, uniform_start, validation_attack
from defenses.recipes.options import InnerOptions, TrainingOptions, WeightOptions, read_options
from defenses.recipes.training import Progress, Training, fit
from defenses.recipes.weight_average import averages
from defenses.recipes.weight_perturbation import WeightPerturbation


@dataclass(frozen=True, kw_only=True)
class PgdAtOptions(InnerOptions, TrainingOptions, WeightOptions):
    """Hyper-parameters of the loop, of the inner attack, and of the weights."""

    random_start: bool = True
    """Start at a uniform point of the ball instead of the image."""

    def __post_init__(self) -> None:
        InnerOptions.__post_init__(self)
        TrainingOptions.__post_init__(self)
        WeightOptions.__post_init__(self)


def train(
    model: nn.Module,
    dataset: Dataset,
    options: Mapping[str, object],
    *,
    seed: int,
    device: str,
    progress: Progress | None = None,
) -> Training:
    """Trains a model on PGD adversarials of its own and selects the epoch of the best robust validation score.

    The inner attack ascends the task's training loss (cross-entropy; segmentation: cross-entropy plus soft Dice).

    Args:
        model: Trained in place.
        dataset: Any task whose outputs are one tensor.
        options: See `PgdAtOptions`.
        seed: Seed of everything random.
        device: Torch device.
        progress: Told the finished fraction and a short text after every step, or None.
    Source: Madry et al. 2018, arXiv:1706.06083, equation 2.1; the optimiser, the networks and the numbers of steps
    are this suite's.
    """
    chosen = read_options(PgdAtOptions, options)
    task, perturbation = task_for(dataset.spec), WeightPerturbation(chosen.awp_gamma)

    def batch_loss(model: nn.Module, batch: Batch, generator: torch.Generator) -> Tensor:
        def loss(outputs: Tensor) -> Tensor:
            return task.training_loss(outputs, batch)

        start = uniform_start(batch.inputs, chosen.eps, generator) if chosen.random_start else batch.inputs
        adversarials = inner_pgd(model, batch.inputs, start, loss, chosen, chosen.steps)
        return perturbation.worst(model, lambda: task.training_loss(model(adversarials), batch).mean())

    return fit(
        model,
        dataset,
        chosen,
        seed=seed,
        device=device,
        progress=progress,
        batch_loss=batch_loss,
        attack=validation_attack(task, chosen),
        callbacks=(perturbation, *averages(chosen.ema_decay)),
    )
