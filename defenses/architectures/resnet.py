"""A narrow ResNet-18 for small images: the published network with fewer channels and a stem that keeps resolution."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from defenses.architectures.normalize import Normalize
from registry import DatasetSpec
from registry.errors import InvalidEntryError

STRIDED_STEM_FROM = 64
"""Edge length in pixels from which the stem halves the resolution."""


class BasicBlock(nn.Module):
    """Two 3 x 3 convolutions with batch normalisation and a shortcut.

    Args:
        in_channels: Channels that come in.
        channels: Channels that go out.
        stride: Stride of the first convolution and of the shortcut.
    Source: He et al. 2016, arXiv:1512.03385, figure 5 left; shortcut option B.
    """

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_channels != channels:
            self.shortcut = nn.Sequential(
                nn.Conv2d(in_channels, channels, 1, stride, bias=False), nn.BatchNorm2d(channels)
            )

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = F.relu(self.norm1(self.conv1(inputs)))
        return F.relu(self.norm2(self.conv2(hidden)) + self.shortcut(inputs))


class NarrowResNet18(nn.Module):
    """ResNet-18 with stages of width, 2 width, 4 width and 8 width channels, a 3 x 3 stem and no max-pooling.

    Args:
        in_channels: Channels of the images.
        n_outputs: Number of logits.
        width: Channels of the first stage; 64 is the published network.
        stem_stride: 1 keeps the resolution, 2 halves it.
    Source: He et al. 2016, arXiv:1512.03385; the stem as in its CIFAR networks, section 4.2.
    """

    def __init__(self, in_channels: int, n_outputs: int, *, width: int = 16, stem_stride: int = 1) -> None:
        super().__init__()
        self.normalize = Normalize()
        self.stem = nn.Sequential(
            nn.Conv2d(in_channels, width, 3, stem_stride, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()
        )
        blocks, channels = [], width
        for stage in range(4):
            for position in range(2):
                stride = 2 if stage > 0 and position == 0 else 1
                blocks.append(BasicBlock(channels, width * 2**stage, stride))
                channels = width * 2**stage
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(channels, n_outputs)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, inputs: Tensor) -> Tensor:
        """Returns raw logits, (N, n_outputs); inputs are (N, C, H, W) in [0, 1]."""
        features = self.blocks(self.stem(self.normalize(inputs)))
        return self.head(features.mean((2, 3)))


def build(dataset: DatasetSpec, *, width: int = 16) -> NarrowResNet18:
    """Returns a narrow ResNet-18 with one logit per class of the data set; width 16 has 0.7 million parameters.

    Raises:
        InvalidEntryError: The data set does not hold single images with class labels.
    """
    if dataset.task != "classification" or len(dataset.input_shape) != 3:
        raise InvalidEntryError(
            f"the narrow ResNet-18 classifies images (C, H, W); data set {dataset.name} is {dataset.task} "
            f"of shape {dataset.input_shape}: name another architecture"
        )
    channels, height, _ = dataset.input_shape
    stride = 2 if height >= STRIDED_STEM_FROM else 1
    return NarrowResNet18(channels, dataset.n_classes, width=width, stem_stride=stride)
