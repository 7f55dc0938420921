"""Random weights: parametric noise injection on every layer, and random projection filters in the first convolution.

Weights are drawn anew in every forward pass, in training and in evaluation alike, once for the whole batch.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrize

from defenses.architectures import default
from registry import DatasetSpec
from registry.errors import InvalidEntryError


class WeightNoise(nn.Module):
    """Adds Gaussian noise to a weight, as a parametrization: w + alpha * std(w) * n, with one learned alpha a layer.

    The standard deviation is taken over all values of the layer and has no gradient.

    Args:
        alpha: Its value before training.
    Source: He et al. 2019, arXiv:1811.09310; layer-wise, on weights.
    """

    def __init__(self, alpha: float = 0.25) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.full((1,), alpha))

    def forward(self, weight: Tensor) -> Tensor:
        return weight + self.alpha * weight.detach().std() * torch.randn_like(weight)


class RandomProjectionConv2d(nn.Module):
    """A convolution some of whose filters are random: N(0, 1 / r^2) for kernels of edge r, drawn in every forward pass.

    Trained filters are divided by their own standard deviation and by r, so that both kinds have one scale. They are
    not centred: their mean stays.

    Args:
        in_channels: Channels that come in.
        channels: Channels that go out, the random ones first.
        n_random: How many of them are random.
        kernel_size: Edge r.
        stride: Stride.
        padding: Zeros on every side.
    Source: Dong and Xu 2023, Adversarial Robustness via Random Projection Filters, CVPR; the scale of trained filters
    as in the authors' code.
    """

    def __init__(
        self, in_channels: int, channels: int, n_random: int, kernel_size: int, stride: int, padding: int
    ) -> None:
        super().__init__()
        if not 0 <= n_random < channels:
            raise InvalidEntryError(f"expected 0 to {channels - 1} random filters of {channels}, got {n_random}")
        self.n_random, self.stride, self.padding = n_random, stride, padding
        self.weight = nn.Parameter(torch.empty(channels - n_random, in_channels, kernel_size, kernel_size))
        nn.init.kaiming_normal_(self.weight, mode="fan_out", nonlinearity="relu")

    def filters(self) -> Tensor:
        """Returns the filters of one forward pass, (channels, in_channels, r, r)."""
        edge = self.weight.shape[-1]
        random = torch.randn(self.n_random, *self.weight.shape[1:], device=self.weight.device) / edge
        scale = (self.weight.flatten(1).std(1) + 1e-5) * edge
        return torch.cat((random.to(self.weight.dtype), self.weight / scale[:, None, None, None]))

    def forward(self, inputs: Tensor) -> Tensor:
        """Returns (N, channels, H', W'); inputs are (N, in_channels, H, W)."""
        return F.conv2d(inputs, self.filters(), stride=self.stride, padding=self.padding)

    def extra_repr(self) -> str:
        return f"n_random={self.n_random}, stride={self.stride}, padding={self.padding}"


def noisy_weights(dataset: DatasetSpec, *, alpha: float = 0.25, width: int | None = None) -> nn.Module:
    """Returns the default architecture of a data set with noise on the weights of all convolutions and linear layers.

    Args:
        dataset: What the model is for.
        alpha: Scale of the noise before training, a share of the standard deviation of a layer's weights.
        width: Channels of the first stage in place of the default.
    """
    model = default.build(dataset, width=width)
    for module in [m for m in model.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]:
        parametrize.register_parametrization(module, "weight", WeightNoise(alpha))
    return model


def random_projection(dataset: DatasetSpec, *, share: float = 0.75, width: int | None = None) -> nn.Module:
    """Returns the default architecture of a data set whose first convolution has random projection filters.

    Args:
        dataset: What the model is for.
        share: Share of the filters that are random; 48 of 64 in the paper.
        width: Channels of the first stage in place of the default.

    Raises:
        InvalidEntryError: No filter would be left to train.
    """
    model = default.build(dataset, width=width)
    name, first = next((n, m) for n, m in model.named_modules() if isinstance(m, nn.Conv2d))
    replacement = RandomProjectionConv2d(
        first.in_channels,
        first.out_channels,
        round(share * first.out_channels),
        first.kernel_size[0],
        first.stride[0],
        first.padding[0],
    )
    parent, _, attribute = name.rpartition(".")
    setattr(model.get_submodule(parent), attribute, replacement)
    return model


def learned_alphas(model: nn.Module) -> dict[str, float]:
    """Returns the learned scale of the noise of every layer, by the name of its module."""
    return {name: module.alpha.item() for name, module in model.named_modules() if isinstance(module, WeightNoise)}
