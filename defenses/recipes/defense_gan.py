"""Training of Defense-GAN's generator; its inversion needs no training."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from datasets.batch import Dataset
from defenses.purifiers.purified import Purified
from defenses.recipes.generator import GeneratorOptions, fit_generator
from defenses.recipes.options import read_options
from defenses.recipes.purification import measured_psnr
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
    """Trains the generator on clean images; the classifier stays as it is.

    Args:
        model: Trained in place.
        dataset: Classification of single images.
        options: See `GeneratorOptions`.
        seed: Seed of everything random.
        device: Torch device.
        progress: Told the finished fraction and a short text after every step, or None.

    Returns:
        The training. Accuracy and loss are those of the training's own encoder; `val_psnr` is that of the inversion.
    """
    chosen = read_options(GeneratorOptions, options)
    generator = model.transform.generator
    training = fit_generator(generator, model.net, dataset, chosen, seed=seed, device=device, progress=progress)
    model.to(device).eval()
    last = training.curve[-1] | {"val_psnr": measured_psnr(model, dataset, seed, device)}
    return dataclasses.replace(training, curve=(*training.curve[:-1], last))
