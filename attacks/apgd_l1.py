"""Auto-PGD for L1: sparse gradient steps whose sparsity follows that of the best point, over shrinking radii."""

from __future__ import annotations

import torch
from torch import Tensor

from attacks.ball import Ball
from attacks.draws import KeyedRandom
from attacks.gradient import starting_points
from attacks.norms import by_ball, per_ball
from attacks.stepped import Query, Rows, where_rows
from attacks.victim import Answer
from registry import Knowledge, Norm
from registry.errors import InvalidEntryError

WIDTHS = (3.0, 2.0, 1.0)
"""Radii of the three phases, as multiples of eps."""
SHARES = (0.3, 0.3, 0.4)
"""Share of the steps that each phase gets."""


class APGDL1:
    """Auto-PGD for L1; every row follows its own schedule.

    A step of length `step_size` changes only the values with the largest gradient, 1 / 1.5 times as many as the best
    point changes. At a checkpoint, a best point that has become sparser is started from anew with the full step;
    otherwise the step shrinks, down to a tenth. The first phases use larger radii, whose points count only where they
    happen to lie inside.

    Args:
        steps: Gradient steps of all phases together.
        restarts: Independent runs on a sample that survives; each begins at random.
        eot_samples: Draws averaged in each gradient of a stochastic defense.
        shrinking: Whether the first phases use larger radii.
    Source: Croce & Hein 2021, arXiv:2103.01208, section 4, algorithm 1 and "multi-eps". Here a step leaves out values
        that [0, 1] does not let move, and their number is rounded down, so that it can fall to one: otherwise the
        optimum of a linear model is missed.
    """

    knowledge = Knowledge.WHITE_BOX
    first_share = 0.2
    sparser = 1.5
    shrink = 1.5
    smallest_step = 0.1

    def __init__(self, *, steps: int = 100, restarts: int = 1, eot_samples: int = 1, shrinking: bool = True) -> None:
        self.steps = steps + 1  # the last point is evaluated too
        self.restarts = restarts
        self.eot_samples = eot_samples
        self._phases = _Phases(steps, WIDTHS if shrinking else (1.0,), SHARES if shrinking else (1.0,))

    def start(self, rows: Rows, rng: KeyedRandom) -> None:
        """Begins at a random point of the first phase's ball, or at the worst known candidate.

        Raises:
            InvalidEntryError: The threat model's norm is not L1.
        """
        if rows.ball.norm is not Norm.L1:
            raise InvalidEntryError(f"this Auto-PGD is for L1, got {rows.ball.norm}")
        point = starting_points(rows, rng, at_random=True, ball=self._phases.ball(rows, rows.step))
        zeros = point.new_zeros(by_ball(point, rows.ball.eps).shape[:2])
        rows.memory = {
            "point": point,
            "best_point": point,
            "best_gradient": torch.zeros_like(point),
            "best": torch.zeros_like(rows.step, dtype=torch.float32) - torch.inf,
            "step_size": zeros + 1,
            "share": zeros + self.first_share,
            "changed": zeros,
        }

    def ask(self, rows: Rows, rng: KeyedRandom) -> Query:
        return Query(rows.memory["point"], gradient=True, free=self._phases.wide)

    def tell(self, rows: Rows, query: Query, answer: Answer) -> None:
        memory, place = rows.memory, rows.step - 1
        begins = self._phases.begins.to(place.device)[place]
        memory["best"] = torch.where(begins, -torch.inf, memory["best"])
        better = answer.objective > memory["best"]
        memory["best"] = torch.where(better, answer.objective, memory["best"])
        memory["best_point"] = where_rows(better, query.points, memory["best_point"])
        memory["best_gradient"] = where_rows(better, answer.gradient, memory["best_gradient"])
        self._begin(rows, begins)
        point, gradient = self._checkpoint(rows, query.points, answer.gradient, place)
        self._move(rows, point, gradient, place)
        rows.done = rows.step >= self.steps

    def _changed(self, rows: Rows) -> Tensor:
        """Returns how many values of each ball the best point changes: float32 (N, balls)."""
        change = rows.memory["best_point"] - rows.ball.originals
        return (by_ball(change, rows.ball.eps) != 0).sum(2).to(torch.float32)

    def _begin(self, rows: Rows, begins: Tensor) -> None:
        """Sets step and sparsity of rows whose phase begins."""
        if not begins.any():
            return
        memory, changed = rows.memory, self._changed(rows)
        share = changed / by_ball(rows.begin, rows.ball.eps).shape[2] / self.sparser
        share = torch.where(changed > 0, share, self.first_share)
        for name, value in (("step_size", torch.ones_like(share)), ("share", share), ("changed", changed)):
            memory[name] = where_rows(begins, value, memory[name])

    def _checkpoint(self, rows: Rows, point: Tensor, gradient: Tensor, place: Tensor) -> tuple[Tensor, Tensor]:
        """Adapts step and sparsity where a checkpoint is; returns from where, and along which gradient, to go on."""
        at = self._phases.checkpoints.to(place.device)[place][:, None]
        if not at.any():
            return point, gradient
        memory, changed = rows.memory, self._changed(rows)
        fewer = changed < 0.95 * memory["changed"]
        shrunk = (memory["step_size"] / self.shrink).clamp(min=self.smallest_step)
        memory["step_size"] = torch.where(at, torch.where(fewer, 1.0, shrunk), memory["step_size"])
        share = changed / by_ball(point, rows.ball.eps).shape[2] / self.sparser
        memory["share"] = torch.where(at, share, memory["share"])
        memory["changed"] = torch.where(at, changed, memory["changed"])
        back = per_ball(at & fewer, point)
        return torch.where(back, memory["best_point"], point), torch.where(back, memory["best_gradient"], gradient)

    def _move(self, rows: Rows, point: Tensor, gradient: Tensor, place: Tensor) -> None:
        """Takes a sparse step in the phase's ball; the best point of an ended phase goes into the next one's."""
        memory, ball = rows.memory, self._phases.ball(rows, place)
        if ball.support is not None:
            gradient = gradient * ball.support
        movable = torch.where(gradient > 0, point < 1, point > 0)
        direction = _sparse_sign(by_ball(gradient * movable, ball.eps), memory["share"]).reshape(point.shape)
        target = point + per_ball(memory["step_size"], point) * ball.eps * direction
        ends = self._phases.begins.to(place.device)[(place + 1).clamp(max=self.steps - 1)]
        target = where_rows(ends & (place + 1 < self.steps), memory["best_point"], target)
        memory["point"] = self._phases.ball(rows, (place + 1).clamp(max=self.steps - 1)).project(target)


