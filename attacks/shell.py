"""The sealed shell around every attack: admission before it, verification of all it proposes, accounting of both.

No attack can weaken it: candidates outside the ball are moved back and counted, an exception or NaN is an error and
never a clean input, and the worst candidate of each sample is kept here.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from attacks.ball import Ball
from datasets.batch import Batch
from registry.errors import InputContractError


def admit_inputs(batch: Batch) -> None:
    """Raises InputContractError unless inputs are finite float32 in [0, 1]."""
    inputs = batch.inputs
    if inputs.dtype != torch.float32:
        raise InputContractError(f"expected float32 inputs in [0, 1], got {inputs.dtype}; divide integers by 255")
    if not torch.isfinite(inputs).all():
        raise InputContractError("expected finite inputs in [0, 1], got NaN or infinity")
    low, high = float(inputs.min()), float(inputs.max())
    if low < 0 or high > 1:
        hint = "; divide by 255 and keep normalisation inside the model" if high > 1.5 else ""
        raise InputContractError(f"expected inputs in [0, 1], got values from {low:g} to {high:g}{hint}")


def modules_in_training_mode(model: nn.Module) -> tuple[str, ...]:
    """Returns the names of submodules that are in training mode although the model was put in eval mode."""
    return tuple(name or type(model).__name__ for name, module in model.named_modules() if module.training)


@dataclass
class Verified:
    """Candidates after verification."""

    points: Tensor
    """Inside the ball, the support and [0, 1]."""
    violations: int
    """Rows that had to be moved back."""
    broken_rows: Tensor
    """bool (N,): rows that were NaN or infinite; replaced by the original and counted as errors."""


def verify(points: Tensor, ball: Ball) -> Verified:
    """Returns candidates that are certainly allowed, with a count of those that were not.

    Args:
        points: What the attack proposes, (N, ...).
        ball: The balls of the rows.

    Raises:
        InputContractError: The attack returns another shape or dtype than it was given.
    """
    if points.shape != ball.originals.shape or not points.is_floating_point():
        raise InputContractError(
            f"expected adversarials of shape {tuple(ball.originals.shape)} in float32, "
            f"got {tuple(points.shape)} of {points.dtype}"
        )
    points = points.detach().to(torch.float32)
    finite = torch.isfinite(points.flatten(1).sum(1))
    if not finite.all():
        points = torch.where(_rows_like(finite, points), points, ball.originals)
    projected = ball.project(points)
    violations = 0
    if not torch.equal(projected, points):  # rounding is no violation
        violations = int((~ball.contains(points)).sum())
    return Verified(points=projected, violations=violations, broken_rows=~finite)


def verify_free(points: Tensor, ball: Ball) -> tuple[Verified, Tensor]:
    """Returns points that may lie outside the ball but not outside [0, 1], and which rows lie inside: bool (N,).

    Rows that are inside up to rounding are moved in.

    Args:
        points: Where a minimal-norm attack wants to look, (N, ...).
        ball: The balls of the rows.

    Raises:
        InputContractError: The attack returns another shape or dtype than it was given.
    """
    inside = verify(points, ball)
    points = points.detach().to(torch.float32).clamp(0, 1)
    points = torch.where(_rows_like(inside.broken_rows, points), ball.originals, points)
    counted = ball.contains(points)
    points = torch.where(_rows_like(counted, points), inside.points, points)
    return Verified(points=points, violations=0, broken_rows=inside.broken_rows), counted


def _rows_like(rows: Tensor, points: Tensor) -> Tensor:
    return rows.reshape(-1, *[1] * (points.ndim - 1))


class WorstCase:
    """The worst candidate of each sample so far, and who found it.

    Args:
        originals: (n, ...), the clean images.
        clean_scores: float32 (n,).
        stop_at: A sample at or under this score is finished.
    """

    def __init__(self, originals: Tensor, clean_scores: Tensor, stop_at: float) -> None:
        self.points = originals.clone()
        self.scores = clean_scores.clone()
        self.member = torch.full_like(clean_scores, -1, dtype=torch.int64)
        self.step = torch.full_like(clean_scores, -1, dtype=torch.int64)
        self.restart = torch.zeros_like(self.step)
        self.stop_at = stop_at

    @property
    def finished(self) -> Tensor:
        """bool (n,): nothing is left to gain."""
        return self.scores <= self.stop_at

    def offer(
        self, samples: Tensor, points: Tensor, scores: Tensor, member: int, step: Tensor, restart: Tensor | None = None
    ) -> None:
        """Keeps each candidate whose score is lower than the lowest known of its sample.

        Of equal ones of a member, that of the earliest restart and step is kept: which of them is offered first
        depends on what else shares the batch.

        Args:
            samples: int64 (m,).
            points: (m, ...), inside the balls.
            scores: float32 (m,).
            member: Number of the run that found them.
            step: int64 (m,), the step of its run at which each was found.
            restart: int64 (m,), the restart; all are of one by default.
        """
        restart = torch.zeros_like(step) if restart is None else restart
        known = self.scores[samples]
        earlier = (restart < self.restart[samples]) | ((restart == self.restart[samples]) & (step < self.step[samples]))
        tie = (scores == known) & (self.member[samples] == member) & earlier
        better = ((scores < known) | tie).nonzero()[:, 0]
        if not len(better):
            return
        lowest: dict[int, tuple[tuple[float, int, int], int]] = {}
        facts = (part.tolist() for part in (samples[better], scores[better], restart[better], step[better], better))
        for sample, score, run, at, row in zip(*facts, strict=True):
            if sample not in lowest or (score, run, at) < lowest[sample][0]:
                lowest[sample] = ((score, run, at), row)
        rows = torch.tensor([row for _, row in lowest.values()], device=samples.device)
        chosen = samples[rows]
        self.points[chosen] = points[rows]
        self.scores[chosen] = scores[rows]
        self.member[chosen] = member
        self.step[chosen] = step[rows]
        self.restart[chosen] = restart[rows]


class LastPoint(WorstCase):
    """The latest candidate of each sample whatever its score, for protocols that do not cascade.

    Args:
        originals: (n, ...), the clean images.
        clean_scores: float32 (n,).
    """

    def __init__(self, originals: Tensor, clean_scores: Tensor) -> None:
        super().__init__(originals, clean_scores, stop_at=-1.0)  # wrong samples are attacked too

    def offer(
        self, samples: Tensor, points: Tensor, scores: Tensor, member: int, step: Tensor, restart: Tensor | None = None
    ) -> None:
        """Keeps every candidate that has a score."""
        known = ~scores.isnan()
        chosen = samples[known]
        self.points[chosen], self.scores[chosen] = points[known], scores[known]
        self.member[chosen], self.step[chosen] = member, step[known]
