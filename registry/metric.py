"""What a displayed quantity is called and how it is read; the numbers themselves live in records."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class MetricSpec:
    """One quantity that records hold and pages show."""

    name: str
    """Identifier in records, e.g. "robust_accuracy"."""
    title: str
    """Column heading, e.g. "Robust accuracy"."""
    unit: str = "fraction"
    """fraction (shown as percent), mm, px, dB, s, or empty."""
    higher_is_better: bool = True
    """Direction, from the defender's side."""
    digits: int = 1
    """Decimals that pages print."""
    description: str = ""
    """One sentence on how it is computed."""
    bound_under_attack: bool = False
    """Whether its value on the worst inputs is an upper bound: an attack that aimed at it would find less."""


DRAW_METRICS = (
    MetricSpec(
        name="draws10_mean",
        title="Mean of 10 draws",
        description="Stochastic defenses: mean score of 10 single draws of their noise.",
    ),
    MetricSpec(
        name="draws32_averaged",
        title="Averaged prediction of 32 draws",
        description="Stochastic defenses: score of the mean probability of 32 draws of their noise.",
    ),
    MetricSpec(
        name="draws32_worst",
        title="Worst of 32 draws",
        description="Stochastic defenses: mean over images of the lowest score of 32 draws; an attacker may try again.",
    ),
)
"""What records of stochastic defenses hold beside the metrics of their task; the worst inputs are the stored ones."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskSpec:
    """A task as people see it; its arithmetic lives in `datasets.tasks`."""

    name: str
    """E.g. "segmentation"; entries name it."""
    title: str
    """Heading on pages."""
    score: str
    """One sentence: the score in [0, 1] of one sample."""
    quality: str
    """Name of the mean score, e.g. "accuracy" or "Dice"."""
    build: str
    """Reference of the factory `build(spec: DatasetSpec) -> Task`."""
    metrics: tuple[MetricSpec, ...]
    """Corpus metrics that this task's records may hold beside the mean score; they never rank."""
    revision: int = 1
    """Raised when the meaning of the score changes."""


RESTORATION = (
    MetricSpec(
        name="restored_psnr",
        title="PSNR",
        unit="dB",
        description="Peak signal-to-noise ratio of the restored image against the clean one, mean over images; none "
        "counts more than 58.9 dB, that of rounding to 8 bits.",
    ),
    MetricSpec(
        name="restored_ssim",
        title="SSIM",
        unit="",
        digits=3,
        description="Structural similarity of the restored image and the clean one, mean over images.",
    ),
    MetricSpec(
        name="restored_mse",
        title="MSE",
        unit="",
        higher_is_better=False,
        digits=5,
        description="Mean squared error of the restored image against the clean one, images in [0, 1].",
    ),
    MetricSpec(
        name="attacked_psnr",
        title="PSNR of the attacked image",
        unit="dB",
        description="Of the attacked image itself against the clean one, before it is restored.",
    ),
)
"""How far the images that a purifier or filter hands on are from the clean ones; records of any task may hold them."""


def settling_limit(n: int) -> float:
    """Returns by how many of n samples more effort may lower the summed scores of a row that has settled.

    Three samples, or half a percent of them where that is more.
    """
    return max(3.0, 0.005 * n)
