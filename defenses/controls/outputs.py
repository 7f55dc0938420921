"""Control defenses that change what the network returns: the decision stays, the gradient vanishes or explodes."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from registry import DatasetSpec
from registry.errors import InvalidEntryError


class Scaled(nn.Module):
    """Multiplies the logits.

    Args:
        net: Returns logits.
        factor: Above 0; the most likely class stays the same.
    """

    def __init__(self, net: nn.Module, factor: float) -> None:
        super().__init__()
        self.net, self.factor = net, factor

    def forward(self, inputs: Tensor) -> Tensor:
        return self.factor * self.net(inputs)


class Saturated(nn.Module):
    """Squashes logits so far that nearly all outputs are exactly 1 for the most likely class and -1 for the others.

    Logits are taken relative to the middle between the two largest, so that no tie changes the decision.

    Args:
        net: Returns logits of single labels.
        gain: Steepness; float32 tanh is exactly 1 from 9 upwards.
    """

    def __init__(self, net: nn.Module, gain: float) -> None:
        super().__init__()
        self.net, self.gain = net, gain

    def forward(self, inputs: Tensor) -> Tensor:
        logits = self.net(inputs)
        middle = logits.topk(2, 1).values.mean(1, keepdim=True)
        return torch.tanh(self.gain * (logits - middle))


class Probabilities(nn.Module):
    """Returns probabilities where logits are expected."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, inputs: Tensor) -> Tensor:
        return self.net(inputs).softmax(1)


class Votes(nn.Module):
    """Counts the votes of the network on a few fixed noisy copies of the input, without any gradient.

    Args:
        net: Returns logits of single labels.
        n_classes: Number of classes.
        shape: (C, H, W) of the input.
        copies: Number of votes; an odd one has no ties between two classes.
        sigma: Standard deviation of the noise, in input units.
    """

    def __init__(self, net: nn.Module, n_classes: int, shape: tuple[int, ...], copies: int, sigma: float) -> None:
        super().__init__()
        self.net, self.n_classes = net, n_classes
        patterns = sigma * torch.randn(copies, *shape, generator=torch.Generator().manual_seed(0))
        self.register_buffer("patterns", patterns, persistent=False)

    def forward(self, inputs: Tensor) -> Tensor:
        votes = inputs.new_zeros(len(inputs), self.n_classes)
        with torch.no_grad():
            for pattern in self.patterns:
                votes += F.one_hot(self.net(inputs + pattern).argmax(1), self.n_classes)
        return votes


def scaled(dataset: DatasetSpec, *, base: nn.Module, factor: float) -> Scaled:
    """Returns the base with multiplied logits."""
    return Scaled(base, factor)


def saturated(dataset: DatasetSpec, *, base: nn.Module, gain: float) -> Saturated:
    """Returns the base with saturated outputs."""
    _check_single_label(dataset)
    return Saturated(base, gain)


def probabilities(dataset: DatasetSpec, *, base: nn.Module) -> Probabilities:
    """Returns the base with probabilities as outputs."""
    _check_single_label(dataset)
    return Probabilities(base)


def votes(dataset: DatasetSpec, *, base: nn.Module, copies: int, sigma: float) -> Votes:
    """Returns the votes of the base."""
    _check_single_label(dataset)
    return Votes(base, dataset.n_classes, dataset.input_shape, copies, sigma)


def _check_single_label(dataset: DatasetSpec) -> None:
    if dataset.multi_label:
        raise InvalidEntryError(
            f"this control compares classes; data set {dataset.name} has several labels at once: "
            "choose one with a single label"
        )
