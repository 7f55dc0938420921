"""MagNet's reformer: a small autoencoder that moves an image towards the clean ones."""

from __future__ import annotations

from torch import Tensor, nn

from defenses.purifiers.purified import Purified
from registry import DatasetSpec


class Reformer(nn.Module):
    """An autoencoder of five convolutions with one pooling step; its gradient is the true one.

    Args:
        channels: Channels of the images.
        width: Channels of the hidden layers.
    Source: Meng and Chen 2017, arXiv:1705.09064, table 1 (the network for MNIST).
    """

    differentiable = True

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.before = nn.Sequential(nn.Conv2d(channels, width, 3, padding=1), nn.ReLU())
        self.pool = nn.AvgPool2d(2, ceil_mode=True, count_include_pad=False)
        self.coarse = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, width, 3, padding=1), nn.ReLU()
        )
        self.grow = nn.Upsample(scale_factor=2)
        self.after = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, channels, 3, padding=1)
        )

    def forward(self, inputs: Tensor) -> Tensor:
        """Returns the reformed images, same shape (N, C, H, W), in [0, 1]."""
        height, width = inputs.shape[-2:]
        coarse = self.grow(self.coarse(self.pool(self.before(inputs))))
        return self.after(coarse[..., :height, :width]).sigmoid()

    def bpda_twin(self, inputs: Tensor) -> Tensor:
        """Returns the inputs: a purifier's output is meant to be close to them."""
        return inputs


def build(dataset: DatasetSpec, *, base: nn.Module, width: int = 16) -> Purified:
    """Returns the base model behind a reformer."""
    return Purified(Reformer(dataset.input_shape[0], width), base)
