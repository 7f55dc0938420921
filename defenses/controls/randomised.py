"""Control defenses that draw random numbers, as their entries declare."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from defenses.architectures import resnet
from defenses.stages import Preprocessed
from registry import DatasetSpec


class LogitNoise(nn.Module):
    """Adds Gaussian noise to the logits.

    Args:
        net: Returns logits.
        sigma: Standard deviation, in logits.
    """

    def __init__(self, net: nn.Module, sigma: float) -> None:
        super().__init__()
        self.net, self.sigma = net, sigma

    def forward(self, inputs: Tensor) -> Tensor:
        logits = self.net(inputs)
        return logits + self.sigma * torch.randn_like(logits)


class RandomResizePad(nn.Module):
    """Enlarges every image by a random factor and pads it with zeros at a random place.

    Args:
        largest: Edge of the padded image relative to the input's, above 1.
    Source: Xie et al. 2018, arXiv:1711.01991, section 3: 299 to at most 331 pixels; bilinear instead of nearest.
    """

    def __init__(self, largest: float = 331 / 299) -> None:
        super().__init__()
        self.largest = largest

    def forward(self, inputs: Tensor) -> Tensor:
        """Returns enlarged images (N, C, H', W'); inputs are (N, C, H, W)."""
        height, width = inputs.shape[-2:]
        edges = [max(edge + 1, round(self.largest * edge)) for edge in (height, width)]
        draws = torch.rand(len(inputs), 3, device=inputs.device, dtype=inputs.dtype)
        rows = self._sources(height, edges[0], draws[:, 0], draws[:, 1])
        columns = self._sources(width, edges[1], draws[:, 0], draws[:, 2])
        shape = (len(inputs), *edges)
        grid = torch.stack([columns[:, None, :].expand(shape), rows[:, :, None].expand(shape)], 3)
        return F.grid_sample(inputs, grid, padding_mode="zeros", align_corners=False)

    @staticmethod
    def _sources(edge: int, padded: int, size_draw: Tensor, place_draw: Tensor) -> Tensor:
        """Returns where each output position comes from: (N, padded), -1 and 1 are the ends of the image."""
        size = edge + (size_draw * (padded - edge + 1)).floor()
        offset = (place_draw * (padded - size + 1)).floor()
        centres = torch.arange(padded, device=size.device, dtype=size.dtype) + 0.5
        return 2 * (centres - offset[:, None]) / size[:, None] - 1


def logit_noise(dataset: DatasetSpec, *, base: nn.Module, sigma: float) -> LogitNoise:
    """Returns the base with noisy logits."""
    return LogitNoise(base, sigma)


def resize_and_pad(dataset: DatasetSpec, *, width: int) -> Preprocessed:
    """Returns a narrow ResNet-18, which takes images of any size, behind random resizing and padding."""
    return Preprocessed(RandomResizePad(), resnet.build(dataset, width=width))


def resize_and_pad_base(dataset: DatasetSpec, *, base: nn.Module) -> Preprocessed:
    """Returns the base, which must take images of any size, behind random resizing and padding."""
    return Preprocessed(RandomResizePad(), base)
