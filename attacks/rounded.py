"""A stochastic victim computed in TF32, for the search: nothing else makes it faster, and it never judges."""

from __future__ import annotations

import copy
import logging

import torch
from torch import nn

from attacks.hardware import knows_tf32
from attacks.prepare import LOW_COSINE, LOW_TOLERANCE
from attacks.queries import Answer, Spent
from attacks.steady import fewest_steady_rows, sum_of_squares
from attacks.victim import ModelVictim
from datasets.batch import Batch

_log = logging.getLogger(__name__)


def rounded(victim: ModelVictim, batch: Batch) -> ModelVictim:
    """Returns a victim around the same model in TF32, or the same one where that is no faster or answers otherwise.

    Args:
        victim: The victim.
        batch: Some samples, on its device; outputs and gradients are compared on one physical batch of them, under
            the same draws.
    """
    if not knows_tf32(batch.inputs.device):
        return victim
    other = copy.copy(victim)
    other.tf32 = True
    some = batch.take(slice(0, victim.slots))
    one, two = _probed(victim, some), _probed(other, some)
    size = one.objective.abs().max().clamp(min=1e-6)
    difference = float((one.objective - two.objective).abs().max() / size)
    cosine = float(nn.functional.cosine_similarity(one.gradient.flatten(1), two.gradient.flatten(1)).median())
    if not (difference <= LOW_TOLERANCE and cosine >= LOW_COSINE):
        _log.info("TF32 differs by %.2g of the outputs' size, gradients have cosine %.2f", difference, cosine)
        return victim
    other.fewest = fewest_steady_rows(other, batch)
    return other


def _probed(victim: ModelVictim, batch: Batch) -> Answer:
    """Returns an answer of a copy, which leaves no state and no counts behind."""
    probe = copy.copy(victim)
    probe.model, probe.spent = copy.deepcopy(victim.model), Spent()
    return probe.answer(batch, sum_of_squares, torch.zeros(len(batch), device=batch.inputs.device), gradient=True)
