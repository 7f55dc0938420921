"""Square attack: schedule, shape of its proposals, monotone progress, and success without gradients."""

import pytest
import torch

from attacks.ball import ball_for
from attacks.draws import KeyedRandom
from attacks.square import Square, covered_share
from attacks.stepped import Rows
from attacks.victim import Answer
from registry import Budget, Member, Norm, ThreatModel
from tests.toys import attack, batch_for, images, linear, protocol_of, robust_gap

EPS = 0.05
RNG = KeyedRandom(seed=0)


def rows_for(inputs, begin=None, restart=0) -> Rows:
    batch = batch_for(linear(2, shape=inputs.shape[1:]), inputs)
    n = len(inputs)
    return Rows(
        batch=batch,
        ball=ball_for(ThreatModel(), Budget(norm=Norm.LINF, eps=EPS), inputs),
        begin=inputs.clone() if begin is None else begin,
        restart=torch.full((n,), restart),
        sample=torch.arange(n),
        step=torch.zeros(n, dtype=torch.int64),
        done=torch.zeros(n, dtype=torch.bool),
    )


def play(square, rows, objective, steps):
    """Lets the attack run against `objective(points)`; returns what it asked for."""
    square.start(rows, RNG)
    asked = []
    for _ in range(steps):
        query = square.ask(rows, RNG)
        asked.append(query.points)
        rows.step = rows.step + 1
        square.tell(rows, query, Answer(objective(query.points), torch.ones(len(rows)), None))
    return asked


@pytest.mark.parametrize(
    ("step", "share"),
    [(0, 0.8), (10, 0.8), (11, 0.4), (50, 0.4), (51, 0.2), (201, 0.1), (1001, 0.025), (8001, 0.8 / 512)],
)
def test_the_published_schedule(step, share):
    assert covered_share(0.8, step, 10_000) == pytest.approx(share)


def test_the_schedule_scales_with_the_number_of_queries():
    assert [covered_share(0.8, step, 1000) for step in (1, 2, 5, 6)] == pytest.approx([0.8, 0.4, 0.4, 0.2])


@pytest.mark.parametrize("shape", [(3, 8, 8), (2, 1, 8, 6), (1, 5, 9)])
def test_it_starts_with_vertical_stripes(shape):
    rows = rows_for(images(6, shape=shape))
    first = play(Square(queries=20), rows, lambda points: torch.zeros(len(points)), 1)[0]
    change = first - rows.ball.originals
    assert torch.allclose(change.abs(), torch.full_like(change, EPS), atol=1e-6)
    assert torch.allclose(change, change[..., :1, :].expand_as(change), atol=1e-6)  # constant in each column
    assert len(change.sign().flatten(1).unique(dim=0)) > 3


@pytest.mark.parametrize("shape", [(3, 8, 8), (2, 1, 8, 6)])
def test_a_proposal_changes_one_square(shape):
    rows = rows_for(images(5, shape=shape))
    square = Square(queries=40)
    asked = play(square, rows, lambda points: torch.zeros(len(points)), 30)  # nothing is better than the first
    for step, points in enumerate(asked[1:], 1):
        edge = round((covered_share(0.8, step, 40) * shape[-1] * shape[-2]) ** 0.5)
        edge = min(max(edge, 1), min(shape[-2:]) - 1)
        new = (points - rows.ball.originals) / EPS
        assert torch.allclose(new.abs(), torch.ones_like(new), atol=1e-4)
        changed = (points != asked[0]).flatten(1, -3).any(1)
        for mask in changed:
            if mask.any():
                place = mask.nonzero()
                extent = place.amax(0) - place.amin(0) + 1
                assert (extent <= edge).all()
        # within the square each channel has one sign
        inside = torch.where((points != asked[0]), new, torch.nan).flatten(-2)
        spread = inside.nan_to_num(-9).amax(-1) - inside.nan_to_num(9).amin(-1)
        assert spread[torch.isfinite(inside).any(-1)].max() < 1e-3


def test_the_best_point_never_gets_worse():
    rows = rows_for(images(6, shape=(1, 8, 8)))
    target = torch.where(torch.rand(1, 8, 8, generator=torch.Generator().manual_seed(3)) < 0.5, -1.0, 1.0)

    def objective(points):
        return ((points - rows.ball.originals) * target).flatten(1).sum(1)

    square = Square(queries=60)
    square.start(rows, RNG)
    best = []
    for _ in range(60):
        query = square.ask(rows, RNG)
        rows.step = rows.step + 1
        square.tell(rows, query, Answer(objective(query.points), torch.ones(6), None))
        best.append(objective(rows.memory["best_point"]))
        assert torch.equal(rows.memory["best"], best[-1])
    history = torch.stack(best)
    assert (history[1:] >= history[:-1]).all()
    assert float((history[-1] - history[0]).mean()) > 20 * EPS
    assert rows.done.all()


def test_it_goes_on_from_a_known_candidate():
    inputs = images(4, shape=(1, 8, 8))
    begin = inputs + 0.01
    begin[3] = inputs[3]
    first = play(Square(queries=5), rows_for(inputs, begin), lambda points: torch.zeros(len(points)), 1)[0]
    assert torch.equal(first[:3], begin[:3])
    assert not torch.equal(first[3], begin[3])
    later = play(Square(queries=5), rows_for(inputs, begin, restart=1), lambda points: torch.zeros(len(points)), 1)[0]
    assert not torch.equal(later[:3], begin[:3])


def test_random_numbers_do_not_depend_on_the_neighbours():
    """Rows enter at different times, so that blocks of random numbers begin at different steps."""
    inputs = images(4, shape=(1, 8, 8))

    def trace(rows):
        return torch.stack(play(Square(queries=120), rows, lambda points: points.flatten(1).sum(1), 110))

    together = trace(rows_for(inputs))
    alone = rows_for(inputs).take(torch.tensor([2]))
    assert torch.equal(trace(alone), together[:, 2:3])
    late = rows_for(inputs)
    square = Square(queries=120)
    square.start(late, RNG)
    late.step = torch.tensor([0, 37, 50, 99])  # as if the others had been told more answers already
    square.ask(late, RNG)
    late.step = torch.tensor([1, 38, 51, 100])
    points = square.ask(late, RNG).points
    assert points.shape == inputs.shape


def test_it_breaks_a_linear_model_without_a_gradient():
    model = linear(2, shape=(1, 6, 6))
    batch = batch_for(model, images(40, shape=(1, 6, 6)))
    member = Member(name="square", attack="attacks.square:Square", options={"queries": 400}, objective="margin")
    outcome = attack(model, batch, protocol_of(member, eps=(0.02,)), slots=32).budgets[0]
    truth = robust_gap(model, batch, 0.02) > 0
    assert outcome.members[0].backwards == 0
    assert (outcome.scores[truth] == 1).all()
    assert 10 < truth.sum() < 35
    missed = int(((outcome.scores == 1) & ~truth).sum())
    assert missed <= 3


def test_other_norms_are_an_error_of_the_member():
    model = linear(2)
    batch = batch_for(model, images(5))
    member = Member(name="square", attack="attacks.square:Square", options={"queries": 5}, objective="margin")
    outcome = attack(model, batch, protocol_of(member, eps=(0.1,), norm=Norm.L2)).budgets[0]
    assert outcome.members[0].errors == 5
    assert "for Linf, got L2" in outcome.members[0].error
