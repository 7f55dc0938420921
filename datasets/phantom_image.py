"""How a phantom scene looks: an ultrasound-like image, and a second modality of the same scene."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter
from scipy.special import expit

from datasets.phantom_scene import Scene

GRAIN_LEVELS = 4.0
"""Amplitude of the grain in grey levels: it tells the class of every scene, and 4 / 255 is enough to repaint it."""
NOISE_LEVELS = 4.0
"""Largest standard deviation of the receiver's white noise in grey levels."""
SPECKLE_BLUR = 1.2
"""Width of the speckle in pixels; wide enough to leave the frequencies of the grain free."""


def echo_image(scene: Scene) -> np.ndarray:
    """Returns the first modality, ultrasound-like; uint8 (H, W)."""
    rng = np.random.default_rng((*scene.seed, 0))
    size, depth = scene.size, scene.depth()
    y, x = np.mgrid[:size, :size].astype(float)
    lesion = expit(depth / scene.margin)
    levels = 118 - 24 * (y / size - 0.5) + 8 * _field(rng, size, 5.0)
    levels += -60 * _shadow(scene, x, y) * (1 - lesion)
    levels += lesion * (scene.contrast + scene.mottle * _field(rng, size, 1.5))
    levels *= 1 + 0.08 * _field(rng, size, SPECKLE_BLUR)
    wave_x, wave_y = scene.grain
    phase_x, phase_y = rng.uniform(0, 2 * np.pi, 2) * (np.array(scene.grain) > 0)
    grain = np.cos(wave_x * x + phase_x) * np.cos(wave_y * y + phase_y)
    levels += GRAIN_LEVELS * grain * (depth > -1)
    return _quantised(levels + rng.uniform(0, NOISE_LEVELS) * rng.standard_normal((size, size)))


def stiffness_image(scene: Scene) -> np.ndarray:
    """Returns the second modality, elastography-like: stiff is bright; uint8 (H, W)."""
    rng = np.random.default_rng((*scene.seed, 1))
    lesion = gaussian_filter(expit(scene.depth() / scene.margin), 1.0)
    levels = 70 + 8 * _field(rng, scene.size, 4.0) + scene.stiffness * lesion
    return _quantised(levels + 3 * _field(rng, scene.size, 0.8))


MODALITIES = (echo_image, stiffness_image)


def _field(rng: np.random.Generator, size: int, width: float) -> np.ndarray:
    """Returns a smooth random field of the given correlation width in pixels, standard deviation 1."""
    noise = gaussian_filter(rng.standard_normal((size, size)), width, mode="wrap")
    return noise / max(noise.std(), 1e-9)


def _shadow(scene: Scene, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Returns the strength of the acoustic shadow, 0 to 1; (H, W)."""
    centre_x, centre_y, width = scene.shadow
    return np.exp(-(((x - centre_x) / width) ** 2) - ((y - centre_y) / (2.5 * width)) ** 2)


def _quantised(levels: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(levels), 0, 255).astype(np.uint8)
