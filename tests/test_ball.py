"""Balls: projection, membership and supports, per sample and per modality."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from attacks.ball import Ball, ball_for, support_mask
from registry import Budget, Norm, Scope, ThreatKind, ThreatModel
from registry.errors import InvalidEntryError

SHAPES = {"image": (5, 2, 4, 4), "modalities": (5, 3, 1, 4, 4)}


def normal(*shape, seed=0, scale=1.0):
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def originals(shape, seed=1):
    """Uniform images; a third of the values lie at the ends 0 and 1."""
    values = torch.rand(shape, generator=torch.Generator().manual_seed(seed))
    return torch.where(values < 0.17, 0.0, torch.where(values > 0.83, 1.0, values))


def balls():
    found = {}
    sizes = {Norm.LINF: 0.03, Norm.L2: 0.4, Norm.L1: 0.9, Norm.L0: 3}
    for norm, eps in [(norm, eps) for norm, largest in sizes.items() for eps in (largest, 0.0)]:
        for kind, shape in SHAPES.items():
            threat = ThreatModel(norm=norm)
            found[f"{norm} {eps} {kind}"] = ball_for(threat, Budget(norm=norm, eps=eps), originals(shape))
        budget = Budget(norm=norm, eps=(eps, 0.0, 2 * eps))
        found[f"{norm} {eps} each"] = ball_for(ThreatModel(norm=norm), budget, originals(SHAPES["modalities"]))
        support = torch.rand(SHAPES["image"], generator=torch.Generator().manual_seed(9)) < 0.5
        budget = Budget(norm=norm, eps=eps)
        found[f"{norm} {eps} support"] = ball_for(
            ThreatModel(norm=norm), budget, originals(SHAPES["image"]), support=support
        )
    return found


BALLS = balls()
ROOMY = {name: ball for name, ball in BALLS.items() if float(ball.eps.max()) > 0}
each_ball = pytest.mark.parametrize("ball", BALLS.values(), ids=BALLS)
roomy_ball = pytest.mark.parametrize("ball", ROOMY.values(), ids=ROOMY)


@each_ball
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**6), scale=st.sampled_from([0.0, 1e-4, 0.02, 0.3, 5.0]))
def test_projection_lands_inside_and_is_idempotent(ball, seed, scale):
    points = ball.originals + normal(*ball.originals.shape, seed=seed, scale=scale)
    projected = ball.project(points)
    assert ball.contains(projected).all()
    assert projected.min() >= 0
    assert projected.max() <= 1
    assert (ball.size(projected) <= 1 + 1e-5).all() or float(ball.eps.min()) == 0
    assert torch.allclose(ball.project(projected), projected, atol=1e-7, rtol=0)
    if ball.norm is not Norm.L2:
        assert torch.equal(ball.project(projected), projected)
    if ball.support is not None:
        assert torch.equal(projected[~ball.support], ball.originals[~ball.support])


@each_ball
def test_points_inside_stay_bit_by_bit(ball):
    points = ball.originals + 0.3 * (ball.project(ball.originals + normal(*ball.originals.shape)) - ball.originals)
    points = points.clamp(0, 1)
    assert torch.equal(ball.project(points), points)
    assert torch.equal(ball.project(ball.originals), ball.originals)


@roomy_ball
def test_the_size_is_taken_for_each_sample(ball):
    points = ball.project(ball.originals + normal(*ball.originals.shape, scale=3.0))
    points[2:] = ball.originals[2:]
    points[1] += 5.0  # far outside, and outside of [0, 1]
    expected = torch.tensor([True, False, True, True, True])
    assert torch.equal(ball.contains(points), expected)
    assert torch.equal(ball.size(points) <= 1 + 1e-5, expected)


@pytest.mark.parametrize(
    ("norm", "eps", "expected"),
    [
        (Norm.LINF, 0.1, [0.0, 0.4, 4.0]),
        (Norm.L2, 0.1, [0.0, 0.5, 5.0]),
        (Norm.L1, 0.1, [0.0, 0.7, 7.0]),
        (Norm.L0, 2, [0.0, 0.5, 1.0]),
    ],
)
def test_sizes_by_hand(norm, eps, expected):
    start = torch.full((3, 2, 1, 2), 0.5)
    ball = ball_for(ThreatModel(norm=norm), Budget(norm=norm, eps=eps), start)
    changes = torch.zeros(3, 2, 1, 2)
    changes[1, 0, 0, 0], changes[1, 1, 0, 0] = 0.03, 0.04  # two channels of one pixel
    changes[2, 0, 0, 0], changes[2, 1, 0, 1] = 0.3, 0.4
    assert ball.size(start + changes).tolist() == pytest.approx(expected, rel=1e-5)


def test_l2_projection_in_closed_form():
    start = torch.full((4, 1, 3, 3), 0.5)
    ball = ball_for(ThreatModel(norm=Norm.L2), Budget(norm=Norm.L2, eps=0.3), start)
    change = normal(4, 1, 3, 3, scale=0.12)  # stays in [0, 1]: the projection is the scaled change
    length = change.flatten(1).norm(dim=1)
    assert (length > 0.3).any()
    factor = (0.3 / length).clamp(max=1).reshape(-1, 1, 1, 1)
    assert torch.allclose(ball.project(start + change), start + change * factor, atol=1e-6)


def test_linf_projection_is_the_nearest_allowed_point():
    start = originals((1, 1, 2, 2))
    ball = ball_for(ThreatModel(), Budget(norm=Norm.LINF, eps=0.1), start)
    point = start + normal(1, 1, 2, 2, scale=0.4)
    low, high = (start - 0.1).clamp(min=0).flatten().numpy(), (start + 0.1).clamp(max=1).flatten().numpy()
    target = point.flatten().double().numpy()
    nearest = minimize(
        lambda z: ((z - target) ** 2).sum(),
        start.flatten().double().numpy(),
        bounds=list(zip(low.astype(float), high.astype(float), strict=True)),
    )
    assert ball.project(point).flatten().tolist() == pytest.approx(nearest.x, abs=1e-4)


@pytest.mark.parametrize("eps", [0.0, 0.05, 0.4, 1.5, 3.0])
def test_l1_projection_is_the_nearest_allowed_point(eps):
    """A general solver on the same problem, with the change split into its positive and its negative part."""
    start = originals((6, 1, 2, 4), seed=3)
    ball = ball_for(ThreatModel(norm=Norm.L1), Budget(norm=Norm.L1, eps=eps), start)
    points = start + normal(6, 1, 2, 4, seed=5, scale=0.5)
    for original, point, found in zip(start, points, ball.project(points), strict=True):
        x, target = original.flatten().double().numpy(), point.flatten().double().numpy()
        solved = minimize(
            lambda z, x=x, target=target: ((x + z[:8] - z[8:] - target) ** 2).sum(),
            np.zeros(16),
            bounds=[(0, high) for high in (*(1 - x), *x)],
            constraints={"type": "ineq", "fun": lambda z: eps - z.sum()},
            method="SLSQP",
            options={"maxiter": 500, "ftol": 1e-12},
        )
        assert found.flatten().tolist() == pytest.approx(x + solved.x[:8] - solved.x[8:], abs=2e-4)


@pytest.mark.parametrize("n_changed", [0, 1, 2, 3, 5])
def test_l0_projection_is_the_nearest_allowed_point(n_changed):
    """Every choice of pixels, tried one by one."""
    start = originals((20, 2, 1, 5), seed=3)
    ball = ball_for(ThreatModel(norm=Norm.L0), Budget(norm=Norm.L0, eps=n_changed), start)
    points = start + normal(20, 2, 1, 5, seed=5, scale=0.7)
    found = (ball.project(points) - points).square().flatten(1).sum(1)
    tried = []
    for kept in itertools.combinations(range(5), n_changed):
        candidate = start.clone()
        candidate[..., kept] = points[..., kept].clamp(0, 1)
        tried.append((candidate - points).square().flatten(1).sum(1))
    assert torch.allclose(found, torch.stack(tried).amin(0), atol=1e-5)


def test_l0_projection_keeps_what_is_changed_however_little():
    start = torch.zeros(1, 1, 1, 4)
    ball = ball_for(ThreatModel(norm=Norm.L0), Budget(norm=Norm.L0, eps=1), start)
    points = torch.tensor([1e-30, 0.0, 0.0, 0.0]).reshape(1, 1, 1, 4)
    assert torch.equal(ball.project(points), points)


@pytest.mark.parametrize("norm", [Norm.L2, Norm.L1, Norm.L0])
def test_widened_balls_have_a_radius_for_each_row(norm):
    start = torch.full((2, 1, 4, 4), 0.5)
    ball = ball_for(ThreatModel(norm=norm), Budget(norm=norm, eps=2), start)
    points = ball.widened(torch.tensor([0.5, 1.0])).project(start + 3 * normal(2, 1, 4, 4))
    assert ball.size(points).tolist() == pytest.approx([0.5, 1.0], rel=1e-5)


@roomy_ball
def test_random_points_reach_the_edge(ball):
    start = Ball(norm=ball.norm, originals=torch.full_like(ball.originals, 0.5), eps=ball.eps, support=None)
    points = start.random(normal(*ball.originals.shape).clamp(-1, 1))
    assert start.contains(points).all()
    assert torch.allclose(start.size(points), torch.ones(5), atol=1e-4)


@pytest.mark.parametrize("scope", list(Scope))
def test_one_l2_radius_for_several_modalities(scope):
    """Scope "each" gives every modality a ball of this radius; "joint" one ball for all together."""
    start = torch.full((2, 3, 1, 4, 4), 0.5)
    ball = ball_for(ThreatModel(norm=Norm.L2, scope=scope), Budget(norm=Norm.L2, eps=0.2), start)
    change = ball.project(start + normal(2, 3, 1, 4, 4, scale=0.2)) - start
    each, joint = change.flatten(2).norm(dim=2), change.flatten(1).norm(dim=1)
    if scope is Scope.EACH:
        assert torch.allclose(each, torch.full_like(each, 0.2), atol=1e-5)
    else:
        assert torch.allclose(joint, torch.full_like(joint, 0.2), atol=1e-5)


def test_a_radius_for_each_modality():
    start = torch.full((2, 3, 1, 4, 4), 0.5)
    orders = {Norm.LINF: torch.inf, Norm.L2: 2, Norm.L1: 1, Norm.L0: 0}
    for norm, order in orders.items():
        eps = (3, 0, 5) if norm is Norm.L0 else (0.1, 0.0, 0.2)
        ball = ball_for(ThreatModel(norm=norm), Budget(norm=norm, eps=eps), start)
        change = ball.project(start + 3 * normal(2, 3, 1, 4, 4)) - start
        sizes = torch.linalg.vector_norm(change.flatten(2), order, dim=2)
        assert torch.allclose(sizes, torch.tensor([eps], dtype=torch.float32).expand(2, 3), atol=1e-5)


@roomy_ball
def test_the_steepest_step_gains_most(ball):
    gradient = normal(*ball.originals.shape, seed=4)
    best = ball.steepest(gradient)
    other = ball.steepest(normal(*ball.originals.shape, seed=5))
    assert ((gradient * best).flatten(1).sum(1) > (gradient * other).flatten(1).sum(1)).all()
    if ball.support is not None:
        assert (best[~ball.support] == 0).all()
    assert torch.equal(ball.steepest(torch.zeros_like(gradient)), torch.zeros_like(gradient))


def test_taking_rows_takes_their_support():
    ball = BALLS["L2 0.4 support"]
    rows = torch.tensor([4, 0])
    taken = ball.take(rows)
    assert torch.equal(taken.originals, ball.originals[rows])
    assert torch.equal(taken.support, ball.support[rows])


def test_supports():
    inputs, mask = torch.zeros(2, 3, 4, 4), torch.zeros(2, 4, 4, dtype=torch.int64)
    mask[0, 1, 2], mask[1, 0, 0] = 1, 2
    inside = support_mask(ThreatModel(support="inside-mask"), inputs, mask)
    outside = support_mask(ThreatModel(support="outside-mask"), inputs, mask)
    assert inside.shape == inputs.shape
    assert inside.flatten(1).sum(1).tolist() == [3, 3]
    assert inside[0, :, 1, 2].all()
    assert torch.equal(outside, ~inside)
    assert support_mask(ThreatModel(), inputs, None) is None
    several = support_mask(ThreatModel(support="modality:1"), torch.zeros(2, 3, 1, 4, 4), None)
    assert several.flatten(2).all(2).tolist() == [[False, True, False]] * 2
    masked = support_mask(ThreatModel(support="inside-mask"), torch.zeros(2, 3, 1, 4, 4), mask)
    assert masked.flatten(2).sum(2).tolist() == [[1, 1, 1], [1, 1, 1]]


@pytest.mark.parametrize(
    ("support", "message"),
    [("modality:3", "does not fit"), ("modality:0", "does not fit"), ("inside-mask", "needs a mask")],
)
def test_supports_that_do_not_fit_are_refused(support, message):
    inputs = torch.zeros(2, 3, 1, 4, 4) if support == "modality:3" else torch.zeros(2, 3, 4, 4)
    with pytest.raises(InvalidEntryError, match=message):
        support_mask(ThreatModel(support=support), inputs, None)


def test_budgets_that_do_not_fit_are_refused():
    with pytest.raises(InvalidEntryError, match="one for each modality"):
        ball_for(ThreatModel(), Budget(norm=Norm.LINF, eps=(0.1, 0.2)), torch.zeros(2, 3, 1, 4, 4))
    with pytest.raises(InvalidEntryError, match="one for each modality"):
        ball_for(ThreatModel(), Budget(norm=Norm.LINF, eps=(0.1, 0.2)), torch.zeros(2, 2, 4, 4))
    with pytest.raises(InvalidEntryError, match="balls exist for Linf, L2, L1, L0"):
        corruption = ThreatModel(kind=ThreatKind.CORRUPTION, norm=Norm.SEVERITY)
        ball_for(corruption, Budget(norm=Norm.SEVERITY, eps=3), torch.zeros(2, 2, 4, 4))
    with pytest.raises(InvalidEntryError, match="joint"):
        ball_for(ThreatModel(scope=Scope.JOINT), Budget(norm=Norm.LINF, eps=(0.1, 0.2)), torch.zeros(2, 2, 1, 4, 4))


@pytest.mark.parametrize("size", [1e-14, 1e-25, 1e-37])
def test_the_steepest_l2_step_of_a_tiny_gradient_has_unit_length(size):
    ball = Ball(norm=Norm.L2, originals=torch.rand(3, 1, 4, 4), eps=torch.full((1, 1, 1, 1), 0.5))
    gradient = normal(3, 1, 4, 4, seed=1)
    found = ball.steepest(gradient * size)
    assert torch.allclose(found.flatten(1).norm(dim=1), torch.ones(3), atol=1e-4)
    assert torch.allclose(found, ball.steepest(gradient), atol=1e-2)
