"""TRADES: the clean loss plus beta times how far an attack can move the predicted probabilities."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from datasets.batch import Batch, Dataset
from datasets.tasks import task_for
from defenses.recipes.class_probabilities import class_divergence, require_one_label
from defenses.recipes.inner_pgd import inner_pgd, validation_attack
from defenses.recipes.modes import eval_mode
from defenses.recipes.options import InnerOptions, TrainingOptions, WeightOptions, read_options
from defenses.recipes.training import Progress, Training, fit
from defenses.recipes.weight_average import averages
from defenses.recipes.weight_perturbation import WeightPerturbation
from registry.errors import InvalidEntryError

START_NOISE = 0.001
"""Standard deviation of the noise the inner attack starts from: at the image itself the divergence has no gradient."""


@dataclass(frozen=True, kw_only=True)
class TradesOptions(InnerOptions, TrainingOptions, WeightOptions):
    """Hyper-parameters of the loop, of the inner attack, of the weights, and the weight of the regulariser."""

    beta: float = 6.0
    """Weight of the divergence, 1/lambda in the paper."""

    def __post_init__(self) -> None:
        InnerOptions.__post_init__(self)
        TrainingOptions.__post_init__(self)
        WeightOptions.__post_init__(self)
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
    """Trains a classifier by TRADES and selects the epoch of the best robust validation score.

    Args:
        model: Trained in place.
        dataset: Classification with one label per sample.
        options: See `TradesOptions`.
        seed: Seed of everything random.
        device: Torch device.
        progress: Told the finished fraction and a short text after every step, or None.

    Raises:
        InvalidEntryError: Another task, or several labels at once.
    Source: Zhang et al. 2019, arXiv:1901.08573, equation 5 and algorithm 1.
    """
    require_one_label(dataset.spec, "TRADES")
    chosen = read_options(TradesOptions, options)
    task, perturbation = task_for(dataset.spec), WeightPerturbation(chosen.awp_gamma)

    def batch_loss(model: nn.Module, batch: Batch, generator: torch.Generator) -> Tensor:
        adversarials = _furthest(model, batch.inputs, chosen, generator)

        def loss() -> Tensor:
            logits = model(batch.inputs)
            divergence = class_divergence(model(adversarials), logits).mean()
            return task.training_loss(logits, batch).mean() + chosen.beta * divergence

        return perturbation.worst(model, loss)

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


def _furthest(model: nn.Module, inputs: Tensor, options: TradesOptions, generator: torch.Generator) -> Tensor:
    """Returns inputs within the ball whose probabilities are far from those of the clean inputs."""
    with eval_mode(model), torch.no_grad():
        clean = model(inputs)
    noise = torch.randn(inputs.shape, generator=generator).to(inputs.device)

    def loss(outputs: Tensor) -> Tensor:
        return class_divergence(outputs, clean)

    return inner_pgd(model, inputs, inputs + START_NOISE * noise, loss, options, options.steps)
