"""What the recipes of all purifiers share: the classifier stays, the last epoch is kept, quality is measured."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from datasets.batch import Dataset
from defenses.purifiers.purified import Purified, mean_psnr
from defenses.recipes.callbacks import Callback
from defenses.recipes.options import TrainingOptions
from defenses.recipes.training import BatchLoss, Progress, Training, fit
from defenses.seeding import seeded


def fit_purifier(
    model: Purified,
    dataset: Dataset,
    options: TrainingOptions,
    *,
    seed: int,
    device: str,
    progress: Progress | None,
    batch_loss: BatchLoss,
    callbacks: Sequence[Callback] = (),
    stage: str = "purifier",
) -> Training:
    """Trains the purifier of a model and leaves the network behind it alone.

    The weights of the last epoch are kept: the accuracy behind a purifier says little about how it restores images.
    It alone is validated, too: a validation would take draws that the training of a stochastic purifier goes on with.

    Args:
        model: Trained in place.
        dataset: Classification of single images.
        options: Hyper-parameters of the loop.
        seed: Seed of everything random.
        device: Torch device.
        progress: Told the finished fraction and a short text after every step, or None.
        batch_loss: Mean loss of a batch.
        callbacks: What goes along with the training, such as a loss that learns.
        stage: What is trained, for the curve.

    Returns:
        The training. Its curve has a row for each epoch: the stage and the mean loss, but in the last row, which holds
        the validation and `val_psnr`, the mean PSNR of the purified validation images in dB, and names no stage.
    """
    model.net.requires_grad_(False)
    loop = dataclasses.replace(options, validate_every=options.epochs)
    training = fit(
        model,
        dataset,
        loop,
        seed=seed,
        device=device,
        progress=progress,
        batch_loss=batch_loss,
        callbacks=callbacks,
    )
    last = training.curve[-1] | {"val_psnr": measured_psnr(model, dataset, seed, device)}
    curve = (*named(training.curve[:-1], stage), last)
    return dataclasses.replace(training, curve=curve, options=dataclasses.asdict(options))


def named(rows: Sequence[Mapping[str, float | str]], stage: str) -> tuple[dict[str, float | str], ...]:
    """Returns rows of a curve that say to which stage of a training they belong."""
    return tuple({"stage": stage, **row} for row in rows)


def measured_psnr(model: Purified, dataset: Dataset, seed: int, device: str) -> float:
    """Returns the mean PSNR of the purified validation images in dB, with draws of its own."""
    with seeded(seed, device):
        return round(mean_psnr(model.transform, dataset.splits["val"], device), 3)
