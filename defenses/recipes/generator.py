"""Training of a generator of clean images: a variational autoencoder with a critic, the triplet loss of DGMP."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from datasets.batch import Batch, Dataset
from defenses.purifiers.critic import Adversary, Critic
from defenses.purifiers.purified import LatentPurified
from defenses.purifiers.vae import Encoder, Generator, LatentPurifier
from defenses.recipes.callbacks import Callback
from defenses.recipes.options import TrainingOptions
from defenses.recipes.purification import fit_purifier
from defenses.recipes.training import Progress, Training
from defenses.seeding import seeded
from registry.errors import InvalidEntryError


@dataclass(frozen=True, kw_only=True)
class GeneratorOptions(TrainingOptions):
    """Hyper-parameters of the loop, of the triplet loss and of the critic."""

    mse: float = 0.89
    """Weight of the squared error, summed over an image's values."""
    kl: float = 0.01
    """Weight of the Kullback-Leibler divergence of an image's code from the standard normal distribution."""
    wasserstein: float = 0.1
    """Weight of the critic's score."""
    critic_lr: float = 5e-4
    """Learning rate of the critic's Adam."""
    penalty: float = 10.0
    """Weight of the critic's gradient penalty."""
    class_weight: float = 5.0
    """Weight of the class of images generated for a drawn label; only for a class-conditional generator."""

    def __post_init__(self) -> None:
        super().__post_init__()
        weights = {name: getattr(self, name) for name in ("mse", "kl", "wasserstein", "penalty", "class_weight")}
        if min(weights.values()) < 0 or self.critic_lr <= 0:
            raise InvalidEntryError(f"expected weights of 0 or more and critic_lr > 0, got {weights}, {self.critic_lr}")


def fit_generator(
    generator: Generator,
    net: nn.Module,
    dataset: Dataset,
    options: GeneratorOptions,
    *,
    seed: int,
    device: str,
    progress: Progress | None,
) -> Training:
    """Trains a generator with an encoder that is thrown away.

    Args:
        generator: Trained in place.
        net: Classifier whose accuracy on rebuilt images is reported; it stays as it is.
        dataset: Classification of single images; only a class-conditional generator learns from its labels.
        options: Hyper-parameters.
        seed: Seed of everything random.
        device: Torch device.
        progress: Told the finished fraction and a short text after every step, or None.
    """
    shape = dataset.spec.input_shape
    with seeded(seed, device):
        model = LatentPurified(LatentPurifier(Encoder(shape, generator.latent), generator), net)
        critic = Critic(shape, generator.n_labels).to(device)
    loss, shared = Triplet(critic, options), {"seed": seed, "device": device, "progress": progress}
    return fit_purifier(model, dataset, options, batch_loss=loss, callbacks=(loss,), stage="generator", **shared)


class Triplet(Callback):
    """The loss of a batch: squared error, divergence of the code, and a critic that learns meanwhile.

    It goes along with the training as a callback, too: an interrupted one has to find its critic again.

    Args:
        critic: On the device; with classes where a class-conditional generator is trained.
        options: Weights.
        noise: Standard deviation of the Gaussian noise on the inputs of the encoder, in input units.
    Source: Dhar et al. 2026, doi 10.1016/j.inffus.2025.103822, as described in its abstract and documentation; the
    released code takes the three terms of the discriminator's tag instead of the image.
    """

    def __init__(self, critic: Critic, options: GeneratorOptions, *, noise: float = 0.0) -> None:
        self._adversary = Adversary(critic, lr=options.critic_lr, penalty=options.penalty)
        self._critic, self._options, self._noise = critic, options, noise

    def __call__(self, model: LatentPurified, batch: Batch, generator: torch.Generator) -> Tensor:
        inputs, purifier, weights = batch.inputs, model.transform, self._options
        classes = purifier.generator.n_labels
        told = F.one_hot(batch.targets["label"], classes) if classes else None
        noise = self._noise * torch.randn(inputs.shape, generator=generator).to(inputs.device)
        restored, mean, log_variance = purifier.restore((inputs + noise).clamp(0, 1), told)
        generates = self._critic.n_classes > 0
        self._adversary.learn(inputs, restored, batch.targets["label"] if generates else None)
        squared = (restored - inputs).pow(2).flatten(1).sum(1)
        loss = weights.mse * squared + weights.kl * divergence(mean, log_variance)
        loss = loss - weights.wasserstein * self._critic(restored)[0]
        if generates:
            loss = loss + weights.class_weight * self._class_loss(purifier, mean.detach(), generator)
        return loss.mean()

    def state_dict(self) -> dict[str, object]:
        return self._adversary.state_dict()

    def load_state_dict(self, state: dict[str, object]) -> None:
        self._adversary.load_state_dict(state)

    def _class_loss(self, purifier: LatentPurifier, codes: Tensor, generator: torch.Generator) -> Tensor:
        """Returns how far images of these codes and of drawn classes are from what the critic knows of the classes."""
        classes = self._critic.n_classes
        drawn = torch.randint(classes, (len(codes),), generator=generator).to(codes.device)
        images = purifier.generator(codes, F.one_hot(drawn, classes))
        return F.cross_entropy(self._critic(images)[1], drawn, reduction="none")


def divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """Returns the Kullback-Leibler divergence of N(mean, variance) from N(0, 1), summed over a code, (N,)."""
    return 0.5 * (mean.pow(2) + log_variance.exp() - log_variance - 1).sum(1)
