"""Training of MagNet's reformer: rebuild clean images from noisy ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from datasets.batch import Batch, Dataset
from defenses.purifiers.purified import Purified
from defenses.recipes.options import TrainingOptions, read_options
from defenses.recipes.purification import fit_purifier
from defenses.recipes.training import Progress, Training
from registry.errors import InvalidEntryError


@dataclass(frozen=True, kw_only=True)
class ReformerOptions(TrainingOptions):
    """Hyper-parameters of the loop, and the noise."""

    noise: float = 0.1
    """Standard deviation of the Gaussian noise on the inputs, in input units."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.noise < 0:
            raise InvalidEntryError(f"option noise must be 0 or more, got {self.noise}")


def train(
    model: Purified,
    dataset: Dataset,
    options: Mapping[str, object],
    *,
    seed: int,
    device: str,
    progress: Progress | None = None,
) -> Training:
    """Trains the reformer on the mean squared error to the clean image; the classifier stays as it is.

    Args:
        model: Trained in place.
        dataset: Classification of single images.
        options: See `ReformerOptions`.
        seed: Seed of everything random.
        device: Torch device.
        progress: Told the finished fraction and a short text after every step, or None.
    Source: Meng and Chen 2017, arXiv:1705.09064, sections 4.1 and 5.1.
    """
    chosen = read_options(ReformerOptions, options)

    def batch_loss(model: Purified, batch: Batch, generator: torch.Generator) -> Tensor:
        noise = chosen.noise * torch.randn(batch.inputs.shape, generator=generator).to(batch.inputs.device)
        return F.mse_loss(model.transform((batch.inputs + noise).clamp(0, 1)), batch.inputs)

    return fit_purifier(model, dataset, chosen, seed=seed, device=device, progress=progress, batch_loss=batch_loss)
