"""Geometry of the drawings on pages; templates turn it into inline SVG that follows the page's colours.

Curves are drawn from here and not by Matplotlib, which takes about 33 ms each: a site of 2,000 records holds some 700.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from registry import Budget, format_eps
from results.record import Estimate

WIDTH, HEIGHT = 640, 310
LEFT, RIGHT, TOP, BOTTOM = 64, 16, 16, 56
DIGIT = 12
"""Width of a digit in the larger letters of narrow screens, in SVG units."""
LEVELS = "/255"


@dataclass(frozen=True, kw_only=True)
class CurvePoint:
    """The score at one budget."""

    size: float
    """eps; 0 is the unchanged input."""
    estimate: Estimate


@dataclass(frozen=True, kw_only=True)
class Mark:
    """One point of a drawn curve, in SVG units."""

    x: float
    y: float
    low: float
    high: float
    label: str
    """eps and score in words, for the tooltip and for screen readers."""


@dataclass(frozen=True, kw_only=True)
class DrawnCurve:
    """One curve in SVG units."""

    title: str
    style: str
    """CSS class: own or twin."""
    line: str
    """Points of the polyline."""
    band: str
    """Points of the polygon between the ends of the intervals."""
    marks: tuple[Mark, ...]


@dataclass(frozen=True, kw_only=True)
class Tick:
    """One tick of an axis, in SVG units."""

    at: float
    label: str


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A curve over eps, ready for the template."""

    curves: tuple[DrawnCurve, ...]
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    baseline: float | None
    """Height of the constant-predictor line, or None."""
    ranked: float | None
    """Place of the ranked budget on the eps axis, or None."""
    x_title: str
    y_title: str
    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT
    right: int = WIDTH - RIGHT
    top: int = TOP
    bottom: int = HEIGHT - BOTTOM


def curve_figure(
    curves: Sequence[tuple[str, str, Sequence[CurvePoint]]],
    *,
    norm: str,
    quality: str,
    constant_predictor: float | None = None,
    ranked: Budget | None = None,
) -> Figure:
    """Returns the drawing of score over eps.

    Args:
        curves: Title, CSS class and points ascending in eps of each curve, the one in front last.
        norm: Norm of all budgets.
        quality: Name of the score, e.g. "accuracy".
        constant_predictor: Score of the majority class, drawn as a line.
        ranked: Budget of the ranked board, marked on the axis.
    """
    sizes = sorted({point.size for _, _, points in curves for point in points})
    scale = _eps_scale(sizes)
    labels, unit = _eps_labels(norm, sizes)
    return Figure(
        curves=tuple(_draw(title, style, points, scale, norm) for title, style, points in curves),
        x_ticks=tuple(Tick(at=scale(size), label=label) for size, label in zip(sizes, labels, strict=True)),
        y_ticks=tuple(Tick(at=height_of(value / 100), label=str(value)) for value in range(0, 101, 25)),
        baseline=None if constant_predictor is None else height_of(constant_predictor),
        ranked=scale(ranked.size) if ranked and ranked.size in sizes else None,
        x_title=f"eps{unit}, {norm} (logarithmic above the smallest)",
        y_title=f"{quality} (%)",
    )


def _eps_labels(norm: str, sizes: Sequence[float]) -> tuple[list[str], str]:
    """Returns the labels of the eps axis and their unit: "4" of " in 1/255" where all are, or they run together."""
    labels = [format_eps(norm, size) if size else "0" for size in sizes]
    if all(label.endswith(LEVELS) for label in labels if label != "0"):
        return [label.removesuffix(LEVELS) for label in labels], f" in 1{LEVELS}"
    return labels, ""


def _eps_scale(sizes: Sequence[float]):
    """Returns the place of eps on the axis: log(1 + eps / smallest eps), so that 0 has a place too."""
    positive = [size for size in sizes if size > 0]
    smallest = min(positive, default=1.0)
    widest = math.log2(1 + max(positive, default=1.0) / smallest)
    span = WIDTH - RIGHT - LEFT - 24

    def place(size: float) -> float:
        return round(LEFT + 12 + span * math.log2(1 + size / smallest) / widest, 1)

    return place


def height_of(value: float) -> float:
    """Returns the height of a share, 0 to 1, in SVG units."""
    return round(TOP + (HEIGHT - BOTTOM - TOP) * (1 - min(max(value, 0.0), 1.0)), 1)


def _draw(title: str, style: str, points: Sequence[CurvePoint], scale, norm: str) -> DrawnCurve:
    marks = tuple(
        Mark(
            x=scale(point.size),
            y=height_of(point.estimate.value),
            low=height_of(point.estimate.low),
            high=height_of(point.estimate.high),
            label=_describe(title, point, norm),
        )
        for point in points
    )
    upper = [f"{mark.x},{mark.high}" for mark in marks]
    lower = [f"{mark.x},{mark.low}" for mark in reversed(marks)]
    line = " ".join(f"{mark.x},{mark.y}" for mark in marks)
    return DrawnCurve(title=title, style=style, line=line, band=" ".join(upper + lower), marks=marks)


def _describe(title: str, point: CurvePoint, norm: str) -> str:
    found = point.estimate
    where = f"eps {format_eps(norm, point.size)}" if point.size else "clean"
    interval = f"95 % interval {100 * found.low:.1f} to {100 * found.high:.1f}"
    return f"{title}, {where}: {100 * found.value:.1f} % ({interval}, n = {found.n})"
