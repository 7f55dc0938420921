"""Training of a small diffusion model on clean images."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from datasets.batch import Batch, Dataset
from defenses.purifiers.purified import Purified
from defenses.recipes.options import TrainingOptions, read_options
from defenses.recipes.purification import fit_purifier
from defenses.recipes.training import Progress, Training


def train(
    model: Purified,
    dataset: Dataset,
    options: Mapping[str, object],
    *,
    seed: int,
    device: str,
    progress: Progress | None = None,
) -> Training:
    """Trains the U-Net to name the noise in clean images at times that purification visits; the classifier stays.

    Args:
        model: Trained in place; its purifier is a `DiffusionPurifier`.
        dataset: Classification of single images.
        options: See `TrainingOptions`.
        seed: Seed of everything random.
        device: Torch device.
        progress: Told the finished fraction and a short text after every step, or None.
    Source: Ho et al. 2020, arXiv:2006.11239, equation 14, with times from 1 to t* only.
    """
    chosen = read_options(TrainingOptions, options)

    def batch_loss(model: Purified, batch: Batch, generator: torch.Generator) -> Tensor:
        inputs, purifier = batch.inputs, model.transform
        times = torch.randint(1, purifier.times[0] + 1, (len(inputs),), generator=generator).to(inputs.device)
        noise = torch.randn(inputs.shape, generator=generator).to(inputs.device)
        found = purifier.unet(purifier.diffuse(2 * inputs - 1, times, noise), times.to(inputs.dtype))
        return F.mse_loss(found, noise)

    return fit_purifier(model, dataset, chosen, seed=seed, device=device, progress=progress, batch_loss=batch_loss)
