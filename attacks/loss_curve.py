"""The loss over the steps of an attack: whether it had converged when its budget was spent."""

from __future__ import annotations

import torch
from torch import Tensor

from attacks.stepped import Rows

TENTHS = 10


class LossCurve:
    """The best objective so far after the first answer and after every tenth of an attack's steps.

    A mean over the rows that spent their budget and whose sample is still unbroken then: a row that leaves early would
    bend the curve. A row that learns nothing more is read as flat from there on.

    Args:
        steps: Answers that a row takes at most.
    """

    def __init__(self, steps: int) -> None:
        self._steps = max(steps, 1)
        self._sum = torch.zeros(TENTHS + 1, dtype=torch.float64)
        self.rows = 0
        """Rows of the mean."""

    def begin(self, rows: Rows) -> None:
        """Gives new rows an empty curve."""
        rows.candidate["losses"] = rows.ball.originals.new_full((len(rows), TENTHS + 1), -torch.inf)

    def add(self, rows: Rows, objective: Tensor) -> None:
        """Takes the objective (N,) of one answer; `rows.step` counts it."""
        tenth = (rows.step * TENTHS + self._steps - 1) // self._steps
        place = torch.where(rows.step == 1, 0, tenth).clamp(max=TENTHS)[:, None]
        losses = rows.candidate["losses"]
        best = torch.fmax(losses.amax(1), objective)[:, None]  # what is not a number is not the best
        rows.candidate["losses"] = losses.scatter(1, place, best.to(losses.dtype))

    def leave(self, rows: Rows, unbroken: Tensor) -> None:
        """Takes the curves of rows that leave with their sample unbroken, bool (N,)."""
        losses = rows.candidate["losses"][unbroken]
        losses = losses[torch.isfinite(losses[:, 0])]
        if len(losses):
            self._sum += losses.cummax(1).values.double().sum(0).cpu()
            self.rows += len(losses)

    def means(self) -> tuple[float, ...]:
        """Returns the mean after the first answer and after each tenth, with 5 significant digits.

        Nothing where no row left unbroken.
        """
        return tuple(float(f"{mean:.5g}") for mean in self._sum / self.rows) if self.rows else ()
