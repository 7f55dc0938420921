"""Fixes the threshold of a detector on clean validation images; nothing else is trained."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from datasets.batch import Dataset
from defenses.recipes.options import read_options
from defenses.recipes.training import Progress, Training
from registry.errors import InvalidEntryError


@dataclass(frozen=True, kw_only=True)
class ThresholdOptions:
    """What the threshold is chosen by."""

    false_alarms: float = 0.05
    """Largest share of clean validation images above the threshold."""
    batch_size: int = 64
    """Images of one forward pass."""

    def __post_init__(self) -> None:
        if not 0 <= self.false_alarms < 1 or self.batch_size < 1:
            raise InvalidEntryError(
                "options must hold 0 <= false_alarms < 1 and batch_size >= 1, got "
                f"{self.false_alarms} and {self.batch_size}"
            )


def train(
    model: nn.Module,
    dataset: Dataset,
    options: Mapping[str, object],
    *,
    seed: int,
    device: str,
    progress: Progress | None = None,
) -> Training:
    """Sets the buffer `threshold` of a detector to the lowest score that few enough clean validation images exceed.

    Args:
        model: Has `detection_score(inputs) -> (N,)` and the buffer `threshold`; an image is rejected above it.
        dataset: Its `val` is read, clean; neither `train` nor `test`.
        options: See `ThresholdOptions`.
        seed: Not used: nothing is drawn.
        device: Torch device.
        progress: Told the finished fraction and a short text, or None.
    """
    started = time.monotonic()
    chosen, val = read_options(ThresholdOptions, options), dataset.splits["val"]
    model.to(device).eval()
    scores = []
    for start in range(0, len(val), chosen.batch_size):
        inputs = val.take(slice(start, start + chosen.batch_size)).inputs.to(device)
        with torch.no_grad():
            scores.append(model.detection_score(inputs).cpu().numpy())
        if progress is not None:
            progress(min(1.0, (start + chosen.batch_size) / len(val)), "scores of clean validation images")
    found = np.concatenate(scores)
    threshold = np.quantile(found, 1 - chosen.false_alarms, method="inverted_cdf")
    model.threshold.fill_(float(threshold))
    row = {"epoch": 1, "threshold": float(threshold), "val_false_alarms": float((found > threshold).mean())}
    return Training(
        curve=(row,),
        seconds=round(time.monotonic() - started, 3),
        selected_epoch=1,
        options=dataclasses.asdict(chosen),
    )
