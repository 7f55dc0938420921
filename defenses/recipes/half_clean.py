"""Adversarial training on two halves: the loss of the clean images and the loss of their PGD adversarials."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from datasets.batch import Batch, Dataset
from datasets.tasks import task_for
from defenses.recipes.inner_pgd import inner_pgd, uniform_start, validation_attack
from defenses.recipes.modes import eval_mode
from defenses.recipes.options import read_options
from defenses.recipes.pgd_at import PgdAtOptions
from defenses.recipes.training import Progress, Training, fit
from registry.errors import InvalidEntryError


def train(
    model: nn.Module,
    dataset: Dataset,
    options: Mapping[str, object],
    *,
    seed: int,
    device: str,
    progress: Progress | None = None,
) -> Training:
    """Trains a classifier on the mean of its clean and its adversarial loss; the epoch is selected on adversarials.

    The inner attack leads away from the class that the model predicts for the clean image, as in the code of parametric
    noise injection; both losses are taken at the true label.

    Args:
        model: Trained in place.
        dataset: Classification with one label per sample.
        options: See `defenses.recipes.pgd_at.PgdAtOptions`.
        seed: Seed of everything random.
        device: Torch device.
        progress: Told the finished fraction and a short text after every step, or None.

    Raises:
        InvalidEntryError: Another task, or several labels at once.
    Source: He et al. 2019, arXiv:1811.09310, with weights of one half.
    """
    if dataset.spec.task != "classification" or dataset.spec.multi_label:
        raise InvalidEntryError(
            f"this recipe needs one label per sample; data set {dataset.spec.name} is {dataset.spec.task}: "
            "choose defenses.recipes.pgd_at:train"
        )
    chosen = read_options(PgdAtOptions, options)
    task = task_for(dataset.spec)

    def batch_loss(model: nn.Module, batch: Batch, generator: torch.Generator) -> Tensor:
        with eval_mode(model), torch.no_grad():
            predicted = model(batch.inputs).argmax(1)

        def loss(outputs: Tensor) -> Tensor:
            return F.cross_entropy(outputs, predicted, reduction="none")

        start = uniform_start(batch.inputs, chosen.eps, generator) if chosen.random_start else batch.inputs
        adversarials = inner_pgd(model, batch.inputs, start, loss, chosen, chosen.steps)
        clean = task.training_loss(model(batch.inputs), batch).mean()
        return 0.5 * clean + 0.5 * task.training_loss(model(adversarials), batch).mean()

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
