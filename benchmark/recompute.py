"""The scores of a record once more, from its model, its data and its adversarials."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from attacks.judging import FINAL
from attacks.victim import ModelVictim
from benchmark.access import Subject, marked
from benchmark.assessment import check_model
from benchmark.rounding import judge_with_doubt, usual_margin
from benchmark.stored_adversarials import balls, stored_points, take
from datasets.batch import Batch
from results.adversarials import Adversarials
from results.budgets import as_budget, as_threat_model
from results.consistency import CLEAN, stochastic
from results.record import EvaluationRecord
from results.sample_table import score_column


class WrongRecord(Exception):
    """A record does not hold, for the reason in the text."""


@dataclass(frozen=True)
class Recomputed:
    """Scores of all samples, and by how much another device may find them otherwise."""

    scores: np.ndarray
    """float32 (n,)."""
    doubt: np.ndarray
    """float32 (n,): share of the score that the rounding of float32 decides, 0 or 1 without noise."""


def recompute(
    subject: Subject, batch: Batch, record: EvaluationRecord, adversarials: Adversarials | None
) -> dict[str, Recomputed]:
    """Returns the canonical scores of the originals and of the certified budgets, by the column of the sample table.

    Args:
        subject: The model of the record.
        batch: The samples, in the order of the sample table.
        record: The record.
        adversarials: Its certificates, or None where nobody attacked.

    Raises:
        WrongRecord: An adversarial lies outside its ball or outside [0, 1].
    """
    subject = check_model(subject, batch)
    batch = marked(subject, batch)
    victim = victim_of(subject, batch, record)
    usual = usual_margin(victim, batch)
    clean = _judged(victim, batch, usual)
    found = {CLEAN: clean}
    if adversarials is None:
        return found
    attacked = _attacked(victim, batch, record, adversarials, usual)
    for index in adversarials.certified:
        place = adversarials.holding(batch.sample_ids.cpu().numpy(), index)
        held, bare = attacked if len(attacked.scores) else clean, place < 0
        scores = np.where(bare, clean.scores, held.scores[place])
        scores = scores if stochastic(record) else np.minimum(clean.scores, scores)
        doubt = held.doubt[place] if stochastic(record) else np.maximum(clean.doubt, held.doubt[place])
        doubt = np.where(bare, clean.doubt, doubt)
        found[score_column(index)] = Recomputed(scores, doubt)
    return found


def victim_of(subject: Subject, batch: Batch, record: EvaluationRecord) -> ModelVictim:
    """Returns the model of a record as its evaluation judged it."""
    return ModelVictim(
        subject.model,
        subject.task,
        slots=subject.slots(batch),
        randomness=subject.randomness,
        seed=record.attack_seed,
    )


def _judged(victim: ModelVictim, batch: Batch, usual: float) -> Recomputed:
    return Recomputed(*(part.cpu().numpy() for part in judge_with_doubt(victim, batch, FINAL, usual)))


def _attacked(victim: ModelVictim, batch: Batch, record: EvaluationRecord, adversarials, usual: float) -> Recomputed:
    """Returns the canonical score of each adversarial."""
    row_of = {int(sample): row for row, sample in enumerate(batch.sample_ids.tolist())}
    scores, doubt = np.zeros((2, len(adversarials)), dtype=np.float32)
    for index, result in enumerate(record.budgets):
        places = np.flatnonzero(adversarials.budgets == index)
        if not len(places):
            continue
        rows = torch.tensor([row_of[int(sample)] for sample in adversarials.sample_ids[places]])
        part = batch.take(rows.to(batch.inputs.device))
        budget = as_budget(result.budget)
        ball = balls(as_threat_model(record.protocol["threat_model"]), budget, part)
        if adversarials.shape != tuple(part.inputs.shape[1:]):
            raise WrongRecord(
                f"its adversarials have shape {adversarials.shape}, its inputs {tuple(part.inputs.shape[1:])}"
            )
        points = stored_points(take(adversarials, places), part, ball)
        outside = (~ball.contains(points)).nonzero()[:, 0]
        if len(outside):
            sample = int(part.sample_ids[outside[0]])
            raise WrongRecord(
                f"{len(outside)} adversarials lie outside {budget.label}, the first one of sample {sample}"
            )
        judged = _judged(victim, part.with_inputs(points), usual)
        scores[places], doubt[places] = judged.scores, judged.doubt
    return Recomputed(scores, doubt)
