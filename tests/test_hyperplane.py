"""Projections onto hyperplanes inside a box against solvers of scipy, closed forms and brute force."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from attacks.ball import Ball
from attacks.hyperplane import change_size, change_to_boundary, nearest_change
from attacks.victim import Answer
from registry import Norm
from registry.errors import InvalidEntryError
from tests.minimal_norm import NORMS, nearest_size, norms_of

each_norm = pytest.mark.parametrize("norm", NORMS)


def random_rows(n: int = 12, places: int = 9, seed: int = 0):
    """Slopes with zeros and ties; boxes with places that are stuck at an end, as on a black background."""
    generator = torch.Generator().manual_seed(seed)
    slope = torch.randn(n, places, generator=generator, dtype=torch.float64)
    slope[:, 1] = slope[:, 0]
    slope[::3, 2] = 0
    inputs = (torch.rand(n, places, generator=generator, dtype=torch.float64) * 1.6 - 0.3).clamp(0, 1)
    low, high = -inputs, 1 - inputs
    most = (slope.clamp(min=0) * high + slope.clamp(max=0) * low).sum(1)
    least = (slope.clamp(min=0) * low + slope.clamp(max=0) * high).sum(1)
    share = torch.rand(n, generator=generator, dtype=torch.float64) * 2 - 1
    rise = torch.where(share > 0, share * most, -share * least)
    return slope, rise, low, high


@each_norm
@pytest.mark.parametrize("seed", range(4))
def test_the_change_reaches_the_plane_and_is_as_small_as_a_solver_finds(norm, seed):
    slope, rise, low, high = random_rows(seed=seed)
    change = nearest_change(norm, slope, rise, low, high)
    assert torch.allclose((slope * change).sum(1), rise, atol=1e-9)
    assert (change >= low - 1e-12).all()
    assert (change <= high + 1e-12).all()
    expected = [
        nearest_size(norm, *row[:1], float(row[1]), *row[2:]) for row in zip(slope, rise, low, high, strict=True)
    ]
    assert norms_of(change, norm).tolist() == pytest.approx(expected, rel=1e-5, abs=1e-7)


@each_norm
def test_without_a_binding_box_the_size_is_the_rise_over_the_dual_norm(norm):
    slope = torch.randn(6, 50, generator=torch.Generator().manual_seed(1))
    rise = torch.tensor([0.5, -0.5, 0.1, -1.0, 0.0, 2.0]) * 0.1
    change = nearest_change(norm, slope, rise, torch.full_like(slope, -0.5), torch.full_like(slope, 0.5))
    dual = {Norm.LINF: 1, Norm.L2: 2, Norm.L1: torch.inf}[norm]
    assert torch.allclose(norms_of(change, norm), rise.abs() / torch.linalg.vector_norm(slope, dual, dim=1), rtol=1e-5)


@each_norm
def test_where_the_box_ends_before_the_plane_the_nearest_corner_is_returned(norm):
    slope = torch.tensor([[1.0, -2.0, 0.0]])
    low, high = torch.tensor([[-0.2, -0.3, -0.4]]), torch.tensor([[0.8, 0.7, 0.6]])
    for rise, corner in ((1.5, [0.8, -0.3, 0.0]), (-9.0, [-0.2, 0.7, 0.0]), (math.inf, [0.8, -0.3, 0.0])):
        assert nearest_change(norm, slope, torch.tensor([rise]), low, high).tolist()[0] == pytest.approx(corner)


@each_norm
def test_a_row_without_slope_stays_and_its_neighbours_do_not(norm):
    slope = torch.tensor([[0.0, 0.0], [3.0, 4.0]])
    low, high = torch.full((2, 2), -0.5), torch.full((2, 2), 0.5)
    change = nearest_change(norm, slope, torch.ones(2), low, high)
    assert change[0].tolist() == [0, 0]
    assert float((slope[1] * change[1]).sum()) == pytest.approx(1)


@given(
    norm=st.sampled_from(NORMS),
    seed=st.integers(0, 1000),
    scale=st.sampled_from([2.0**-100, 2.0**-10, 2.0**13, 2.0**66]),
    rows=st.integers(2, 5),
)
@settings(max_examples=30, deadline=None)
def test_rows_do_not_meet_and_the_scale_of_logits_does_not_matter(norm, seed, scale, rows):
    slope, rise, low, high = (part.float() for part in random_rows(rows, 300, seed))
    together = nearest_change(norm, slope, rise, low, high)
    scaled = nearest_change(norm, slope * scale, rise * scale, low, high)
    assert torch.allclose(scaled, together, atol=1e-6)
    alone = torch.cat(
        [nearest_change(norm, *(part[k : k + 1] for part in (slope, rise, low, high))) for k in range(rows)]
    )
    assert torch.allclose(alone, together, atol=1e-6)


def test_l1_goes_beyond_the_first_places_where_they_are_not_enough():
    """With 2,000 places of room 0.01 the 256 steepest reach 2.56 at most; 10 needs 1,000 of them."""
    slope = 1 + torch.rand(3, 2000, generator=torch.Generator().manual_seed(2)) * 1e-3
    low, high = torch.full((3, 2000), -0.01), torch.full((3, 2000), 0.01)
    change = nearest_change(Norm.L1, slope, torch.full((3,), 10.0), low, high)
    assert torch.allclose((slope * change).sum(1), torch.tensor(10.0), atol=1e-3)
    assert ((change > 0).sum(1) - 1000).abs().max() <= 2
    assert (change[:, :].gt(0) & (slope < slope.median(1, keepdim=True).values - 2e-6)).sum() == 0


@each_norm
def test_the_boundary_seen_from_a_point_is_reached_from_anywhere(norm):
    """f(z) = <w, z> - 1: from any point, seen from any other one, f is 0 after the change."""
    generator = torch.Generator().manual_seed(3)
    weight = torch.randn(4, 1, 5, 5, generator=generator)
    begin, seen = (torch.rand(4, 1, 5, 5, generator=generator) for _ in range(2))

    def value(points):
        return (weight * points).flatten(1).sum(1) - 1

    ball = Ball(norm=norm, originals=seen, eps=torch.full((1, 1, 1, 1), 0.1))
    change = change_to_boundary(ball, begin, seen, Answer(value(seen), torch.ones(4), weight))
    assert torch.allclose(value(begin + change), torch.zeros(4), atol=1e-5)
    assert (begin + change).min() >= -1e-6
    assert (begin + change).max() <= 1 + 1e-6


@each_norm
def test_support_and_radii_of_modalities_are_kept(norm):
    """Of three modalities with radii 0.1, 0 and 0.2 the second never moves; outside the support nothing does."""
    start = torch.full((2, 3, 1, 2, 2), 0.5)
    support = torch.ones_like(start, dtype=torch.bool)
    support[..., 0, 0] = False
    eps = torch.tensor([0.1, 0.0, 0.2]).reshape(1, 3, 1, 1, 1)
    ball = Ball(norm=norm, originals=start, eps=eps, support=support)
    answer = Answer(torch.full((2,), -0.6), torch.ones(2), torch.ones_like(start))
    change = change_to_boundary(ball, start, start, answer)
    assert (change[~support] == 0).all()
    assert (change[:, 1] == 0).all()
    assert torch.allclose(change.flatten(1).sum(1), torch.tensor(0.6))
    if norm is Norm.LINF:  # three places of each: 3 (t / 2) + 3 t = 0.6
        assert torch.allclose(change[:, 0][support[:, 0]], torch.tensor(0.6 / 9))
        assert torch.allclose(change_size(ball, change), torch.tensor(1.2 / 9))


def test_other_norms_are_refused():
    ball = Ball(norm=Norm.L0, originals=torch.zeros(1, 1, 1, 1), eps=torch.ones(1, 1, 1, 1))
    with pytest.raises(InvalidEntryError, match="Linf, L2 and L1"):
        change_size(ball, ball.originals)
    with pytest.raises(InvalidEntryError, match="Linf, L2 and L1"):
        nearest_change(Norm.L0, torch.ones(1, 1), torch.ones(1), -torch.ones(1, 1), torch.ones(1, 1))
