"""Models that return probabilities: their logarithm is what attacks ascend, since probabilities saturate."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

SHOWN = frozenset({"mechanism", "restored"})
"""Methods that a model may have beside `forward`, see `defenses.stages`, whose results are no class probabilities."""


class LogProbabilities(nn.Module):
    """The logarithm of a model's probabilities: the same predictions, with a gradient that does not vanish.

    What the model shows beside its outputs it still shows, and what it does not have is absent here, too: `mechanism`
    and `restored` as they are; of `bare` the logarithm, where that network returns probabilities like the whole model.
    Declared stages are found inside of it as before.

    Args:
        net: Returns probabilities (N, classes).
    """

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net, self.training = net, net.training  # not by eval(): dropout that is declared stays on

    def forward(self, inputs: Tensor) -> Tensor:
        return _logarithm(self.net(inputs))

    def __getattr__(self, name: str) -> object:
        """Returns an optional method of the model.

        Raises:
            AttributeError: Neither the model nor this module has it.
        """
        if name in SHOWN:
            return getattr(self.net, name)
        if name == "bare":
            return _with_logits(self.net.bare)
        return super().__getattr__(name)


class Logits(nn.Module):
    """A network whose outputs serve as logits: as they are, or their logarithm on batches of probabilities alone.

    Args:
        net: Returns (N, classes): probabilities, or raw logits.
    """

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net, self.training = net, net.training

    def forward(self, inputs: Tensor, **beside: Tensor) -> Tensor:
        """Returns the logits; `beside` is what else the network takes, e.g. `context`."""
        outputs = self.net(inputs, **beside)
        return _logarithm(outputs) if isinstance(outputs, Tensor) and are_probabilities(outputs) else outputs


def are_probabilities(outputs: Tensor) -> bool:
    """Returns whether all rows (N, classes, ...) lie in [0, 1] and sum to 1 over the classes."""
    sums = outputs.sum(1)
    inside = bool(((outputs >= 0) & (outputs <= 1)).all())
    return inside and bool(torch.allclose(sums, torch.ones_like(sums), atol=1e-4))


def _logarithm(probabilities: Tensor) -> Tensor:
    return probabilities.clamp_min(torch.finfo(torch.float32).tiny).log()


def _with_logits(bare: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
    return lambda: Logits(bare())
