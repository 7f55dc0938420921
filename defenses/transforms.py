"""Classic input transformations in front of a trained model: JPEG, bit-depth reduction, median filter.

All are deterministic and treat every sample for itself, so that a row's output does not depend on its neighbours.
"""

from __future__ import annotations

import io

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from defenses.stages import Preprocessed
from registry import DatasetSpec
from registry.errors import InvalidEntryError


class _ZeroGradient(torch.autograd.Function):
    """The values of a piecewise constant map with its true gradient, which is zero almost everywhere."""

    @staticmethod
    def forward(ctx, inputs: Tensor, values: Tensor) -> Tensor:
        return values.clone()

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:
        return torch.zeros_like(gradient), None


class Jpeg(nn.Module):
    """Compresses every image as JPEG and decodes it again.

    Images of three channels are coded as colour with Pillow's chroma subsampling, each channel of any other image for
    itself as grey. Values are rounded to 8 bits on the way, so the true gradient is zero.

    Args:
        quality: Quality of the encoder, 1 to 95.
    Source: Guo et al. 2018, arXiv:1711.00117, section 3; quality 75 as there.
    """

    def __init__(self, quality: int = 75) -> None:
        super().__init__()
        if not 1 <= quality <= 95:
            raise InvalidEntryError(f"JPEG quality is 1 to 95, got {quality}")
        self.quality = quality

    def forward(self, inputs: Tensor) -> Tensor:
        """Returns the decoded images, same shape and dtype, in [0, 1]; inputs are (..., C, H, W) in [0, 1]."""
        flat = inputs.detach().reshape(-1, *inputs.shape[-3:])
        levels = (flat.clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy()
        decoded = np.stack([self._decode(image) for image in levels]) if len(levels) else levels
        values = torch.from_numpy(decoded).to(inputs.device).to(inputs.dtype) / 255
        return _ZeroGradient.apply(inputs, values.reshape(inputs.shape))

    def bpda_twin(self, inputs: Tensor) -> Tensor:
        """Returns the inputs: compression of this quality is close to the identity."""
        return inputs

    def _decode(self, image: np.ndarray) -> np.ndarray:
        """Returns a uint8 image (C, H, W) after coding and decoding."""
        if image.shape[0] == 3:
            return self._code(image.transpose(1, 2, 0)).transpose(2, 0, 1)
        return np.stack([self._code(channel) for channel in image])

    def _code(self, pixels: np.ndarray) -> np.ndarray:
        with io.BytesIO() as file:
            Image.fromarray(pixels).save(file, format="JPEG", quality=self.quality)
            with Image.open(file) as decoded:
                return np.asarray(decoded)

    def extra_repr(self) -> str:
        return f"quality={self.quality}"


class BitDepth(nn.Module):
    """Rounds every value to one of 2 ** bits levels; the true gradient is zero.

    Args:
        bits: 1 to 8.
    Source: Xu et al. 2018, arXiv:1704.01155, section III.A; 3 bits as in Guo et al. 2018, arXiv:1711.00117.
    """

    def __init__(self, bits: int = 3) -> None:
        super().__init__()
        if not 1 <= bits <= 8:
            raise InvalidEntryError(f"bits are 1 to 8, got {bits}")
        self.levels = 2**bits - 1

    def forward(self, inputs: Tensor) -> Tensor:
        """Returns the rounded images, same shape; inputs are in [0, 1]."""
        return torch.round(inputs * self.levels) / self.levels

    def bpda_twin(self, inputs: Tensor) -> Tensor:
        """Returns the inputs."""
        return inputs

    def extra_repr(self) -> str:
        return f"levels={self.levels + 1}"


class MedianFilter(nn.Module):
    """Replaces every pixel by the median of its square neighbourhood, channel by channel; borders are mirrored.

    Differentiable almost everywhere: the gradient goes to the one pixel that is the median.

    Args:
        size: Edge of the neighbourhood, odd, 3 or more.
    Source: Xu et al. 2018, arXiv:1704.01155, section III.B; 3 x 3, centred.
    """

    differentiable = True

    def __init__(self, size: int = 3) -> None:
        super().__init__()
        if size < 3 or size % 2 == 0:
            raise InvalidEntryError(f"the median's neighbourhood has an odd edge of 3 or more, got {size}")
        self.size = size

    def forward(self, inputs: Tensor) -> Tensor:
        """Returns the filtered images, same shape; inputs are (..., C, H, W) in [0, 1]."""
        return self._neighbours(inputs).median(1).values.reshape(inputs.shape)

    def bpda_twin(self, inputs: Tensor) -> Tensor:
        """Returns the mean of the neighbourhood, which spreads the gradient over all of it."""
        return self._neighbours(inputs).mean(1).reshape(inputs.shape)

    def _neighbours(self, inputs: Tensor) -> Tensor:
        """Returns (images, size * size, pixels)."""
        height, width = inputs.shape[-2:]
        planes = inputs.reshape(-1, 1, height, width)
        return F.unfold(F.pad(planes, [self.size // 2] * 4, mode="reflect"), self.size)

    def extra_repr(self) -> str:
        return f"size={self.size}"


def jpeg(dataset: DatasetSpec, *, base: nn.Module, quality: int = 75) -> Preprocessed:
    """Returns the base model behind JPEG compression."""
    return Preprocessed(Jpeg(quality), base)


def bit_depth(dataset: DatasetSpec, *, base: nn.Module, bits: int = 3) -> Preprocessed:
    """Returns the base model behind bit-depth reduction."""
    return Preprocessed(BitDepth(bits), base)


def median_filter(dataset: DatasetSpec, *, base: nn.Module, size: int = 3) -> Preprocessed:
    """Returns the base model behind a median filter."""
    return Preprocessed(MedianFilter(size), base)
