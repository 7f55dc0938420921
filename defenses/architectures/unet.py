"""A small U-Net for label maps of the size of the image."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from defenses.architectures.normalize import Normalize
from registry import DatasetSpec
from registry.errors import InvalidEntryError


class ConvolutionPair(nn.Sequential):
    """Two 3 x 3 convolutions that keep the size, each with batch normalisation and ReLU."""

    def __init__(self, in_channels: int, channels: int) -> None:
        layers: list[nn.Module] = []
        for source in (in_channels, channels):
            layers += [nn.Conv2d(source, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels), nn.ReLU()]
        super().__init__(*layers)


class UNet(nn.Module):
    """U-Net with padded convolutions, batch normalisation, max-pooling, and nearest-neighbour upsampling.

    The decoder takes each skip connection's own size, so that height and width need not be powers of two.

    Args:
        in_channels: Channels of the images.
        n_outputs: Number of logit maps, one per class with the background.
        width: Channels of the first level; each level has twice as many.
        levels: Number of times the resolution is halved.
    Source: Ronneberger et al. 2015, arXiv:1505.04597, figure 1.
    """

    def __init__(self, in_channels: int, n_outputs: int, *, width: int = 12, levels: int = 3) -> None:
        super().__init__()
        widths = [width * 2**level for level in range(levels + 1)]
        self.normalize = Normalize()
        self.down = nn.ModuleList(
            ConvolutionPair(source, target) for source, target in zip([in_channels, *widths[:-1]], widths, strict=True)
        )
        self.up = nn.ModuleList(
            ConvolutionPair(below + level, level) for below, level in zip(widths[:0:-1], widths[-2::-1], strict=True)
        )
        self.head = nn.Conv2d(width, n_outputs, 1)

    def forward(self, inputs: Tensor) -> Tensor:
        """Returns raw logits, (N, n_outputs, H, W); inputs are (N, C, H, W) in [0, 1]."""
        hidden = self.down[0](self.normalize(inputs))
        skips = []
        for level in self.down[1:]:
            skips.append(hidden)
            hidden = level(F.max_pool2d(hidden, 2))
        for level, skip in zip(self.up, reversed(skips), strict=True):
            hidden = F.interpolate(hidden, size=skip.shape[-2:], mode="nearest")
            hidden = level(torch.cat((skip, hidden), 1))
        return self.head(hidden)


def build(dataset: DatasetSpec, *, width: int = 12, levels: int = 3) -> UNet:
    """Returns a U-Net with one logit map per class of the data set; width 12 has 0.27 million parameters.

    Raises:
        InvalidEntryError: The data set does not hold single images with label maps.
    """
    if dataset.task != "segmentation" or len(dataset.input_shape) != 3:
        raise InvalidEntryError(
            f"the U-Net segments images (C, H, W); data set {dataset.name} is {dataset.task} "
            f"of shape {dataset.input_shape}: name another architecture"
        )
    return UNet(dataset.input_shape[0], dataset.n_classes, width=width, levels=levels)
