"""Input-gradient regularisation: the loss plus the squared length of its gradient with respect to the image."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from datasets.batch import Batch, Dataset
from datasets.tasks import task_for
from defenses.recipes.inner_pgd import validation_attack
from defenses.recipes.options import InnerOptions, TrainingOptions, read_options
from defenses.recipes.training import Progress, Training, fit
from registry.errors import InvalidEntryError


@dataclass(frozen=True, kw_only=True)
class InputGradientOptions(TrainingOptions):
    """Hyper-parameters of the loop, the weight of the penalty, and the attack that selects the epoch."""

    penalty: float = 100.0
    """Weight of the squared gradient; images are in [0, 1] and squares are summed over pixels."""
    eps: float = 4 / 255
    """Linf radius of the attack on the validation split, in input units [0, 1]."""
    validation_steps: int = 10
    """Its gradient steps."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.penalty < 0:
            raise InvalidEntryError(f"option penalty must be 0 or more, got {self.penalty}")


def train(
    model: nn.Module,
    dataset: Dataset,
    options: Mapping[str, object],
    *,
    seed: int,
    device: str,
    progress: Progress | None = None,
) -> Training:
    """Trains a model by double backpropagation and selects the epoch of the best score under PGD on `val`.

    Args:
        model: Trained in place.
        dataset: Any task whose outputs are one tensor.
        options: See `InputGradientOptions`.
        seed: Seed of everything random.
        device: Torch device.
        progress: Told the finished fraction and a short text after every step, or None.
    Source: Ross and Doshi-Velez 2018, arXiv:1711.09404, the objective of its section on gradient regularization.
    """
    chosen = read_options(InputGradientOptions, options)
    task = task_for(dataset.spec)
    selecting = InnerOptions(eps=chosen.eps, validation_steps=chosen.validation_steps)

    def batch_loss(model: nn.Module, batch: Batch, generator: torch.Generator) -> Tensor:
        return penalised_loss(
            model, batch.inputs, lambda outputs: task.training_loss(outputs, batch), chosen.penalty
        ).mean()

    return fit(
        model,
        dataset,
        chosen,
        seed=seed,
        device=device,
        progress=progress,
        batch_loss=batch_loss,
        attack=validation_attack(task, selecting),
    )


def penalised_loss(model: nn.Module, inputs: Tensor, loss: Callable[[Tensor], Tensor], penalty: float) -> Tensor:
    """Returns the loss of each sample plus `penalty` times its squared input gradient, (N,), differentiable.

    Args:
        model: Twice differentiable almost everywhere.
        inputs: float32 (N, ...).
        loss: `loss(outputs)`, (N,).
        penalty: Weight of the sum of squares.
    """
    inputs = inputs.detach().requires_grad_(True)
    losses = loss(model(inputs))
    (gradient,) = torch.autograd.grad(losses.sum(), inputs, create_graph=True)
    return losses + penalty * gradient.pow(2).flatten(1).sum(1)
