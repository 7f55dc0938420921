"""Standard training: the task's own loss on clean images."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from datasets.batch import Batch, Dataset
from datasets.tasks import Task, task_for
from defenses.recipes.options import TrainingOptions, read_options
from defenses.recipes.training import Progress, Training, fit
from registry.errors import InvalidEntryError


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
    check_label_smoothing(chosen, dataset)

    def batch_loss(model: nn.Module, batch: Batch, generator: torch.Generator) -> Tensor:
        return mean_loss(task, model(batch.inputs), batch, chosen)

    return fit(model, dataset, chosen, seed=seed, device=device, progress=progress, batch_loss=batch_loss)


def mean_loss(task: Task, outputs: Tensor, batch: Batch, options: TrainingOptions) -> Tensor:
    """Returns the mean of the task's training loss, with the labels smoothed where the options say so."""
    if options.label_smoothing:
        return F.cross_entropy(outputs, batch.targets["label"], label_smoothing=options.label_smoothing)
    return task.training_loss(outputs, batch).mean()


def check_label_smoothing(options: TrainingOptions, dataset: Dataset) -> None:
    """Raises InvalidEntryError where labels are to be smoothed and there is not one label per sample."""
    spec = dataset.spec
    if options.label_smoothing and (spec.task != "classification" or spec.multi_label):
        raise InvalidEntryError(
            f"label_smoothing needs one label per sample; data set {spec.name} is {spec.task}: set it to 0"
        )
