"""Standard training: the task's own loss on clean images."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from datasets.batch import Batch, Dataset
from datasets.tasks import task_for
from defenses.recipes.options import TrainingOptions, read_options
from defenses.recipes.training import Progress, Training, fit


def train(
    model: nn.Module,
    dataset: Dataset,
    options: Mapping[str, object],
    *,
    seed: int,
    device: str,
    progress: Progress | None = None,
) -> Training:
    """Trains a model on clean images and selects the epoch of the best clean validation score.

    Args:
        model: Trained in place.
        dataset: Any task whose outputs are one tensor.
        options: See `TrainingOptions`.
        seed: Seed of everything random.
        device: Torch device.
        progress: Told the finished fraction and a short text after every step, or None.
    """
    chosen = read_options(TrainingOptions, options)
    task = task_for(dataset.spec)

    def batch_loss(model: nn.Module, batch: Batch, generator: torch.Generator) -> Tensor:
        return task.training_loss(model(batch.inputs), batch).mean()

    return fit(model, dataset, chosen, seed=seed, device=device, progress=progress, batch_loss=batch_loss)
