"""The one training loop: a recipe gives it the loss of a batch and the score of a validation batch."""

from __future__ import annotations

import copy
import dataclasses
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from attacks.hardware import training_layout
from datasets.batch import Batch, Dataset, Split
from datasets.tasks import Task, task_for
from defenses.recipes.augmentation import augment
from defenses.recipes.callbacks import Callback
from defenses.recipes.modes import train_mode
from defenses.recipes.options import TrainingOptions
from defenses.recipes.precision import mixed_precision
from defenses.recipes.resumption import KeptState, RandomState, Stateful, next_state_file
from defenses.seeding import seeded

BatchLoss = Callable[[nn.Module, Batch, torch.Generator], Tensor]
"""`loss(model, batch, generator)`: the mean loss of a training batch; the model is in training mode when called."""
Adversarial = Callable[[nn.Module, Batch], Batch]
"""`attack(model, batch)`: the validation batch that selects the epoch; deterministic."""
Progress = Callable[[float, str], None]
"""`progress(fraction, text)`: called after every step."""

WARM_UP = 0.2
"""Share of the steps over which the learning rate rises."""
CLIP_NORM = 5.0
"""Largest Euclidean length of the gradient of one step; only outliers of the first steps are longer."""


@dataclass(frozen=True, kw_only=True)
class Training:
    """How a training went."""

    curve: tuple[dict[str, float | str], ...]
    """One row per epoch: epoch, train_loss; where it was validated val_clean, too, and val_robust where the recipe
    attacks. A training of several stages names them as `stage` in all rows but the last."""
    seconds: float
    """Wall time."""
    selected_epoch: int
    """Epoch whose weights were kept, counted from 1."""
    options: dict[str, object]
    """All hyper-parameters, defaults included."""


def fit(
    model: nn.Module,
    dataset: Dataset,
    options: TrainingOptions,
    *,
    seed: int,
    device: str,
    progress: Progress | None,
    batch_loss: BatchLoss,
    attack: Adversarial | None = None,
    callbacks: Sequence[Callback] = (),
    keep_last: bool = False,
) -> Training:
    """Trains a model on `train`, keeps the weights of the epoch that is best on `val`, and never reads `test`.

    The best epoch has the highest validation score (under `attack` where one is given), then the lowest validation
    loss. The same seed gives the same weights on one CPU with one number of threads, interrupted or not (see
    `defenses.recipes.resumption`); kernels of a GPU may differ in the last bits from run to run. The state of torch's
    global generators is restored afterwards.

    Args:
        model: Trained in place; ends in eval mode on `device` with the selected weights.
        dataset: With splits train and val.
        options: Hyper-parameters.
        seed: Seed of the order of samples, of augmentation, of inner attacks and of dropout.
        device: Torch device.
        progress: Told the finished fraction and a short text after every step, or None.
        batch_loss: Mean loss of a batch.
        attack: Turns a validation batch into the one that selects the epoch; None to select on the clean one.
        callbacks: What goes along with the training.
        keep_last: Keep the last epoch instead, where the score of the task does not tell how good the training is.
    """
    started = time.monotonic()
    options = dataclasses.replace(options, flip=options.flip and dataset.spec.mirrors)
    task, train, val = task_for(dataset.spec), dataset.splits["train"], dataset.splits["val"]
    selection, kept = _Selection(keep_last), KeptState(next_state_file())
    with seeded(seed, device) as generator:
        model.to(device=device, memory_format=training_layout(model, device))
        loop = _Loop(model, options, device, batch_loss, callbacks, math.ceil(len(train) / options.batch_size))
        parts: dict[str, Stateful] = {**loop.parts(), "selection": selection, "random": RandomState(generator, device)}
        earlier = kept.restore(parts)
        started -= earlier.get("seconds", 0.0)
        for epoch in range(int(earlier.get("epoch", 0)) + 1, options.epochs + 1):
            train_loss = loop.run(epoch, _batches(train, options, generator, device), generator, progress)
            if epoch % options.validate_every == 0 or epoch == options.epochs:
                model.eval()
                with ExitStack() as stack:
                    for callback in callbacks:
                        stack.enter_context(callback.validation(model))
                    row, loss = _validate(model, task, val, options, device, attack)
                    selection.consider(model, {"epoch": epoch, "train_loss": train_loss, **row}, loss)
            else:
                selection.curve.append({"epoch": epoch, "train_loss": train_loss})
            kept.save(parts, {"epoch": epoch, "seconds": time.monotonic() - started})
        model.load_state_dict(selection.weights)
        model.eval()
    return Training(
        curve=tuple(selection.curve),
        seconds=round(time.monotonic() - started, 3),
        selected_epoch=selection.epoch,
        options=dataclasses.asdict(options),
    )