class _Phases:
    """Where the phases of a run of so many steps begin, and what holds at each of its answers."""

    def __init__(self, steps: int, widths: tuple[float, ...], shares: tuple[float, ...]) -> None:
        lengths = [int(share * steps) for share in shares[:-1]]
        lengths.append(steps + 1 - sum(lengths))
        self.wide = len(widths) > 1
        self._width, begins, checkpoints = [], [], []
        for width, length in zip(widths, lengths, strict=True):
            window = max(int(0.04 * length), 1)
            self._width += [width] * length
            begins += [place == 0 for place in range(length)]
            checkpoints += [place > 0 and place % window == 0 for place in range(length)]
        self._width = torch.tensor(self._width)
        self.begins, self.checkpoints = torch.tensor(begins), torch.tensor(checkpoints)

    def ball(self, rows: Rows, place: Tensor) -> Ball:
        """Returns the balls that hold at these answers, int64 (N,)."""
        return rows.ball.widened(self._width.to(place.device)[place]) if self.wide else rows.ball


def _sparse_sign(gradient: Tensor, share: Tensor) -> Tensor:
    """Returns the gradient's signs at a share of its values, the largest ones, with unit L1 norm.

    Args:
        gradient: (N, balls, values).
        share: (N, balls), in [0, 1]; at least one value is kept.
    """
    count = (share * gradient.shape[2] + 1e-4).floor().clamp(1, gradient.shape[2]).to(torch.int64)
    size = gradient.abs()
    smallest = size.sort(dim=2, descending=True).values.gather(2, count[..., None] - 1)
    signs = gradient.sign() * (size >= smallest)
    return signs / signs.abs().sum(2, keepdim=True).clamp(min=1)
