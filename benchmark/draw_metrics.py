"""What a stochastic defense answers over several draws: one by one, averaged, and at its worst."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from attacks.pooling import logits_of, probabilities_of
from attacks.queries import Draws
from attacks.victim import ModelVictim
from benchmark.batch_design import design_of
from datasets.batch import Batch
from registry import Randomness
from results import statistics
from results.record import Estimate
from results.sample_design import SampleDesign

FIRST = 1 << 44
"""Index of the first draw; no search, selection or final score sees these."""
DRAWS, SINGLE = 32, 10
"""Draws of each image, and how many of them the mean of single draws takes."""


@dataclass(frozen=True, kw_only=True)
class Observation:
    """What a defense answers to a batch."""

    facts: Mapping[str, np.ndarray]
    """What its task says of the outputs that stand for it: those of a deterministic model; of a stochastic one the
    mean probability over 32 fresh draws or, where it returns several tensors, one fresh draw."""
    predictions: np.ndarray | None
    """int64 (draws, N), the classes of single draws; one row for a deterministic model, None without classes."""
    metrics: dict[str, Estimate]
    """The metrics of `registry.DRAW_METRICS`; a deterministic model has none."""


def observe(victim: ModelVictim, batch: Batch) -> Observation:
    """Returns what a defense answers, over 32 fresh draws of a stochastic one.

    `draws10_mean` is the mean score of 10 draws, `draws32_averaged` the score of the mean probability (left out where
    a model returns several tensors), `draws32_worst` the lowest score of 32 draws of each image. Worst inputs are
    selected by their mean score over single draws, so that `draws32_averaged` is no worst case of a defense that
    averages.

    Args:
        victim: The unprepared model.
        batch: Originals, or the worst inputs that were found.
    Source: Lucas et al. 2023, arXiv:2302.13464, on attackers who may try again.
    """
    task = victim.task
    if victim.randomness is Randomness.NONE or not len(batch):
        facts = task.facts(task.decode(victim.outputs(batch), batch), batch)
        return Observation(facts=facts, predictions=_stacked([facts]), metrics={})
    several, singles, scores, mean = hasattr(task, "n_labels"), [], [], None
    for draw in range(DRAWS):
        outputs = victim.outputs(batch, Draws(torch.full_like(batch.sample_ids, FIRST + draw)))
        decoded = task.decode(outputs, batch)
        singles.append(task.facts(decoded, batch))
        scores.append(task.score(decoded, batch))
        if isinstance(outputs, Tensor):
            share = probabilities_of(outputs, several) / DRAWS
            mean = share if mean is None else mean + share
    scores, facts = torch.stack(scores), singles[-1]
    found = {"draws10_mean": scores[:SINGLE].mean(0), "draws32_worst": scores.amin(0)}
    if mean is not None:
        decoded = task.decode(logits_of(mean, several), batch)
        facts, found["draws32_averaged"] = task.facts(decoded, batch), task.score(decoded, batch)
    metrics = {name: _estimate(values, design_of(batch)) for name, values in found.items()}
    return Observation(facts=facts, predictions=_stacked(singles), metrics=metrics)


def _stacked(facts: Sequence[Mapping[str, np.ndarray]]) -> np.ndarray | None:
    return np.stack([own["prediction"] for own in facts]) if "prediction" in facts[0] else None


def _estimate(scores: Tensor, design: SampleDesign) -> Estimate:
    values = scores.cpu().numpy()
    return statistics.mean_estimate(values, statistics.is_binary(values), design)
