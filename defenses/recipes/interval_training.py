"""Training on interval bounds: the loss of the worst logits that bounds allow, over a growing eps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from datasets.batch import Batch, Dataset
from defenses.certified.intervals import lowest_margins
from defenses.recipes.callbacks import Callback
from defenses.recipes.options import TrainingOptions, read_options
from defenses.recipes.training import Progress, Training, fit
from registry.errors import InvalidEntryError

WARM_UP, FULL = 0.1, 0.6
"""Shares of the steps at which eps begins to grow and at which it is reached."""
CLEAN_SHARE = 0.5
"""Weight of the clean loss once eps is reached; it falls from 1."""


@dataclass(frozen=True, kw_only=True)
class IntervalOptions(TrainingOptions):
    """Hyper-parameters of the loop, and the radius."""

    eps: float = 4 / 255
    """Linf radius in input units [0, 1] at the end of the ramp."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.eps <= 1:
            raise InvalidEntryError(f"option eps is in input units [0, 1], got {self.eps:g}; write {self.eps:g} / 255")


def train(
    model: nn.Module,
    dataset: Dataset,
    options: Mapping[str, object],
    *,
    seed: int,
    device: str,
    progress: Progress | None = None,
) -> Training:
    """Trains a network on a mixture of its clean loss and the loss of its worst logits within interval bounds.

    Early epochs, whose eps is small, score best on clean images: set `validate_every` to `epochs`, which keeps the
    last one.

    Args:
        model: As `defenses.certified.intervals.build` returns it; trained in place.
        dataset: Classification with one label per sample.
        options: See `IntervalOptions`.
        seed: Seed of everything random.
        device: Torch device.
        progress: Told the finished fraction and a short text after every step, or None.
    Source: Gowal et al. 2018, arXiv:1810.12715, equation 12 and section 4.
    """
    chosen = read_options(IntervalOptions, options)
    ramp = _Ramp()

    def batch_loss(model: nn.Module, batch: Batch, generator: torch.Generator) -> Tensor:
        label = batch.targets["label"]
        clean = F.cross_entropy(model(batch.inputs), label)
        worst = F.cross_entropy(-lowest_margins(model, batch.inputs, label, ramp.height * chosen.eps), label)
        share = 1 - (1 - CLEAN_SHARE) * ramp.height
        return share * clean + (1 - share) * worst

    return fit(
        model,
        dataset,
        chosen,
        seed=seed,
        device=device,
        progress=progress,
        batch_loss=batch_loss,
        callbacks=(ramp,),
    )


class _Ramp(Callback):
    """Rises from 0 to 1 between two shares of the steps."""

    def __init__(self) -> None:
        self.height = 0.0

    def before_loss(self, share: float) -> None:
        self.height = min(max((share - WARM_UP) / (FULL - WARM_UP), 0.0), 1.0)
