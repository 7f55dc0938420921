"""Exact robustness of models that need no bound: a linear classifier and a constant predictor."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from datasets.batch import Batch
from registry import Budget, Norm
from registry.errors import InvalidEntryError

ROUNDING = 1e-5
"""Share of a sample's largest logit by which float32 arithmetic may be off; closer margins are not certified."""


def certify_linear(model: nn.Module, batch: Batch, budgets: Sequence[Budget]) -> Tensor:
    """Returns which samples no attack on a linear classifier can break: exact, up to rounding.

    The margin to each other class is linear in the input, so the worst input within the ball and [0, 1] is known.

    Args:
        model: Linear in its inputs; any constant part is fine.
        batch: Labelled samples.
        budgets: Linf, L2, L1 or L0, one eps each.

    Returns:
        float32 (budgets, N): 1 where every input of the ball is classified as the label, else 0.
    """
    inputs, label = batch.inputs.double(), batch.targets["label"]
    model = copy.deepcopy(model).double()
    origin = model(torch.zeros_like(inputs[:1])).detach()
    weight = torch.autograd.functional.jacobian(model, torch.zeros_like(inputs[:1]))[0, :, 0]
    logits = torch.einsum("nchw,kchw->nk", inputs, weight) + origin
    found = torch.ones(len(budgets), len(inputs), dtype=torch.bool, device=inputs.device)
    for other in range(logits.shape[1]):
        margin = logits.gather(1, label[:, None])[:, 0] - logits[:, other]
        direction = weight[label] - weight[other]
        needed = ROUNDING * logits.abs().amax(1)
        for index, budget in enumerate(budgets):
            found[index] &= (label == other) | (margin - largest_decrease(direction, inputs, budget) > needed)
    return found.float()


def largest_decrease(weight: Tensor, inputs: Tensor, budget: Budget) -> Tensor:
    """Returns how far a linear function of each row can fall within a ball and [0, 1].

    Args:
        weight: Its slope, (N, C, H, W).
        inputs: Centres, (N, C, H, W) in [0, 1].
        budget: Norm and eps.

    Returns:
        (N,); of L2 an upper bound within 1e-12 of the exact value.

    Raises:
        InvalidEntryError: A norm without a ball.
    """
    eps = budget.size
    room = torch.where(weight > 0, inputs, 1 - inputs).flatten(1)
    steep = weight.abs().flatten(1)
    if budget.norm is Norm.LINF:
        return (steep * room.clamp(max=eps)).sum(1)
    if budget.norm is Norm.L1:  # the steepest value first, as far as it goes
        steep, order = steep.sort(1, descending=True)
        room = room.gather(1, order)
        left = (eps - (room.cumsum(1) - room)).clamp(min=0)
        return (steep * torch.minimum(room, left)).sum(1)
    if budget.norm is Norm.L0:  # all channels of a pixel count once
        pixels = (steep * room).reshape(len(inputs), inputs.shape[1], -1).sum(1)
        return pixels.topk(min(int(eps), pixels.shape[1]), 1).values.sum(1)
    if budget.norm is Norm.L2:
        return _largest_decrease_l2(steep, room, eps)
    raise InvalidEntryError(f"a ball is given in Linf, L2, L1 or L0, got {budget.norm}")


def _largest_decrease_l2(steep: Tensor, room: Tensor, eps: float) -> Tensor:
    """The optimum moves each value by min(room, scale * slope); bisection finds the scale whose length is eps."""
    low = torch.zeros_like(steep[:, :1])
    high = (room / steep.clamp(min=1e-300)).where(steep > 0, 0).amax(1, keepdim=True)
    for _ in range(80):
        middle = (low + high) / 2
        inside = torch.minimum(room, middle * steep).norm(dim=1, keepdim=True) <= eps
        low, high = torch.where(inside, middle, low), torch.where(inside, high, middle)
    return (steep * torch.minimum(room, high * steep)).sum(1)


def certify_constant(model: nn.Module, batch: Batch, budgets: Sequence[Budget]) -> Tensor:
    """Returns which samples a constant predictor has right, whatever the budget: float32 (budgets, N)."""
    with torch.no_grad():
        right = model(batch.inputs).argmax(1) == batch.targets["label"]
    return right.float().expand(len(budgets), -1)
