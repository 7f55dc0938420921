"""Who was left over the steps of each attack: computed from sample tables, drawn as stairs."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from registry import Budget
from reports.cards import Cell
from reports.figures import BOTTOM, DIGIT, HEIGHT, LEFT, RIGHT, TOP, WIDTH, Tick, height_of
from reports.pooling import PooledMember
from results.budgets import budget_index
from results.consistency import CLEAN, FAIL_BELOW
from results.sample_table import score_column
from results.statistics import is_binary

MARGIN = 30
"""Width of the drop by smaller budgets, left of the first attack, in SVG units."""


@dataclass(frozen=True, kw_only=True)
class Breaks:
    """At which steps one attack broke how many samples."""

    member: str
    at: tuple[tuple[int, int], ...]
    """(step, samples broken then), ascending."""
    steps: int
    """Steps it may take, or its last one that broke a sample where that is unknown."""


@dataclass(frozen=True, kw_only=True)
class Survivors:
    """The samples of a row at one budget, all training seeds together."""

    n: int
    """Number of samples, times the number of seeds."""
    clean: int
    """Samples that were right on unchanged inputs."""
    start: int
    """Samples that no smaller budget had broken."""
    attacks: tuple[Breaks, ...]
    """In the order in which they ran."""


@dataclass(frozen=True, kw_only=True)
class Segment:
    """The place of one attack on the drawing, in SVG units."""

    number: int
    name: str
    label: str
    """How many it broke, and by which step most of them."""
    left: float
    right: float
    ticks: tuple[Tick, ...]


@dataclass(frozen=True, kw_only=True)
class SurvivorFigure:
    """Survivors over steps, ready for the template."""

    line: str
    """Points of the polyline."""
    segments: tuple[Segment, ...]
    y_ticks: tuple[Tick, ...]
    width: int = WIDTH
    height: int = HEIGHT + 12
    left: int = LEFT
    right: int = WIDTH - RIGHT
    top: int = TOP
    bottom: int = HEIGHT - BOTTOM


def survivors_of(
    cells: Sequence[Cell], frames: Sequence[pd.DataFrame] | None, budget: Budget, members: Sequence[PooledMember]
) -> Survivors | None:
    """Returns who was left over the steps of each attack at a budget.

    Args:
        cells: One cell for each training seed.
        frames: Their sample tables, or None where one is lost.
        budget: The budget.
        members: The attacks, in the order in which they ran.

    Returns:
        None for graded scores, whose steps say when the worst was found and not when a sample broke, and where a
        table holds no steps.
    """
    n = clean = start = 0
    broken: Counter[tuple[str, int]] = Counter()
    for cell, frame in zip(cells, frames or (), strict=False):
        index = budget_index(cell.record, budget)
        if index is None or not {f"member_{index}", f"step_{index}"} <= set(frame):
            return None
        scores = frame[score_column(index)].to_numpy()
        before = frame[score_column(index - 1) if index else CLEAN].to_numpy()
        if not is_binary(scores) or not is_binary(frame[CLEAN].to_numpy()):
            return None
        here = (before >= FAIL_BELOW) & (scores < FAIL_BELOW)
        n, clean, start = n + len(frame), clean + int(frame[CLEAN].sum()), start + int(before.sum())
        found = zip(frame[f"member_{index}"][here].fillna(""), frame[f"step_{index}"][here], strict=True)
        broken.update((str(member), int(step)) for member, step in found)
    return Survivors(n=n, clean=clean, start=start, attacks=_attacks(broken, members)) if n and members else None


def _attacks(broken: Counter[tuple[str, int]], members: Sequence[PooledMember]) -> tuple[Breaks, ...]:
    efforts = {member.name: _effort(member) for member in members}
    others = sorted({name for name, _ in broken} - set(efforts))
    attacks = []
    for name in (*efforts, *others):
        at = tuple(sorted((step, count) for (found, step), count in broken.items() if found == name))
        last = max((step for step, _ in at), default=1)
        attacks.append(Breaks(member=name, at=at, steps=max(efforts.get(name, 1), last, 1)))
    return tuple(attacks)


def _effort(member: PooledMember) -> int:
    counts = [member.options.get(name) for name in ("steps", "queries")]
    return max((int(count) for count in counts if isinstance(count, int)), default=1)


def survivor_figure(survivors: Survivors) -> SurvivorFigure:
    """Returns the drawing: a stair for each attack, side by side, steps on a logarithmic scale."""
    left, right = LEFT + MARGIN, WIDTH - RIGHT
    width = (right - left) / len(survivors.attacks)
    alive, segments = survivors.start, []
    points = [(LEFT, survivors.clean), (LEFT + MARGIN / 2, survivors.clean), (LEFT + MARGIN / 2, alive), (left, alive)]
    for place, attack in enumerate(survivors.attacks):
        begin = left + place * width
        scale = _scale(begin, width, attack.steps)
        for step, count in attack.at:
            points += [(scale(step), alive), (scale(step), alive - count)]
            alive -= count
        points.append((begin + width, alive))
        segments.append(_segment(place, attack, begin, width, scale))
    drawn = [f"{round(x, 1)},{height_of(count / survivors.n)}" for x, count in points]
    return SurvivorFigure(
        line=" ".join(drawn),
        segments=_legible(segments),
        y_ticks=tuple(Tick(at=height_of(value / 100), label=str(value)) for value in range(0, 101, 25)),
    )


def _scale(begin: float, width: float, steps: int):
    """Returns the place of a step within an attack's segment."""
    span, widest = width - 12, math.log1p(max(steps, 1))

    def place(step: int) -> float:
        return begin + 4 + span * math.log1p(max(step, 0)) / widest

    return place


def _legible(segments: Sequence[Segment]) -> tuple[Segment, ...]:
    """Returns segments without the ticks whose labels would touch the one before or leave the drawing."""
    found, end = [], float(LEFT)
    for segment in segments:
        kept = []
        for tick in segment.ticks:
            half = DIGIT * len(tick.label) / 2
            if tick.at - half >= end + DIGIT / 2 and tick.at + half <= WIDTH:
                kept.append(tick)
                end = tick.at + half
        found.append(replace(segment, ticks=tuple(kept)))
    return tuple(found)


def _segment(place: int, attack: Breaks, begin: float, width: float, scale) -> Segment:
    total = sum(count for _, count in attack.at)
    label = "broke none"
    if total:
        steps = np.repeat([step for step, _ in attack.at], [count for _, count in attack.at])
        label = f"broke {total}, half of them by step {int(steps[(total - 1) // 2])}"
    decades = (1, 10, 100) if attack.steps < 1000 else (10, 1000)
    marks = [step for step in decades if step <= attack.steps and width > 60]
    return Segment(
        number=place + 1,
        name=attack.member,
        label=label,
        left=round(begin, 1),
        right=round(begin + width, 1),
        ticks=tuple(Tick(at=round(scale(step), 1), label=str(step)) for step in marks),
    )
