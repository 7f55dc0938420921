"""TRADES: the clean loss plus beta times how far an attack can move the predicted probabilities."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from datasets.batch import Batch, Dataset
from datasets.tasks import task_for
from defenses.recipes.inner_pgd import inner_pgd, validation_attack
from defenses.recipes.modes import eval_mode
from defenses.recipes.options import InnerOptions, TrainingOptions, read_options
from defenses.recipes.training import Progress, Training, fit
from registry.errors import InvalidEntryError

START_NOISE = 0.001
"""Standard deviation of the noise the inner attack starts from: at the image itself the divergence has no gradient."""


@dataclass(frozen=True, kw_only=True)
class TradesOptions(InnerOptions, TrainingOptions):
    """Hyper-parameters of the loop, of the inner attack, and the weight of the regulariser."""

    beta: float = 6.0
    """Weight of the divergence, 1/lambda in the paper."""

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
    if dataset.spec.task != "classification" or dataset.spec.multi_label:
        raise InvalidEntryError(
            f"TRADES compares class probabilities of one label; data set {dataset.spec.name} is {dataset.spec.task}"
        )
    chosen = read_options(TradesOptions, options)
    task = task_for(dataset.spec)

    def batch_loss(model: nn.Module, batch: Batch, generator: torch.Generator) -> Tensor:
        adversarials = _furthest(model, batch.inputs, chosen, generator)
        logits = model(batch.inputs)
        divergence = _divergence(model(adversarials), logits).mean()
        return task.training_loss(logits, batch).mean() + chosen.beta * divergence

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


def _furthest(model: nn.Module, inputs: Tensor, options: TradesOptions, generator: torch.Generator) -> Tensor:
    """Returns inputs within the ball whose probabilities are far from those of the clean inputs."""
    with eval_mode(model), torch.no_grad():
        clean = model(inputs)
    noise = torch.randn(inputs.shape, generator=generator).to(inputs.device)

    def loss(outputs: Tensor) -> Tensor:
        return _divergence(outputs, clean)

    return inner_pgd(model, inputs, inputs + START_NOISE * noise, loss, options, options.steps)


def _divergence(logits: Tensor, clean_logits: Tensor) -> Tensor:
    """Returns the Kullback-Leibler divergence of the clean probabilities from the given ones, (N,)."""
    return F.kl_div(F.log_softmax(logits, 1), F.log_softmax(clean_logits, 1), log_target=True, reduction="none").sum(1)
