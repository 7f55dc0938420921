"""What a stochastic defense answers over several draws: one by one, averaged, and at its worst."""

from __future__ import annotations

import torch
from torch import Tensor

from attacks.pooling import logits_of, probabilities_of
from attacks.queries import Draws
from attacks.victim import ModelVictim
from datasets.batch import Batch
from datasets.tasks.base import Outputs
from registry import Randomness
from results import statistics
from results.record import Estimate

FIRST = 1 << 44
"""Index of the first draw; no search, selection or final score sees these."""
DRAWS, SINGLE = 32, 10
"""Draws of each image, and how many of them the mean of single draws takes."""


def observe(victim: ModelVictim, batch: Batch) -> tuple[Outputs, dict[str, Estimate]]:
    """Returns outputs that stand for a defense, and the metrics of `registry.DRAW_METRICS`.

    The outputs are those of a deterministic model; of a stochastic one the logits of its mean probability over 32 fresh
    draws or, where it returns several tensors, those of one fresh draw.

    `draws10_mean` is the mean score of 10 draws, `draws32_averaged` the score of the mean probability (left out where
    a model returns several tensors), `draws32_worst` the lowest score of 32 draws of each image. Worst inputs are
    selected by their mean score over single draws, so that `draws32_averaged` is no worst case of a defense that
    averages. A deterministic model has no such metrics.

    Args:
        victim: The unprepared model.
        batch: Originals, or the worst inputs that were found.
    Source: Lucas et al. 2023, arXiv:2302.13464, on attackers who may try again.
    """
    if victim.randomness is Randomness.NONE or not len(batch):
        return victim.outputs(batch), {}
    task, several, singles, mean = victim.task, hasattr(victim.task, "n_labels"), [], None
    for draw in range(DRAWS):
        outputs = victim.outputs(batch, Draws(torch.full_like(batch.sample_ids, FIRST + draw)))
        singles.append(task.score(task.decode(outputs, batch), batch))
        if isinstance(outputs, Tensor):
            share = probabilities_of(outputs, several) / DRAWS
            mean = share if mean is None else mean + share
    scores = torch.stack(singles)
    found = {"draws10_mean": scores[:SINGLE].mean(0), "draws32_worst": scores.amin(0)}
    if mean is not None:
        outputs = logits_of(mean, several)
        found["draws32_averaged"] = task.score(task.decode(outputs, batch), batch)
    return outputs, {name: _estimate(values) for name, values in found.items()}


def _estimate(scores: Tensor) -> Estimate:
    values = scores.cpu().numpy()
    return statistics.mean_estimate(values, binary=statistics.is_binary(values))
