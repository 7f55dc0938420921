"""Backward pass differentiable approximation: stages without a useful gradient are replaced on the way back only."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def stand_ins(model: nn.Module) -> Iterator[None]:
    """Replaces the backward pass of every declared stage by that of its differentiable stand-in (BPDA).

    A stage is a module with a method `bpda_twin(inputs)`. The forward pass keeps its values.
    Source: Athalye, Carlini, Wagner 2018, arXiv:1802.00420, section 4.1.
    """

    def straight_through(module, args, output):
        twin = module.bpda_twin(args[0])
        return output.detach() + (twin - twin.detach())  # adds exact zeros: no value is rounded

    handles = [m.register_forward_hook(straight_through) for m in model.modules() if hasattr(m, "bpda_twin")]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def straight_through(model: nn.Module) -> Iterator[None]:
    """Lets stages that clip pass gradients on as if they did not: a value that is cut off still moves.

    Such a stage is a module with a switch `straight`. The forward pass keeps its values.
    Source: Bengio, Leonard, Courville 2013, arXiv:1308.3432, the straight-through estimator.
    """
    switched = [module for module in model.modules() if getattr(module, "straight", None) is False]
    for module in switched:
        module.straight = True
    try:
        yield
    finally:
        for module in switched:
            module.straight = False
