"""UMAN: a ResNet-18 with noisy attention gates on its image and between its layers."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from defenses.architectures.default import FULL_SIZE_FROM, RESNET_WIDTH, RESNET_WIDTH_GENERATED
from defenses.architectures.resnet import STRIDED_STEM_FROM
from defenses.noise.attention_noise import LUMAN, NUMAN
from registry import DatasetSpec
from registry.errors import InvalidEntryError

FULL_WIDTH = 64
"""Channels of the first stage of the published network."""


class GatedBlock(nn.Module):
    """A residual block with a gate on its input, on its hidden features and on its sum.

    The first half is convolution, ReLU, batch normalisation in this order, and the shortcut leaves behind the first
    gate.

    Args:
        in_channels: Channels that come in.
        channels: Channels that go out.
        stride: Stride of the first convolution and of the shortcut.
        sigma: Standard deviation of the gates' noise; None for a block without gates.
    Source: Dhar et al. 2026, doi:10.1016/j.inffus.2025.103822, as in the authors' published notebook.
    """

    def __init__(self, in_channels: int, channels: int, stride: int, *, sigma: float | None) -> None:
        super().__init__()
        self.gate_input = _gate(in_channels, sigma)
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(channels)
        self.gate_hidden = _gate(channels, sigma)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_channels != channels:
            self.shortcut = nn.Sequential(
                nn.Conv2d(in_channels, channels, 1, stride, bias=False), nn.BatchNorm2d(channels)
            )
        self.gate_sum = _gate(channels, sigma)

    def forward(self, inputs: Tensor) -> Tensor:
        """Returns features of 0 or more; inputs are (N, C, H, W)."""
        gated = self.gate_input(inputs)
        hidden = self.gate_hidden(self.norm1(F.relu(self.conv1(gated))))
        return F.relu(self.gate_sum(self.norm2(self.conv2(hidden)) + self.shortcut(gated)))


class UMAN(nn.Module):
    """ResNet-18 with one NUMAN on the image and 26 LUMAN on its features; either kind can be left out, or most LUMAN.

    Images are not normalised: the gates are made for values in [0, 1].

    Args:
        in_channels: Channels of the images.
        n_outputs: Number of logits.
        full: The published network: a 7 x 7 stem of stride 2 with max-pooling, made for 128 pixels. Otherwise a 3 x 3
            stem without pooling.
        width: Channels of the first stage; 64 is the published network.
        stem_stride: Of the 3 x 3 stem: 1 keeps the resolution, 2 halves it.
        input_sigma: Standard deviation of NUMAN's noise, 0 for gates without noise; None for no gate on the image.
        feature_sigma: The same of LUMAN.
        gated_blocks: Whether the residual blocks have gates; without them the first and the last LUMAN are left.
    Source: Dhar et al. 2026, doi:10.1016/j.inffus.2025.103822, as in the authors' published notebook; logits instead of
    sigmoid outputs.
    """

    def __init__(
        self,
        in_channels: int,
        n_outputs: int,
        *,
        full: bool,
        width: int = 16,
        stem_stride: int = 1,
        input_sigma: float | None = 1.0,
        feature_sigma: float | None = 1.0,
        gated_blocks: bool = True,
    ) -> None:
        super().__init__()
        self.full = full
        self.gate_image = nn.Identity() if input_sigma is None else NUMAN(in_channels, input_sigma)
        edge, stride = (7, 2) if full else (3, stem_stride)
        stem = [nn.Conv2d(in_channels, width, edge, stride, edge // 2, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
        self.stem = nn.Sequential(*stem, *([nn.MaxPool2d(3, 2, 1)] if full else []))
        self.gate_stem = _gate(width, feature_sigma)
        blocks, channels, block_sigma = [], width, feature_sigma if gated_blocks else None
        for stage in range(4):
            for position in range(2):
                stride = 2 if stage > 0 and position == 0 else 1
                blocks.append(GatedBlock(channels, width * 2**stage, stride, sigma=block_sigma))
                channels = width * 2**stage
        self.blocks = nn.Sequential(*blocks)
        self.gate_last = _gate(channels, feature_sigma)
        self.head = nn.Linear(channels, n_outputs)
        for module in (*self.stem.modules(), *self.blocks.modules()):
            if isinstance(module, nn.Conv2d) and module.bias is None:  # the gates' convolutions keep torch's default
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, inputs: Tensor) -> Tensor:
        """Returns raw logits, (N, n_outputs); inputs are (N, C, H, W) in [0, 1]."""
        features = self.gate_stem(self.stem(self.gate_image(inputs)))
        return self.head(self.gate_last(self.blocks(features)).mean((2, 3)))

    def extra_repr(self) -> str:
        return f"full={self.full}"


def build(
    dataset: DatasetSpec,
    *,
    input_sigma: float | None = 1.0,
    feature_sigma: float | None = 1.0,
    gated_blocks: bool = True,
    full: bool | None = None,
    width: int | None = None,
) -> UMAN:
    """Returns UMAN with one logit per class of the data set.

    Args:
        dataset: Single images with class labels.
        input_sigma: Standard deviation of NUMAN's noise, 0 for gates without noise, None for no gate on the image.
        feature_sigma: The same of LUMAN.
        gated_blocks: Whether the residual blocks have gates, too.
        full: Whether to build the published stem and width; None for 128 pixels and more.
        width: Channels of the first stage in place of the default, which is 64 where `full`, else that of the narrow
            ResNet-18.

    Raises:
        InvalidEntryError: The data set does not hold single images with class labels.
    """
    if dataset.task != "classification" or len(dataset.input_shape) != 3:
        raise InvalidEntryError(
            f"UMAN classifies images (C, H, W); data set {dataset.name} is {dataset.task} of shape "
            f"{dataset.input_shape}: choose a data set for classification"
        )
    channels, height, _ = dataset.input_shape
    full = height >= FULL_SIZE_FROM if full is None else full
    usual = FULL_WIDTH if full else RESNET_WIDTH_GENERATED if dataset.embedded else RESNET_WIDTH
    return UMAN(
        channels,
        dataset.n_classes,
        full=full,
        width=width or usual,
        stem_stride=2 if height >= STRIDED_STEM_FROM else 1,
        input_sigma=input_sigma,
        feature_sigma=feature_sigma,
        gated_blocks=gated_blocks,
    )


def _gate(channels: int, sigma: float | None) -> nn.Module:
    return nn.Identity() if sigma is None else LUMAN(channels, sigma)
