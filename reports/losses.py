"""The loss of each attack over its steps, for the table on a defense's page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from reports.pooling import PooledMember

WIDTH, HEIGHT, EDGE = 120, 28, 3
SHOWN = (0, 1, 5, 9, 10)
"""After the first answer and after so many tenths of the steps, the losses that the table writes out."""


@dataclass(frozen=True, kw_only=True)
class LossLine:
    """One attack's loss over its steps."""

    name: str
    objective: str
    rows: int
    """Runs of the mean: those that spent their steps on a sample that stayed unbroken."""
    values: tuple[float, ...]
    """The losses at `SHOWN`."""
    line: str
    """Points of a polyline on its own scale, WIDTH x HEIGHT SVG units."""


def loss_lines(members: Sequence[PooledMember]) -> tuple[LossLine, ...]:
    """Returns a line for each attack whose losses were kept, in the order in which they ran."""
    return tuple(
        LossLine(
            name=member.name,
            objective=member.objective,
            rows=member.loss_rows,
            values=tuple(member.losses[place] for place in SHOWN),
            line=_polyline(member.losses),
        )
        for member in members
        if member.losses
    )


def _polyline(losses: Sequence[float]) -> str:
    low, high = min(losses), max(losses)
    span, step = high - low or 1.0, (WIDTH - 2 * EDGE) / (len(losses) - 1)
    heights = [HEIGHT - EDGE - (value - low) / span * (HEIGHT - 2 * EDGE) for value in losses]
    return " ".join(f"{EDGE + step * place:.1f},{height:.1f}" for place, height in enumerate(heights))
