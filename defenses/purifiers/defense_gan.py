"""Defense-GAN: an image is replaced by the closest one that a generator can make, found by gradient descent."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from defenses.purifiers.purified import Purified
from defenses.purifiers.vae import Generator
from registry import DatasetSpec

LATENT = 32
"""Numbers of a latent code."""
WIDEST = 16
"""Most channels of the generator: it runs forth and back at every step of the descent."""


class InversionPurifier(nn.Module):
    """Descends from random codes to those whose images are closest to the input, and returns the closest image.

    Where gradients are wanted, the descent is differentiated step by step: the gradient is the true one except where
    another start becomes the closest.

    Args:
        generator: Maps codes to images.
        restarts: Random starts R.
        steps: Steps L of each descent.
        step_size: Length of a step, for the squared error summed over an image's values.
        momentum: Share of the last step in the next one.
    Source: Samangouei et al. 2018, arXiv:1805.06605, section 4 and equation 2.
    """

    differentiable = True

    def __init__(
        self, generator: Generator, *, restarts: int, steps: int, step_size: float, momentum: float = 0.7
    ) -> None:
        super().__init__()
        self.generator = generator
        self.restarts, self.steps, self.step_size, self.momentum = restarts, steps, step_size, momentum

    def forward(self, inputs: Tensor) -> Tensor:
        """Returns the closest generated image of each input, same shape (N, C, H, W), in [0, 1]."""
        wanted = torch.is_grad_enabled()
        n, starts = len(inputs), self.restarts
        goals = inputs.repeat_interleave(starts, 0)
        codes = torch.randn(n, starts * self.generator.latent, device=inputs.device, dtype=inputs.dtype).reshape(
            n * starts, -1
        )
        velocity = torch.zeros_like(codes)
        with torch.enable_grad():
            for _ in range(self.steps):
                codes = codes if codes.requires_grad else codes.requires_grad_(True)
                error = (self.generator(codes) - goals).pow(2).sum()
                (slope,) = torch.autograd.grad(error, codes, create_graph=wanted)
                velocity = self.momentum * velocity - self.step_size * slope
                codes = codes + velocity
                if not wanted:
                    codes, velocity = codes.detach(), velocity.detach()
        images = self.generator(codes)
        errors = (images - goals).pow(2).flatten(1).sum(1).reshape(n, starts)
        best = errors.argmin(1) + starts * torch.arange(n, device=inputs.device)
        return images[best]

    def bpda_twin(self, inputs: Tensor) -> Tensor:
        """Returns the inputs: the closest image is meant to be close to them."""
        return inputs


def build(
    dataset: DatasetSpec, *, base: nn.Module, restarts: int = 2, steps: int = 20, step_size: float = 0.02
) -> Purified:
    """Returns the base model behind a purifier that inverts a generator at inference."""
    generator = Generator(dataset.input_shape, LATENT, widest=WIDEST, attention=False)
    return Purified(InversionPurifier(generator, restarts=restarts, steps=steps, step_size=step_size), base)
