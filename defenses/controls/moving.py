"""Control defenses that are not a fixed function of one image: they count, look at the batch, or optimise."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from registry import DatasetSpec


class Counter(nn.Module):
    """Shifts the logits by an amount that changes with every call: the same image is answered differently.

    Args:
        net: Returns logits.
        height: Largest shift, in logits.
    """

    def __init__(self, net: nn.Module, height: float) -> None:
        super().__init__()
        self.net, self.height = net, height
        self.calls = 0

    def forward(self, inputs: Tensor) -> Tensor:
        logits = self.net(inputs)
        self.calls += 1
        phases = torch.arange(logits.shape[1], device=logits.device) * torch.pi
        return logits + self.height * torch.sin(self.calls + phases).to(logits.dtype)


class BatchStatistics(nn.Module):
    """Leaves batch normalisation in training mode: an image is answered by the images beside it.

    Args:
        net: Has batch normalisation.
    """

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def train(self, mode: bool = True) -> BatchStatistics:
        super().train(mode)
        for module in self.modules():
            if isinstance(module, _BatchNorm):
                module.train()
        return self

    def forward(self, inputs: Tensor) -> Tensor:
        return self.net(inputs)


class AntiAdversary(nn.Module):
    """Moves every input towards what the network predicts for it, by optimisation, before it is answered.

    The change is treated as a constant on the backward pass: at the moved input the network is sure of itself, and
    its gradient says little about the input. The decision is nearly always the network's own.

    Args:
        net: Returns logits of single labels.
        steps: Gradient steps.
        step_size: Change of every value in a step, in input units.
    Source: Alfarra et al. 2022, arXiv:2103.14347, equation 4 and algorithm 1.
    """

    def __init__(self, net: nn.Module, steps: int, step_size: float) -> None:
        super().__init__()
        self.net, self.steps, self.step_size = net, steps, step_size

    def forward(self, inputs: Tensor) -> Tensor:
        with torch.enable_grad():
            change = torch.zeros_like(inputs)
            label = self.net(inputs.detach()).argmax(1).detach()
            for _ in range(self.steps):
                point = (inputs.detach() + change).requires_grad_(True)
                loss = F.cross_entropy(self.net(point), label, reduction="sum")
                (gradient,) = torch.autograd.grad(loss, point)
                change = change - self.step_size * gradient.sign()
        return self.net(inputs + change)


def counter(dataset: DatasetSpec, *, base: nn.Module, height: float) -> Counter:
    """Returns the base with a count of its calls in its answers."""
    return Counter(base, height)


def batch_statistics(dataset: DatasetSpec, *, base: nn.Module) -> BatchStatistics:
    """Returns the base with batch normalisation in training mode."""
    return BatchStatistics(base)


def anti_adversary(dataset: DatasetSpec, *, base: nn.Module, steps: int, step_size: float) -> AntiAdversary:
    """Returns the base behind an optimisation at inference."""
    return AntiAdversary(base, steps, step_size)
