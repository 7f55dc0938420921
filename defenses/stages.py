"""Declared pre-processing: modules that offer a differentiable stand-in, so that attackers can go through them."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from torch import Tensor, nn


@runtime_checkable
class Stage(Protocol):
    """A pre-processing module that attackers may replace on the backward pass, or strip.

    Every module of a defense that is not differentiable, or that an attacker should not have to differentiate through,
    has this method. It is found by the method's name; there is nothing to inherit from.
    """

    def bpda_twin(self, inputs: Tensor) -> Tensor:
        """Returns a differentiable stand-in of the output, of the same shape; the identity where nothing is closer.

        Source: Athalye et al. 2018, arXiv:1802.00420, section 4.1.
        """


def declared_stages(model: nn.Module) -> tuple[str, ...]:
    """Returns the names of all modules that have a `bpda_twin`, in the order of `named_modules`."""
    return tuple(name for name, module in model.named_modules() if callable(getattr(module, "bpda_twin", None)))


def hidden_stages(model: nn.Module) -> tuple[str, ...]:
    """Returns the names of the declared stages that do not say `differentiable = True`.

    A purifier is a stage whose gradient is the true one: its stand-in is one more way, not the first.
    """
    modules = dict(model.named_modules())
    return tuple(name for name in declared_stages(model) if not getattr(modules[name], "differentiable", False))


class Layered(Protocol):
    """What a model of several parts shows; each method is found by its name and may be left out."""

    def bare(self) -> nn.Module:
        """Returns the network without the defense in front of it: raw logits from images."""

    def mechanism(self) -> nn.Module:
        """Returns the map from images to the features that the defense lives on, float32 (N, D).

        Source: Tramer et al. 2020, arXiv:2002.08347: an attack aims at what a defense relies on.
        """

    def restored(self, inputs: Tensor) -> Tensor:
        """Returns the images that the network behind a purifier or filter sees, of the shape of the inputs.

        Not for attackers but for readers: records say how far these images are from the clean ones, beside the score.
        A model whose `forward` takes more than the inputs takes the same here.
        """


def shown(model: nn.Module, name: str) -> nn.Module | None:
    """Returns what a model shows by the method `name` ("bare" or "mechanism"), or None where it has no such method.

    Modules of the model stay in their own mode, e.g. dropout that belongs to the defense; what is new around them is in
    eval mode.
    """
    method = getattr(model, name, None)
    if not callable(method):
        return None
    part, own = method(), set(model.modules())
    for module in part.modules():
        if module not in own:
            module.training = False
    return part


class Preprocessed(nn.Module):
    """A network behind a transformation of its inputs: net(transform(inputs)).

    Args:
        transform: Keeps shape and range [0, 1].
        net: The network behind it, e.g. the undefended one.
    """

    def __init__(self, transform: nn.Module, net: nn.Module) -> None:
        super().__init__()
        self.transform = transform
        self.net = net

    def forward(self, inputs: Tensor) -> Tensor:
        return self.net(self.transform(inputs))

    def restored(self, inputs: Tensor) -> Tensor:
        """Returns the transformed images."""
        return self.transform(inputs)
