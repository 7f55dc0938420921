"""Training of DGMP: a generator on clean images first, then the encoder that purifies through the frozen generator."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from datasets.batch import Batch, Dataset
from defenses.purifiers.critic import Critic
from defenses.purifiers.dgmp import ToldPurified
from defenses.purifiers.purified import LatentPurified
from defenses.recipes.generator import GeneratorOptions, Triplet, fit_generator
from defenses.recipes.options import TrainingOptions, read_options
from defenses.recipes.purification import fit_purifier, named
from defenses.recipes.training import Progress, Training, fit
from defenses.seeding import seeded
from registry.errors import InvalidEntryError


@dataclass(frozen=True, kw_only=True)
class DgmpOptions(GeneratorOptions):
    """Hyper-parameters of both stages; each has all `epochs`."""

    noise: float = 0.1
    """Standard deviation, in input units, of the Gaussian noise on the inputs of the second stage."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.noise < 0:
            raise InvalidEntryError(f"option noise must be 0 or more, got {self.noise}")


def train(
    model: LatentPurified,
    dataset: Dataset,
    options: Mapping[str, object],
    *,
    seed: int,
    device: str,
    progress: Progress | None = None,
) -> Training:
    """Trains the generator with an encoder of its own, freezes it, and trains the purifier's encoder on noisy images.

    Both stages have the same triplet loss between the purified and the clean image; the classifier is not trained.

    Args:
        model: Trained in place; its generator decides whether labels are used.
        dataset: Classification of single images.
        options: See `DgmpOptions`.
        seed: Seed of everything random.
        device: Torch device.
        progress: Told the finished fraction and a short text after every step, or None.

    Returns:
        The training of the second stage; its time and its curve include the first.
    Source: Dhar et al. 2026, doi 10.1016/j.inffus.2025.103822, as described in its abstract and documentation.
    """
    chosen = read_options(DgmpOptions, options)

    def tell(before: float) -> Progress | None:
        return None if progress is None else lambda done, text: progress(before + done / 2, text)

    shared, generator = {"seed": seed, "device": device}, model.transform.generator
    first = fit_generator(generator, model.net, dataset, chosen, progress=tell(0.0), **shared)
    generator.requires_grad_(False)
    with seeded(seed, device):
        loss = Triplet(Critic(dataset.spec.input_shape).to(device), chosen, noise=chosen.noise)
    told = {"progress": tell(0.5), "stage": "encoder", **shared}
    second = fit_purifier(model, dataset, chosen, batch_loss=loss, callbacks=(loss,), **told)
    seconds, curve = round(first.seconds + second.seconds, 3), (*named(first.curve, "generator"), *second.curve)
    return dataclasses.replace(second, seconds=seconds, curve=curve)


def train_told_classifier(
    model: ToldPurified,
    dataset: Dataset,
    options: Mapping[str, object],
    *,
    seed: int,
    device: str,
    progress: Progress | None = None,
) -> Training:
    """Trains the classifier on purified training images whose generator is told their labels.

    The last epoch is kept: validation does not tell the labels, so it cannot select one.

    Args:
        model: Trained in place; its purifier is frozen.
        dataset: Classification with one label per image.
        options: See `TrainingOptions`.
        seed: Seed of everything random.
        device: Torch device.
        progress: Told the finished fraction and a short text after every step, or None.
    """
    chosen = read_options(TrainingOptions, options)

    def batch_loss(model: ToldPurified, batch: Batch, generator: torch.Generator) -> Tensor:
        label = batch.targets["label"]
        told = F.one_hot(label, dataset.spec.n_classes).to(batch.inputs.dtype)
        return F.cross_entropy(model(batch.inputs, told), label)

    loop = dataclasses.replace(chosen, validate_every=chosen.epochs)
    training = fit(model, dataset, loop, seed=seed, device=device, progress=progress, batch_loss=batch_loss)
    return dataclasses.replace(training, options=dataclasses.asdict(chosen))
