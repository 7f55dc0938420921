"""DGMP: an encoder and a frozen generator in front of a classifier, without labels and, to show a leak, with them."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from defenses.purifiers.purified import LatentPurified
from defenses.purifiers.vae import Encoder, Generator, LatentPurifier
from registry import DatasetSpec
from registry.errors import InvalidEntryError, ModelContractError

LATENT = 64
"""Numbers of a latent code."""


class ImagesOnly(nn.Module):
    """A model that takes what batches hold beside their images and does not look at it.

    Args:
        net: The model.
    """

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, inputs: Tensor, context: Tensor | None = None) -> Tensor:
        return self.net(inputs)


class ToldPurified(LatentPurified):
    """A classifier behind a class-conditional purifier that is told the class, as the released code of DGMP does.

    The class comes as `context`, one-hot (N, K), which only an evaluation of an entry with `oracle=True` hands over.
    """

    def forward(self, inputs: Tensor, context: Tensor | None = None) -> Tensor:
        """Returns raw logits; without `context` the generator gives all classes the same weight."""
        return self.net(self.restored(inputs, context))

    def restored(self, inputs: Tensor, context: Tensor | None = None) -> Tensor:
        """Returns one purified draw of each image."""
        classes = self.transform.generator.n_labels
        if context is not None and context.shape != (len(inputs), classes):
            raise ModelContractError(
                f"expected the context to hold one-hot labels ({len(inputs)}, {classes}), got {tuple(context.shape)}"
            )
        return self.transform(inputs, context)

    def bare(self) -> nn.Module:
        """Returns the classifier; it is not told the class."""
        return ImagesOnly(self.net)

    def mechanism(self) -> nn.Module:
        """Returns the map from images to the mean of the latent code; it is not told the class."""
        return ImagesOnly(super().mechanism())


class ShuffledPurified(LatentPurified):
    """The class-conditional purifier, told a class that is drawn at random for every image and every call."""

    def forward(self, inputs: Tensor) -> Tensor:
        return self.net(self.restored(inputs))

    def restored(self, inputs: Tensor) -> Tensor:
        """Returns one draw of each image, of the class that is drawn for it."""
        classes = self.transform.generator.n_labels
        drawn = torch.rand(len(inputs), classes, device=inputs.device).argmax(1)
        return self.transform(inputs, F.one_hot(drawn, classes).to(inputs.dtype))


def build(dataset: DatasetSpec, *, base: nn.Module, latent: int = LATENT) -> LatentPurified:
    """Returns the base model behind a label-free purifier.

    Source: Dhar et al. 2026, doi 10.1016/j.inffus.2025.103822, as its text describes it, in small.
    """
    return LatentPurified(_purifier(dataset, latent, n_labels=0), base)


def build_tuned(dataset: DatasetSpec, *, base: LatentPurified) -> LatentPurified:
    """Returns a trained DGMP, told or not, whose classifier may be trained further; the purifier stays frozen."""
    base.transform.requires_grad_(False)
    base.net.requires_grad_(True)
    return base


def build_told(dataset: DatasetSpec, *, base: nn.Module, latent: int = LATENT) -> ToldPurified:
    """Returns the base model behind a class-conditional purifier that is told the class.

    Raises:
        InvalidEntryError: Several labels may hold at once, so that there is no class to tell.
    """
    if dataset.multi_label:
        raise InvalidEntryError(f"a told purifier needs one class per image; {dataset.name} has several labels")
    return ToldPurified(_purifier(dataset, latent, n_labels=dataset.n_classes), base)


def build_shuffled(dataset: DatasetSpec, *, base: ToldPurified) -> ShuffledPurified:
    """Returns the parts of a trained told purifier, told random classes instead."""
    return ShuffledPurified(base.transform, base.net)


def _purifier(dataset: DatasetSpec, latent: int, *, n_labels: int) -> LatentPurifier:
    shape = dataset.input_shape
    return LatentPurifier(Encoder(shape, latent), Generator(shape, latent, n_labels=n_labels))
