"""Defensive distillation: a network learns the softened probabilities of a teacher of its own kind."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from datasets.batch import Batch, Dataset
from defenses.recipes.class_probabilities import require_one_label
from defenses.recipes.options import TrainingOptions, read_options
from defenses.recipes.training import BatchLoss, Progress, Training, fit
from registry.errors import InvalidEntryError


@dataclass(frozen=True, kw_only=True)
class DistillationOptions(TrainingOptions):
    """Hyper-parameters of the loop, and the temperature."""

    temperature: float = 100.0
    """Divides the logits in training, of the teacher and of the student; at inference it is 1."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.temperature <= 0:
            raise InvalidEntryError(f"option temperature must be above 0, got {self.temperature}")


def train(
    model: nn.Module,
    dataset: Dataset,
    options: Mapping[str, object],
    *,
    seed: int,
    device: str,
    progress: Progress | None = None,
) -> Training:
    """Trains a teacher at a temperature, then the model on the teacher's probabilities at the same temperature.

    Args:
        model: Trained in place; the teacher begins as a copy of it.
        dataset: Classification with one label per sample.
        options: See `DistillationOptions`.
        seed: Seed of everything random.
        device: Torch device.
        progress: Told the finished fraction and a short text after every step, or None.

    Returns:
        The training of the model; its time includes the teacher's.

    Raises:
        InvalidEntryError: Another task, or several labels at once.
    Source: Papernot et al. 2016, arXiv:1511.04508, section IV.
    """
    require_one_label(dataset.spec, "distillation")
    chosen = read_options(DistillationOptions, options)
    teacher = copy.deepcopy(model)

    def learn(network: nn.Module, batch_loss: BatchLoss, start: float) -> Training:
        def tell(share: float, text: str) -> None:
            if progress is not None:
                progress(start + share / 2, text)

        return fit(network, dataset, chosen, seed=seed, device=device, progress=tell, batch_loss=batch_loss)

    def hard_loss(network: nn.Module, batch: Batch, generator: torch.Generator) -> Tensor:
        return F.cross_entropy(network(batch.inputs) / chosen.temperature, batch.targets["label"])

    def soft_loss(network: nn.Module, batch: Batch, generator: torch.Generator) -> Tensor:
        with torch.no_grad():
            targets = (teacher(batch.inputs) / chosen.temperature).softmax(1)
        return F.cross_entropy(network(batch.inputs) / chosen.temperature, targets)

    first = learn(teacher, hard_loss, 0.0)
    second = learn(model, soft_loss, 0.5)
    return replace(second, seconds=round(first.seconds + second.seconds, 3))
