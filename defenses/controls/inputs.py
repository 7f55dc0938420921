"""Control defenses that change the input: each hides the gradient, or bends it, and leaves the decision as it was."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from defenses.stages import Preprocessed
from defenses.transforms import BitDepth, Jpeg
from registry import DatasetSpec


class Undeclared(nn.Module):
    """A transformation without a declared stand-in: attacks that look for `bpda_twin` do not find one.

    Args:
        transform: Has no parameters; kept outside of the tree of submodules, where its stand-in would be found.
    """

    def __init__(self, transform: nn.Module) -> None:
        super().__init__()
        self._hidden = (transform,)

    def forward(self, inputs: Tensor) -> Tensor:
        return self._hidden[0](inputs)

    def extra_repr(self) -> str:
        return repr(self._hidden[0])


class Sine(nn.Module):
    """Adds a ripple that is low but steep: the value hardly changes, the derivative swings between both signs.

    Args:
        height: Largest change of a value, in input units.
        frequency: The derivative lies between 1 - height * frequency and 1 + height * frequency.
    """

    def __init__(self, height: float, frequency: float) -> None:
        super().__init__()
        self.height, self.frequency = height, frequency

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs + self.height * torch.sin(self.frequency * inputs)


class HardClip(nn.Module):
    """Clips values to a narrower range: what lies outside has no gradient, though a larger change would have an effect.

    Args:
        low: Smallest value that passes.
        high: Largest value that passes.
    """

    def __init__(self, low: float, high: float) -> None:
        super().__init__()
        self.low, self.high = low, high

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs.clamp(self.low, self.high)


class DropBits(nn.Module):
    """Clears the lowest bits of the 8-bit image in NumPy, so that no gradient leads back to the input.

    Args:
        bits: Number of cleared bits.
    """

    def __init__(self, bits: int) -> None:
        super().__init__()
        self.mask = np.uint8(255 << bits & 255)

    def forward(self, inputs: Tensor) -> Tensor:
        levels = np.rint(inputs.detach().cpu().numpy() * 255).astype(np.uint8)
        return torch.from_numpy(levels & self.mask).to(inputs) / 255


class MeanFilter(nn.Module):
    """Replaces every pixel by the mean of its 3 x 3 neighbourhood, channel by channel; borders are mirrored."""

    def forward(self, inputs: Tensor) -> Tensor:
        return F.avg_pool2d(F.pad(inputs, [1] * 4, mode="reflect"), 3, 1)


def quantised(dataset: DatasetSpec, *, base: nn.Module, bits: int) -> Preprocessed:
    """Returns the base behind a rounding to 2 ** bits levels that it does not declare."""
    return Preprocessed(Undeclared(BitDepth(bits)), base)


def jpeg(dataset: DatasetSpec, *, base: nn.Module, quality: int) -> Preprocessed:
    """Returns the base behind JPEG compression that it does not declare."""
    return Preprocessed(Undeclared(Jpeg(quality)), base)


def squeezed(dataset: DatasetSpec, *, base: nn.Module, bits: int) -> Preprocessed:
    """Returns the base behind declared feature squeezing. Source: Xu et al. 2018, arXiv:1704.01155, section III.A."""
    return Preprocessed(BitDepth(bits), base)


def sine(dataset: DatasetSpec, *, base: nn.Module, height: float, frequency: float) -> Preprocessed:
    """Returns the base behind an added ripple."""
    return Preprocessed(Sine(height, frequency), base)


def hard_clip(dataset: DatasetSpec, *, base: nn.Module, low: float, high: float) -> Preprocessed:
    """Returns the base behind a clipped range of values."""
    return Preprocessed(HardClip(low, high), base)


def drop_bits(dataset: DatasetSpec, *, base: nn.Module, bits: int) -> Preprocessed:
    """Returns the base behind bit operations in NumPy."""
    return Preprocessed(DropBits(bits), base)


def mean_filter(dataset: DatasetSpec, *, base: nn.Module) -> Preprocessed:
    """Returns the base behind a mean filter, which is differentiable and hides nothing."""
    return Preprocessed(MeanFilter(), base)
