"""Clinical corruptions: changes that nobody chose, such as noise, blur and compression, in five severities.

Strengths are those of CIFAR-10-C, which was made for images as small as these. Noise is keyed by seed, severity and
sample, so that no image depends on its batch.
Source: Hendrycks and Dietterich 2019, arXiv:1903.12261, section 3, and the strengths of their CIFAR-10-C.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from scipy.stats import poisson
from torch import Tensor
from torchvision.transforms.v2.functional import gaussian_blur

from attacks.ball import Ball
from attacks.draws import KeyedRandom
from attacks.victim import Access
from datasets.batch import Batch
from registry import Knowledge
from registry.errors import InvalidEntryError

REFERENCE_EDGE = 32
"""Edge in pixels of the images whose blur the strengths are given for; larger images are blurred in proportion."""


def poisson_noise(inputs: Tensor, strength: float, keys: Tensor) -> Tensor:
    """Returns Poisson counts at a mean of x / strength^2, in units of strength^2: at white the deviation is `strength`.

    Counts come from uniform numbers by the inverse distribution function.
    """
    unit = strength**2
    uniform = KeyedRandom.uniform(keys, inputs.shape[1:]).cpu().numpy().astype(np.float64)
    mean = inputs.cpu().numpy().astype(np.float64) / unit
    counts = np.maximum(poisson.ppf(uniform, mean), 0)  # at 0 the function is -1
    return torch.from_numpy(counts * unit).to(inputs)


def gaussian_noise(inputs: Tensor, strength: float, keys: Tensor) -> Tensor:
    """Returns the inputs with normal noise of standard deviation `strength`."""
    return inputs + strength * KeyedRandom.normal(keys, inputs.shape[1:])


def impulse_noise(inputs: Tensor, strength: float, keys: Tensor) -> Tensor:
    """Returns the inputs with a share `strength` of the values set to 0 or 1, equally often."""
    uniform = KeyedRandom.uniform(keys, inputs.shape[1:])
    return torch.where(uniform < strength, (uniform < strength / 2).to(inputs.dtype), inputs)


def blur(inputs: Tensor, strength: float, keys: Tensor) -> Tensor:
    """Returns the inputs under a Gaussian of deviation `strength` pixels at an edge of 32, cut off at 4 deviations."""
    sigma = strength * max(inputs.shape[-2:]) / REFERENCE_EDGE
    size = 2 * min(int(4 * sigma + 0.5), min(inputs.shape[-2:]) - 1) + 1
    return gaussian_blur(inputs, [size, size], [sigma, sigma])


def contrast(inputs: Tensor, strength: float, keys: Tensor) -> Tensor:
    """Returns the inputs with their distance from the mean of each channel multiplied by `strength`."""
    mean = inputs.mean((-2, -1), keepdim=True)
    return mean + strength * (inputs - mean)


def jpeg(inputs: Tensor, strength: float, keys: Tensor) -> Tensor:
    """Returns the inputs after JPEG of quality `strength`: three channels as colour, any others each as grey."""
    levels = (inputs.clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy()
    images = levels.reshape(-1, *levels.shape[-3:])
    decoded = [_coded(image, int(strength)) for image in images]
    return torch.from_numpy(np.stack(decoded).reshape(levels.shape)).to(inputs.device).to(inputs.dtype) / 255


def _coded(image: np.ndarray, quality: int) -> np.ndarray:
    """Returns a uint8 image (C, H, W) after coding and decoding."""
    if image.shape[0] != 3:
        return np.concatenate([_coded_pixels(channel, quality)[None] for channel in image])
    return _coded_pixels(image.transpose(1, 2, 0), quality).transpose(2, 0, 1)


def _coded_pixels(pixels: np.ndarray, quality: int) -> np.ndarray:
    with io.BytesIO() as file:
        Image.fromarray(np.ascontiguousarray(pixels)).save(file, format="JPEG", quality=quality)
        with Image.open(file) as decoded:
            return np.asarray(decoded)


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A corruption and its strengths at severity 1 to 5."""

    change: Callable[[Tensor, float, Tensor], Tensor]
    """`change(inputs, strength, keys)`: inputs (N, ...) in [0, 1], one int64 key a row; the result may leave [0, 1]."""
    strengths: tuple[float, float, float, float, float]
    """By severity."""


KINDS = {
    "poisson": Kind(change=poisson_noise, strengths=(0.1, 0.2, 0.3, 0.4, 0.5)),
    "gaussian": Kind(change=gaussian_noise, strengths=(0.04, 0.06, 0.08, 0.09, 0.10)),
    "impulse": Kind(change=impulse_noise, strengths=(0.01, 0.02, 0.03, 0.05, 0.07)),
    "blur": Kind(change=blur, strengths=(0.4, 0.6, 0.7, 0.8, 1.0)),
    "contrast": Kind(change=contrast, strengths=(0.75, 0.5, 0.4, 0.3, 0.15)),
    "jpeg": Kind(change=jpeg, strengths=(80, 65, 58, 50, 40)),
}
"""By name. Poisson's strengths are the lambda of MI-Protector at severities 1, 3 and 5, and the values between."""


class Corruption:
    """Changes every image once; nothing is searched.

    Args:
        kind: Name of the corruption, see `KINDS`.
        severity: 1 to 5.

    Raises:
        InvalidEntryError: No such corruption, or no such severity.
    """

    knowledge = Knowledge.TRANSFER

    def __init__(self, *, kind: str, severity: int) -> None:
        if kind not in KINDS or severity not in (1, 2, 3, 4, 5):
            raise InvalidEntryError(
                f"a corruption is one of {', '.join(KINDS)} with a severity of 1 to 5, got {kind!r} and {severity!r}"
            )
        self._kind, self._severity = KINDS[kind], severity

    def run(self, access: Access, batch: Batch, ball: Ball, rng: KeyedRandom) -> Tensor:
        """Returns the corrupted images, in [0, 1]."""
        strength = self._kind.strengths[self._severity - 1]
        return self._kind.change(batch.inputs, strength, rng.keys(batch.sample_ids)).clamp(0, 1)
