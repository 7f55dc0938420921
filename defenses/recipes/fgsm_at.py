"""Adversarial training with a single step: Fast-AT and N-FGSM, at about twice the cost of standard training."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from datasets.batch import Batch, Dataset
from datasets.tasks import task_for
from defenses.recipes.inner_pgd import inner_gradient, uniform_start, validation_attack
from defenses.recipes.modes import eval_mode
from defenses.recipes.options import InnerOptions, TrainingOptions, read_options
from defenses.recipes.training import Progress, Training, fit
from registry import Norm
from registry.errors import InvalidEntryError


@dataclass(frozen=True, kw_only=True)
class FgsmAtOptions(InnerOptions, TrainingOptions):
    """Hyper-parameters of the loop and of the single step, whose length is `step_size`, 1.25 eps where it is None.

    The norm is Linf; `validation_steps` are those of the PGD attack that selects the epoch, whose steps have the length
    of every other recipe's, 2.5 eps / `validation_steps`.
    """

    steps: int = 1
    """Always 1."""
    noise: float = 1.0
    """Half-width of the uniform noise the step starts from, in units of eps."""
    project: bool = True
    """Move the result back into the ball of radius eps around the image."""

    def __post_init__(self) -> None:
        InnerOptions.__post_init__(self)
        TrainingOptions.__post_init__(self)
        if self.steps != 1 or self.norm != Norm.LINF or self.noise < 0:
            raise InvalidEntryError(
                "single-step training has steps=1, norm Linf and noise of 0 or more, got "
                f"{self.steps}, {self.norm} and {self.noise:g}; for more steps take defenses.recipes.pgd_at:train"
            )


def train(
    model: nn.Module,
    dataset: Dataset,
    options: Mapping[str, object],
    *,
    seed: int,
    device: str,
    progress: Progress | None = None,
) -> Training:
    """Trains a model on single-step adversarials and selects the epoch of the best score under PGD on `val`.

    Single-step training can collapse within an epoch: it then resists its own step and falls to several ones
    (catastrophic overfitting). The curve shows that as a drop of `val_robust`, and such epochs are not kept.

    Args:
        model: Trained in place.
        dataset: Any task whose outputs are one tensor.
        options: See `FgsmAtOptions`.
        seed: Seed of everything random.
        device: Torch device.
        progress: Told the finished fraction and a short text after every step, or None.
    Source: Wong et al. 2020, arXiv:2001.03994, algorithm 3; de Jorge et al. 2022, arXiv:2202.01181, algorithm 1,
    with noise 2 and without projection.
    """
    chosen = read_options(FgsmAtOptions, options)
    task = task_for(dataset.spec)
    selecting = InnerOptions(eps=chosen.eps, validation_steps=chosen.validation_steps, bfloat16=chosen.bfloat16)

    def batch_loss(model: nn.Module, batch: Batch, generator: torch.Generator) -> Tensor:
        adversarials = single_step(model, batch, task.training_loss, chosen, generator)
        return task.training_loss(model(adversarials), batch).mean()

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


def single_step(
    model: nn.Module,
    batch: Batch,
    loss: Callable[[Tensor, Batch], Tensor],
    options: FgsmAtOptions,
    generator: torch.Generator,
) -> Tensor:
    """Returns noisy inputs after one step along the sign of the gradient, clipped to [0, 1], detached.

    The noisy inputs are clipped to [0, 1] before the gradient is taken, as in both authors' codes.

    Args:
        model: In eval mode meanwhile; its mode is restored.
        batch: The clean samples.
        loss: `loss(outputs, batch)`: what the step ascends, (N,).
        options: Radius, noise, step length, projection.
        generator: Generator on the CPU.
    """
    inputs, eps = batch.inputs, options.eps
    points = uniform_start(inputs, options.noise * eps, generator).clamp(0, 1)
    length = options.step_size if options.step_size is not None else 1.25 * eps
    with eval_mode(model):
        gradient = inner_gradient(model, points, lambda outputs: loss(outputs, batch), bfloat16=options.bfloat16)
    change = points + length * gradient.sign() - inputs
    if options.project:
        change = change.clamp(-eps, eps)
    return (inputs + change).clamp(0, 1)
