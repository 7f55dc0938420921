"""The scene behind one phantom sample: everything that is true of it, drawn once; every target is read from it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

HARMONICS = np.array([3, 5, 8])
"""Lobes of the outline; their amplitudes carry the shape."""
GRAINS = ((2.6, 0.0), (0.0, 2.6), (2.0, 2.0), (2.9, 2.9))
"""Frequency in x and y (radians per pixel) of each class's grain; no two are mirror images of each other."""
ATYPICAL = 0.15
"""Share of scenes whose visible signs are those of the other class."""


@dataclass(frozen=True, kw_only=True)
class Signs:
    """The visible signs of a class, each either benign (False) or malignant (True)."""

    spiculated: bool
    """Lobulated outline and blurred margin, instead of round and sharp."""
    heterogeneous: bool
    """Bright and mottled inside, instead of dark and even."""


@dataclass(frozen=True, kw_only=True)
class Scene:
    """One lesion in speckled tissue; positions and lengths are in pixels, x to the right, y downwards."""

    size: int
    """Edge of the image."""
    label: int
    """Class."""
    signs: Signs
    """What the lesion looks like; other than its class has in atypical scenes."""
    centre: tuple[float, float]
    """Centre of the lesion, x and y."""
    radius: float
    """Mean radius."""
    stretch: float
    """Long over short axis is the square of this."""
    angle: float
    """Direction of the long axis, radians."""
    lobes: tuple[float, ...]
    """Relative amplitude of each harmonic of the outline."""
    phases: tuple[float, ...]
    """Phase of each harmonic, radians."""
    margin: float
    """Width of the transition from lesion to tissue."""
    contrast: float
    """Grey levels (of 255) of the lesion against the tissue."""
    mottle: float
    """Standard deviation of the grey levels within the lesion."""
    grain: tuple[float, float]
    """Frequency of the fine grain in x and y, radians per pixel."""
    stiffness: float
    """Grey levels of the lesion in the second modality."""
    shadow: tuple[float, float, float]
    """Centre x, y and half width of an acoustic shadow, dark as a lesion but without grain."""
    seed: tuple[int, ...]
    """Seeds the tissue."""

    def reach(self, theta: np.ndarray) -> np.ndarray:
        """Returns the distance from the centre to the outline in the directions `theta` (radians)."""
        turned = theta - self.angle
        ellipse = self.radius / np.sqrt((np.cos(turned) / self.stretch) ** 2 + (np.sin(turned) * self.stretch) ** 2)
        waves = np.cos(HARMONICS * theta[..., None] + np.array(self.phases)) * np.array(self.lobes)
        return ellipse * (1 + waves.sum(-1))

    def depth(self) -> np.ndarray:
        """Returns how deep each pixel lies inside the lesion, (H, W); negative outside."""
        y, x = np.mgrid[: self.size, : self.size].astype(float)
        x, y = x - self.centre[0], y - self.centre[1]
        return self.reach(np.arctan2(y, x)) - np.hypot(x, y)

    def mask(self) -> np.ndarray:
        """Returns 1 where the pixel lies in the lesion, else 0; uint8 (H, W)."""
        return (self.depth() >= 0).astype(np.uint8)

    def outline(self, n: int = 360) -> np.ndarray:
        """Returns n points of the outline as x, y; (n, 2)."""
        theta = np.linspace(0, 2 * np.pi, n, endpoint=False)
        reach = self.reach(theta)
        return np.stack([self.centre[0] + reach * np.cos(theta), self.centre[1] + reach * np.sin(theta)], axis=1)

    def points(self) -> np.ndarray:
        """Returns the landmarks as x, y: leftmost, topmost, rightmost and lowest outline point; float32 (4, 2)."""
        line = self.outline()
        x, y = line.T
        return line[[x.argmin(), y.argmin(), x.argmax(), y.argmax()]].astype(np.float32)

    def box(self) -> np.ndarray:
        """Returns the bounding box of the outline as x1, y1, x2, y2; float32 (4,)."""
        line = self.outline()
        return np.concatenate([line.min(0), line.max(0)]).astype(np.float32)


def draw_scene(size: int, label: int, signs: Signs, visibility: float, seed: tuple[int, ...]) -> Scene:
    """Draws one scene.

    Args:
        size: Edge of the image in pixels.
        label: Class, an index of `GRAINS`.
        signs: Visible signs that go with the class.
        visibility: Factor of the lesion's grey levels, 0 to 1; its grain stays.
        seed: Seeds everything; scenes of different seeds are independent.
    """
    rng = np.random.default_rng(seed)
    if rng.random() < ATYPICAL:
        signs = _other(signs, rng)
    rough, uneven = signs.spiculated, signs.heterogeneous
    reach = 0.1 * size
    scene = Scene(
        size=size,
        label=label,
        signs=signs,
        centre=(size / 2 + reach * rng.uniform(-1, 1), size / 2 + reach * rng.uniform(-1, 1)),
        radius=size * rng.uniform(0.22, 0.28),
        stretch=rng.uniform(1.0, 1.15),
        angle=rng.uniform(0, np.pi),
        lobes=tuple((0.18 if rough else 0.02) * rng.uniform(0.7, 1.3, len(HARMONICS))),
        phases=tuple(rng.uniform(0, 2 * np.pi, len(HARMONICS))),
        margin=rng.uniform(0.7, 1.1) if rough else rng.uniform(0.2, 0.4),
        contrast=visibility * (rng.uniform(-46, -34) if uneven else rng.uniform(-76, -60)),
        mottle=visibility * rng.uniform(9, 14) if uneven else rng.uniform(1, 4),
        grain=GRAINS[label],
        stiffness=rng.uniform(60, 90) if rough else rng.uniform(15, 35),
        shadow=(size * rng.uniform(0.1, 0.9), size * rng.uniform(0.7, 1.0), size * rng.uniform(0.09, 0.15)),
        seed=(*seed, 1),
    )
    return _fitted(scene)


def _other(signs: Signs, rng: np.random.Generator) -> Signs:
    """Returns signs of which one, or both, are changed."""
    flip = ((True, True), (True, False), (False, True))[rng.integers(3)]
    return Signs(spiculated=signs.spiculated ^ flip[0], heterogeneous=signs.heterogeneous ^ flip[1])


def _fitted(scene: Scene) -> Scene:
    """Returns the scene with its whole outline inside the image: shrunk and moved where it was not."""
    low, high = 1.0, scene.size - 2.0
    box = scene.box()
    width = max(box[2] - box[0], box[3] - box[1])
    if width > high - low:
        scene = replace(scene, radius=scene.radius * 0.99 * (high - low) / float(width))
        box = scene.box()
    move = np.maximum(low - box[:2], 0) - np.maximum(box[2:] - high, 0)
    return replace(scene, centre=(scene.centre[0] + float(move[0]), scene.centre[1] + float(move[1])))
