"""Training on images with Gaussian noise: what augmentation alone gives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from datasets.batch import Batch, Dataset
from datasets.tasks import task_for
from defenses.recipes.options import TrainingOptions, read_options
from defenses.recipes.training import Progress, Training, fit
from registry.errors import InvalidEntryError


@dataclass(frozen=True, kw_only=True)
class GaussianOptions(TrainingOptions):
    """Hyper-parameters of the loop, and the noise."""

    sigma: float = 0.1
    """Standard deviation of the noise, in input units [0, 1]."""
    clean_share: float = 0.5
    """Chance of a training image to stay clean: statistics of noisy images alone do not fit clean ones."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.sigma <= 1:
            raise InvalidEntryError(f"option sigma is in input units [0, 1], got {self.sigma:g}")
        if not 0 <= self.clean_share <= 1:
            raise InvalidEntryError(f"option clean_share is a share in [0, 1], got {self.clean_share:g}")


def train(
    model: nn.Module,
    dataset: Dataset,
    options: Mapping[str, object],
    *,
    seed: int,
    device: str,
    progress: Progress | None = None,
) -> Training:
    """Trains a model on clean and noisy images, not clipped, and selects the best epoch on clean validation images.

    Args:
        model: Trained in place.
        dataset: Any task whose outputs are one tensor.
        options: See `GaussianOptions`.
        seed: Seed of everything random.
        device: Torch device.
        progress: Told the finished fraction and a short text after every step, or None.
    Source: Rusak et al. 2020, arXiv:2001.06057, its training with Gaussian noise of one strength.
    """
    chosen = read_options(GaussianOptions, options)
    task = task_for(dataset.spec)

    def batch_loss(model: nn.Module, batch: Batch, generator: torch.Generator) -> Tensor:
        inputs = batch.inputs
        noise = chosen.sigma * torch.randn(inputs.shape, generator=generator)
        noise[torch.rand(len(inputs), generator=generator) < chosen.clean_share] = 0
        return task.training_loss(model(inputs + noise.to(inputs.device)), batch).mean()

    return fit(model, dataset, chosen, seed=seed, device=device, progress=progress, batch_loss=batch_loss)
