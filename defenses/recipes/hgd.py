"""Training of a denoiser by what the classifier makes of its images: high-level representation guided denoising."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from datasets.batch import Batch, Dataset
from datasets.tasks import task_for
from defenses.purifiers.purified import Purified
from defenses.recipes.inner_pgd import inner_pgd, uniform_start
from defenses.recipes.options import InnerOptions, TrainingOptions, read_options
from defenses.recipes.purification import fit_purifier
from defenses.recipes.training import Progress, Training


@dataclass(frozen=True, kw_only=True)
class HgdOptions(InnerOptions, TrainingOptions):
    """Hyper-parameters of the loop and of the attack on the classifier."""

    def __post_init__(self) -> None:
        InnerOptions.__post_init__(self)
        TrainingOptions.__post_init__(self)


def train(
    model: Purified,
    dataset: Dataset,
    options: Mapping[str, object],
    *,
    seed: int,
    device: str,
    progress: Progress | None = None,
) -> Training:
    """Trains the denoiser so that the classifier's logits of denoised images are those of the clean ones.

    A batch holds its images twice: clean, and as PGD adversarials of the classifier alone, as published: the attack
    does not see the denoiser. The classifier stays as it is.

    Args:
        model: Trained in place.
        dataset: Classification of single images.
        options: See `HgdOptions`; `validation_steps` is not used, as no attack selects the epoch.
        seed: Seed of everything random.
        device: Torch device.
        progress: Told the finished fraction and a short text after every step, or None.
    Source: Liao et al. 2018, arXiv:1712.02976, section 3.3, the logits guided denoiser.
    """
    chosen = read_options(HgdOptions, options)
    task = task_for(dataset.spec)

    def batch_loss(model: Purified, batch: Batch, generator: torch.Generator) -> Tensor:
        def loss(outputs: Tensor) -> Tensor:
            return task.training_loss(outputs, batch)

        inputs = batch.inputs
        start = uniform_start(inputs, chosen.eps, generator)
        adversarials = inner_pgd(model.net, inputs, start, loss, chosen, chosen.steps)
        return guided_loss(model, inputs, inputs) + guided_loss(model, adversarials, inputs)

    return fit_purifier(model, dataset, chosen, seed=seed, device=device, progress=progress, batch_loss=batch_loss)


def guided_loss(model: Purified, inputs: Tensor, originals: Tensor) -> Tensor:
    """Returns the mean absolute difference between logits of denoised inputs and of the original images."""
    with torch.no_grad():
        goal = model.net(originals)
    return (model(inputs) - goal).abs().sum(1).mean()
