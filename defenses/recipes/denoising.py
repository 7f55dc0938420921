"""Trains a purifier in front of a frozen network to take noise out of clean images; it never sees an attack."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from datasets.batch import Batch, Dataset
from datasets.tasks import task_for
from defenses.purifiers.features import head_inputs
from defenses.purifiers.noise import gaussian_noise, impulse_noise
from defenses.recipes.options import TrainingOptions, read_options
from defenses.recipes.training import Progress, Training, fit
from registry.errors import InvalidEntryError

VALIDATION_SEED = 0
"""Seed of the noise on the validation images, the same in every epoch and for every training seed."""


@dataclass(frozen=True, kw_only=True)
class DenoisingOptions(TrainingOptions):
    """Hyper-parameters of the loop, of the noise, and the weights of the loss."""

    noise: str = "impulse"
    """"impulse": single pixels are replaced; "gaussian": noise is added to every value."""
    low: float = 0.001
    """Lowest density of impulses, or lowest standard deviation in input units."""
    high: float = 0.05
    """Highest density, or highest standard deviation."""
    clean_share: float = 0.2
    """Share of the training images without impulses."""
    squared: bool = False
    """Squared error of the pixels, instead of the absolute one."""
    task_weight: float = 0.0
    """Weight of the task's own loss through the frozen network, beside the mean error of the pixels."""
    feature_weight: float = 0.0
    """Weight of the mean absolute difference of the network's last features on restored and on clean images."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.noise not in ("impulse", "gaussian"):
            raise InvalidEntryError(f"option noise is impulse or gaussian, got {self.noise!r}")
        if not 0 <= self.low <= self.high or (self.noise == "impulse" and self.high > 1):
            raise InvalidEntryError(
                f"the noise needs 0 <= low <= high, a density at most 1; got {self.low}, {self.high}"
            )
        if not 0 <= self.clean_share <= 1 or min(self.task_weight, self.feature_weight) < 0:
            raise InvalidEntryError("option clean_share is a share, 0 to 1, and the weights of the loss are 0 or more")

    def noisy(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Returns noisy images, (N, C, H, W)."""
        if self.noise == "gaussian":
            return gaussian_noise(images, low=self.low, high=self.high, generator=generator)
        return impulse_noise(images, low=self.low, high=self.high, clean_share=self.clean_share, generator=generator)


def train(
    model: nn.Module,
    dataset: Dataset,
    options: Mapping[str, object],
    *,
    seed: int,
    device: str,
    progress: Progress | None = None,
) -> Training:
    """Trains the purifier of a model and keeps the last epoch.

    The task's score on the few images of a validation split says little about the quality of restored ones.

    Args:
        model: With `restored(images)` and `bare()`, see `defenses.stages`; the bare network must be frozen.
        dataset: Images of shape (C, H, W).
        options: See `DenoisingOptions`.
        seed: Seed of everything random.
        device: Torch device.
        progress: Told the finished fraction and a short text after every step, or None.

    Returns:
        The training; `val_robust` of its curve is the score on the noisy images, where it is below the clean one.

    Raises:
        InvalidEntryError: The model shows no restored images, or its network is not frozen.
    Source: Vincent et al. 2008, doi 10.1145/1390156.1390294; the loss through the network as in Liao et al. 2018,
        arXiv:1712.02976, section 3.
    """
    chosen, task = read_options(DenoisingOptions, options), task_for(dataset.spec)
    if not callable(getattr(model, "restored", None)) or any(p.requires_grad for p in model.bare().parameters()):
        raise InvalidEntryError(
            "this recipe trains a purifier in front of a frozen network, e.g. Purified(purifier, net) after "
            "net.requires_grad_(False)"
        )

    def batch_loss(model: nn.Module, batch: Batch, generator: torch.Generator) -> Tensor:
        restored = model.restored(chosen.noisy(batch.inputs, generator))
        error = F.mse_loss if chosen.squared else F.l1_loss
        loss = error(restored, batch.inputs)
        if chosen.task_weight:
            loss = loss + chosen.task_weight * task.training_loss(model.bare()(restored), batch).mean()
        if chosen.feature_weight:
            with torch.no_grad():
                wanted = head_inputs(model.bare(), batch.inputs)
            loss = loss + chosen.feature_weight * F.l1_loss(head_inputs(model.bare(), restored), wanted)
        return loss

    def noisy(model: nn.Module, batch: Batch) -> Batch:
        generator = torch.Generator().manual_seed(VALIDATION_SEED)
        return batch.with_inputs(chosen.noisy(batch.inputs, generator).clamp(0, 1))

    return fit(
        model,
        dataset,
        chosen,
        seed=seed,
        device=device,
        progress=progress,
        batch_loss=batch_loss,
        attack=noisy,
        keep_last=True,
    )
