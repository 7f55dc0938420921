"""Classic denoising filters in front of a trained model: adaptive median, non-local means.

Both are deterministic, treat every sample for itself, and have their true gradient almost everywhere.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from defenses.stages import Preprocessed
from registry import DatasetSpec
from registry.errors import InvalidEntryError


class AdaptiveMedian(nn.Module):
    """Replaces only pixels that look like impulses, by the median of a neighbourhood that grows where it must.

    The neighbourhood of a pixel grows until its median lies strictly between its lowest and its highest value. There
    the pixel stays if it lies strictly between them as well, else it becomes the median. Where no size will do, as in
    flat regions, the median of the largest one is taken. Channel by channel; borders are mirrored.

    Args:
        largest: Edge of the largest neighbourhood, odd, 3 or more; the first one has 3.
    Source: Hwang & Haddad 1995, doi 10.1109/83.370679, section II (RAMF).
    """

    differentiable = True

    def __init__(self, largest: int = 7) -> None:
        super().__init__()
        if largest < 3 or largest % 2 == 0:
            raise InvalidEntryError(f"the largest neighbourhood has an odd edge of 3 or more, got {largest}")
        self.largest = largest

    def forward(self, inputs: Tensor) -> Tensor:
        """Returns the filtered images, same shape; inputs are (..., C, H, W) in [0, 1]."""
        planes = inputs.reshape(-1, 1, *inputs.shape[-2:])
        pixels = planes.flatten(1)
        settled = torch.zeros_like(pixels, dtype=torch.bool)
        output = pixels
        for size in range(3, self.largest + 1, 2):
            around = F.unfold(F.pad(planes, [size // 2] * 4, mode="reflect"), size)
            low, median, high = around.amin(1), around.median(1).values, around.amax(1)
            keeps = (low < pixels) & (pixels < high)
            fits = (low < median) & (median < high)
            last = size == self.largest
            chosen = torch.where(fits & keeps, pixels, median)
            output = torch.where(~settled & (fits | last), chosen, output)
            settled = settled | fits
        return output.reshape(inputs.shape)

    def bpda_twin(self, inputs: Tensor) -> Tensor:
        """Returns the inputs: most pixels stay as they are."""
        return inputs

    def extra_repr(self) -> str:
        return f"largest={self.largest}"


class NonLocalMeans(nn.Module):
    """Replaces every pixel by a mean of pixels nearby, weighted by how much the patches around them are alike.

    The weight of a pixel is exp(-d / h ** 2), d the mean squared difference of the two patches over pixels and
    channels. Borders are mirrored. Its gradient is the true one, through values and weights.

    Args:
        patch: Edge of a patch, odd.
        distance: How far away pixels are looked at, along each axis.
        strength: h, in input units: the larger, the smoother.
    Source: Buades, Coll, Morel 2005, doi 10.1109/CVPR.2005.38, with flat patches and weight 1 for the pixel itself.
    """

    differentiable = True

    def __init__(self, patch: int = 3, distance: int = 3, strength: float = 0.04) -> None:
        super().__init__()
        if patch < 1 or patch % 2 == 0 or distance < 1 or strength <= 0:
            raise InvalidEntryError(
                "non-local means need an odd patch, a distance of 1 or more and a strength above 0, got "
                f"{patch}, {distance}, {strength}"
            )
        self.patch, self.distance, self.strength = patch, distance, strength

    def forward(self, inputs: Tensor) -> Tensor:
        """Returns the filtered images, same shape; inputs are (..., C, H, W) in [0, 1]."""
        images = inputs.reshape(-1, *inputs.shape[-3:])
        height, width = images.shape[-2:]
        half, far = self.patch // 2, self.distance
        padded = F.pad(images, [half + far] * 4, mode="reflect")
        own = padded[..., far : far + height + 2 * half, far : far + width + 2 * half]
        total, weights = torch.zeros_like(images), torch.zeros_like(images[:, :1])
        for down in range(2 * far + 1):
            for right in range(2 * far + 1):
                other = padded[..., down : down + height + 2 * half, right : right + width + 2 * half]
                difference = F.avg_pool2d((own - other).square().mean(1, keepdim=True), self.patch, stride=1)
                weight = torch.exp(-difference / self.strength**2)
                total = total + weight * other[..., half : half + height, half : half + width]
                weights = weights + weight
        return (total / weights).reshape(inputs.shape)

    def bpda_twin(self, inputs: Tensor) -> Tensor:
        """Returns the inputs."""
        return inputs

    def extra_repr(self) -> str:
        return f"patch={self.patch}, distance={self.distance}, strength={self.strength}"


def adaptive_median(dataset: DatasetSpec, *, base: nn.Module, largest: int = 7) -> Preprocessed:
    """Returns the base model behind an adaptive median filter."""
    return Preprocessed(AdaptiveMedian(largest), base)


def non_local_means(
    dataset: DatasetSpec, *, base: nn.Module, patch: int = 3, distance: int = 3, strength: float = 0.04
) -> Preprocessed:
    """Returns the base model behind non-local means."""
    return Preprocessed(NonLocalMeans(patch, distance, strength), base)
