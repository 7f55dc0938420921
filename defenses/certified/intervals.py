"""Interval bound propagation: what a small network can return for any input of a box."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from datasets.batch import Batch
from defenses.architectures.normalize import Normalize
from registry import Budget, DatasetSpec, Norm
from registry.errors import InvalidEntryError

ROUNDING = 1e-5
"""Share of the largest bound of a sample's logits by which float32 arithmetic may be off; closer margins are not
certified."""


def build(dataset: DatasetSpec, *, width: int = 8, hidden: int = 64) -> nn.Sequential:
    """Returns two strided convolutions and two linear layers, without batch normalisation.

    Args:
        dataset: Single images with class labels.
        width: Channels of the first convolution.
        hidden: Values between the linear layers.

    Raises:
        InvalidEntryError: Another task or shape.
    Source: Gowal et al. 2018, arXiv:1810.12715, table 1, narrower than its small network.
    """
    if dataset.task != "classification" or len(dataset.input_shape) != 3:
        raise InvalidEntryError(
            f"the interval network classifies images (C, H, W); data set {dataset.name} is {dataset.task} "
            f"of shape {dataset.input_shape}"
        )
    channels, height, columns = dataset.input_shape
    return nn.Sequential(
        Normalize(),
        nn.Conv2d(channels, width, 4, 2, 1),
        nn.ReLU(),
        nn.Conv2d(width, 2 * width, 4, 2, 1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(2 * width * (height // 4) * (columns // 4), hidden),
        nn.ReLU(),
        nn.Linear(hidden, dataset.n_classes),
    )


def interval_bounds(layers: Sequence[nn.Module], lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
    """Returns bounds of what a chain of layers returns, given bounds of its input.

    Args:
        layers: Normalize, Conv2d, Linear, ReLU and Flatten, in order.
        lower: Smallest input values, (N, ...).
        upper: Largest input values, same shape.

    Raises:
        InvalidEntryError: Another kind of layer.
    Source: Gowal et al. 2018, arXiv:1810.12715, equations 5 to 7.
    """
    for layer in layers:
        if isinstance(layer, Normalize | nn.ReLU | nn.Flatten):  # monotone, value by value
            lower, upper = layer(lower), layer(upper)
        elif isinstance(layer, nn.Conv2d | nn.Linear):
            centre, radius = layer((lower + upper) / 2), _spread(layer, (upper - lower) / 2)
            lower, upper = centre - radius, centre + radius
        else:
            raise InvalidEntryError(f"no interval arithmetic for a layer of type {type(layer).__name__}")
    return lower, upper


def _spread(layer: nn.Conv2d | nn.Linear, radius: Tensor) -> Tensor:
    weight = layer.weight.abs()
    if isinstance(layer, nn.Linear):
        return F.linear(radius, weight)
    return F.conv2d(radius, weight, None, layer.stride, layer.padding, layer.dilation, layer.groups)


def lowest_margins(model: nn.Sequential, inputs: Tensor, label: Tensor, eps: float) -> Tensor:
    """Returns lower bounds of the margins of the label over every class, anywhere in the Linf ball and [0, 1].

    The last layer is taken together with the difference of two logits, which is tighter than bounds of each.

    Args:
        model: Ends in a linear layer.
        inputs: Centres, (N, C, H, W).
        label: int64 (N,).
        eps: Linf radius in input units.

    Returns:
        (N, classes); 0 at the label itself.
    Source: Gowal et al. 2018, arXiv:1810.12715, section 3, "elision of the last layer".
    """
    lower, upper = interval_bounds(model[:-1], *_box(inputs, eps))
    head = model[-1]
    slope = head.weight[label][:, None] - head.weight[None]
    offset = head.bias[label][:, None] - head.bias[None]
    centre = torch.einsum("nkd,nd->nk", slope, (lower + upper) / 2) + offset
    return centre - torch.einsum("nkd,nd->nk", slope.abs(), (upper - lower) / 2)


def certify(model: nn.Sequential, batch: Batch, budgets: Sequence[Budget]) -> Tensor:
    """Returns which samples interval bounds prove robust: float32 (budgets, N), 1 where proven.

    Args:
        model: As `build` returns it.
        batch: Labelled samples.
        budgets: Linf; L2 and L1 balls are taken for the Linf ones around them, L0 balls for all of [0, 1].
    """
    inputs, label = batch.inputs.double(), batch.targets["label"]
    rows = []
    with torch.no_grad():
        model = copy.deepcopy(model).double()
        for budget in budgets:
            eps = 1.0 if budget.norm is Norm.L0 else budget.size
            others = lowest_margins(model, inputs, label, eps).scatter(1, label[:, None], torch.inf).amin(1)
            lower, upper = interval_bounds(model, *_box(inputs, eps))
            rows.append(others > ROUNDING * torch.maximum(lower.abs(), upper.abs()).amax(1))
    return torch.stack(rows).float()


def _box(inputs: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Returns the smallest and the largest inputs of the Linf ball within [0, 1]."""
    return (inputs - eps).clamp(min=0), (inputs + eps).clamp(max=1)
