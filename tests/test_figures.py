"""Labels of drawings stay apart, also in the larger letters of narrow screens."""

from __future__ import annotations

from itertools import pairwise

import pytest

from reports.figures import DIGIT, WIDTH, CurvePoint, curve_figure
from reports.survivors import Breaks, Survivors, survivor_figure
from results.record import Estimate

GRID = (1, 2, 4, 8, 16, 32)


def figure_of(sizes, norm="Linf"):
    estimate = Estimate(value=0.5, low=0.4, high=0.6, n=10)
    points = [CurvePoint(size=size, estimate=estimate) for size in (0, *sizes)]
    return curve_figure([("own", "own", points)], norm=norm, quality="accuracy")


def spans(ticks):
    return [(tick.at - DIGIT * len(tick.label) / 2, tick.at + DIGIT * len(tick.label) / 2) for tick in ticks]


def test_the_eps_axis_counts_in_grey_levels_and_no_label_touches_another_or_the_edge():
    figure = figure_of([levels / 255 for levels in GRID])
    assert [tick.label for tick in figure.x_ticks] == ["0", *map(str, GRID)]
    assert "eps in 1/255, Linf" in figure.x_title
    places = spans(figure.x_ticks)
    assert all(left[1] < right[0] for left, right in pairwise(places)) and places[-1][1] <= WIDTH


def test_an_eps_that_is_no_grey_level_keeps_the_axis_in_input_units():
    figure = figure_of([0.01, 4 / 255])
    assert [tick.label for tick in figure.x_ticks] == ["0", "0.01", "4/255"]
    assert "1/255" not in figure.x_title
    assert "in 1/255" not in figure_of([0.5], norm="L2").x_title


@pytest.mark.parametrize("steps", [(500, 100, 5000, 1), (100,) * 8, (1,), (1, 1, 1)])
def test_ticks_of_neighbouring_attacks_do_not_run_together(steps):
    attacks = tuple(Breaks(member=f"attack {place}", at=(), steps=count) for place, count in enumerate(steps))
    figure = survivor_figure(Survivors(n=10, clean=9, start=8, attacks=attacks))
    places = spans([tick for segment in figure.segments for tick in segment.ticks])
    assert all(left[1] < right[0] for left, right in pairwise(places))
    assert all(end <= WIDTH for _, end in places)
    if steps[0] == 500:
        assert [tick.label for tick in figure.segments[0].ticks] == ["1", "10", "100"]
