"""The denoiser of high-level representation guided denoising: a U-Net that predicts the perturbation."""

from __future__ import annotations

from torch import Tensor, nn

from defenses.purifiers.purified import Purified
from defenses.purifiers.unet import ImageUNet
from registry import DatasetSpec


class ResidualDenoiser(nn.Module):
    """Adds to an image what a U-Net takes for the negative perturbation; its gradient is the true one.

    Args:
        channels: Channels of the images.
        widths: Channels of the U-Net at each resolution.
    Source: Liao et al. 2018, arXiv:1712.02976, section 3.2 (DUNET, equation 4).
    """

    differentiable = True

    def __init__(self, channels: int, widths: tuple[int, ...]) -> None:
        super().__init__()
        self.unet = ImageUNet(channels, widths, timed=False)

    def forward(self, inputs: Tensor) -> Tensor:
        """Returns the denoised images, same shape (N, C, H, W), cut to [0, 1]."""
        return (inputs + self.unet(2 * inputs - 1)).clamp(0, 1)

    def bpda_twin(self, inputs: Tensor) -> Tensor:
        """Returns the inputs: a denoiser's output is meant to be close to them."""
        return inputs


def build(dataset: DatasetSpec, *, base: nn.Module, widths: tuple[int, ...] = (16, 32, 64)) -> Purified:
    """Returns the base model behind a guided denoiser."""
    return Purified(ResidualDenoiser(dataset.input_shape[0], widths), base)