class _Loop:
    """The steps of an epoch, with everything that moves in them."""

    def __init__(
        self,
        model: nn.Module,
        options: TrainingOptions,
        device: str,
        batch_loss: BatchLoss,
        callbacks: Sequence[Callback],
        per_epoch: int,
    ) -> None:
        self._model, self._options, self._device = model, options, device
        self._batch_loss, self._callbacks, self._per_epoch = batch_loss, callbacks, per_epoch
        self._optimizer, self._scheduler = _optimizer(model, options, per_epoch * options.epochs)

    def parts(self) -> dict[str, Stateful]:
        """Returns what an interrupted training has to find again."""
        callbacks = {f"callback {index}": callback for index, callback in enumerate(self._callbacks)}
        return {"model": self._model, "optimizer": self._optimizer, "scheduler": self._scheduler, **callbacks}

    def run(self, epoch: int, batches: Iterator[Batch], generator: torch.Generator, progress: Progress | None) -> float:
        """Takes one step for each batch and returns the mean loss."""
        losses, epochs = [], self._options.epochs
        train_mode(self._model)
        for number, batch in enumerate(batches, start=(epoch - 1) * self._per_epoch):
            losses.append(self._step(batch, generator, number / (self._per_epoch * epochs)))
            if progress is not None:
                progress((number + 1) / (self._per_epoch * epochs), f"epoch {epoch}/{epochs}, loss {losses[-1]:.3f}")
        return round(float(np.mean(losses)), 5)

    def _step(self, batch: Batch, generator: torch.Generator, share: float) -> float:
        model = self._model
        for callback in self._callbacks:
            callback.before_loss(share)
        with mixed_precision(model, self._device, wanted=self._options.mixed_precision):
            loss = self._batch_loss(model, batch, generator)
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()
        for callback in self._callbacks:
            callback.after_backward(model)
        nn.utils.clip_grad_norm_(model.parameters(), CLIP_NORM)
        self._optimizer.step()
        self._scheduler.step()
        for callback in self._callbacks:
            callback.after_step(model)
        return float(loss.detach())


class _Selection:
    """The best epoch so far, its weights, and the curve of all."""

    def __init__(self, keep_last: bool) -> None:
        self.curve: list[dict[str, float]] = []
        self._keep_last = keep_last
        self.epoch = 0
        self.weights: dict[str, Tensor] = {}
        self._quality = (-math.inf, -math.inf)

    def consider(self, model: nn.Module, row: dict[str, float], loss: float) -> None:
        self.curve.append(row)
        quality = (row.get("val_robust", row["val_clean"]), -loss)
        if self._keep_last or quality > self._quality:
            self._quality, self.epoch, self.weights = quality, int(row["epoch"]), copy.deepcopy(model.state_dict())

    def state_dict(self) -> dict[str, object]:
        return {"curve": self.curve, "epoch": self.epoch, "weights": dict(self.weights), "quality": self._quality}

    def load_state_dict(self, state: Mapping[str, object]) -> None:
        self.curve, self.epoch, self.weights = state["curve"], state["epoch"], state["weights"]
        self._quality = state["quality"]


def _batches(split: Split, options: TrainingOptions, generator: torch.Generator, device: str) -> Iterator[Batch]:
    order = torch.randperm(len(split), generator=generator).numpy()
    for rows in np.array_split(order, math.ceil(len(order) / options.batch_size)):  # even sizes: no batch of one
        batch = split.take(rows).to(device)
        yield augment(batch, flip=options.flip, shift=options.shift, generator=generator)


def _optimizer(
    model: nn.Module, options: TrainingOptions, steps: int
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": options.weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW([group for group in groups if group["params"]], lr=options.lr)
    warm = max(1, round(WARM_UP * steps))

    def factor(step: int) -> float:
        if step < warm:
            return (step + 1) / warm
        return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))

    return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, factor)


def _validate(
    model: nn.Module, task: Task, val: Split, options: TrainingOptions, device: str, attack: Adversarial | None
) -> tuple[dict[str, float], float]:
    """Returns the row of the curve and the mean loss of the batches that select the epoch."""
    clean, robust, losses, weights = [], [], [], []
    starts = range(0, len(val), options.batch_size)
    for start in [start for _ in range(options.validation_draws) for start in starts]:
        batch = val.take(slice(start, start + options.batch_size)).to(device)
        score, loss = _score(model, task, batch)
        clean.append(score)
        if attack is not None:
            score, loss = _score(model, task, attack(model, batch))
            robust.append(torch.minimum(score, clean[-1]))
        losses.append(loss)
        weights.append(torch.ones_like(score) if batch.weights is None else batch.weights)
    importance = torch.cat(weights) / torch.cat(weights).mean()
    row = {"val_clean": round(float((torch.cat(clean) * importance).mean()), 5)}
    if attack is not None:
        row["val_robust"] = round(float((torch.cat(robust) * importance).mean()), 5)
    return row, float(torch.cat(losses).mean())


@torch.no_grad()
def _score(model: nn.Module, task: Task, batch: Batch) -> tuple[Tensor, Tensor]:
    outputs = task.check_outputs(model(batch.inputs), batch)
    return task.score(task.decode(outputs, batch), batch), task.training_loss(outputs, batch)
