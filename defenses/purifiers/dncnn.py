"""DnCNN: a plain stack of convolutions that predicts the noise in an image."""

from __future__ import annotations

from torch import Tensor, nn

from defenses.purifiers.purified import Purified
from registry import DatasetSpec
from registry.errors import InvalidEntryError


class DnCNN(nn.Module):
    """Returns images minus the noise that a stack of 3 x 3 convolutions sees in them.

    The first layer has ReLU, the ones between batch normalisation and ReLU, the last one neither.

    Args:
        channels: Channels of the images.
        depth: Number of convolutions, 3 or more; 17 and 20 in the source.
        width: Channels of the layers between; 64 in the source.
    Source: Zhang et al. 2017, arXiv:1608.03981, section III-A.
    """

    differentiable = True

    def __init__(self, channels: int, *, depth: int = 7, width: int = 32) -> None:
        super().__init__()
        if depth < 3:
            raise InvalidEntryError(f"DnCNN has a first, a last and at least one layer between, got depth {depth}")
        layers: list[nn.Module] = [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
        for _ in range(depth - 2):
            layers += [nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
        self.noise = nn.Sequential(*layers, nn.Conv2d(width, channels, 3, padding=1, bias=False))

    def forward(self, inputs: Tensor) -> Tensor:
        """Returns restored images, same shape; inputs are (N, C, H, W)."""
        return inputs - self.noise(inputs)

    def bpda_twin(self, inputs: Tensor) -> Tensor:
        """Returns the inputs: a good denoiser changes little."""
        return inputs


def build(dataset: DatasetSpec, *, base: nn.Module, depth: int = 7, width: int = 32) -> Purified:
    """Returns the frozen base model behind a DnCNN."""
    return Purified(DnCNN(dataset.input_shape[0], depth=depth, width=width), base.requires_grad_(False))
