"""HopSkipJump: its rounds by hand, the distance it reaches on a linear model, and what it sees."""

import itertools
import math

import pytest
import torch
from torch import nn

from attacks.ball import Ball
from attacks.draws import KeyedRandom
from attacks.hop_skip_jump import ESTIMATE, LEAP, SEARCH, START, HopSkipJump, _distance, _finest, _radius
from attacks.stepped import Rows
from attacks.victim import Answer
from datasets.batch import Batch
from registry import Member, Norm
from tests.toys import Detached, attack, batch_for, images, linear, protocol_of, robust_gap

RNG = KeyedRandom(seed=0)
SHAPE = (1, 4, 4)


def rows_for(inputs, norm=Norm.L2, support=None) -> Rows:
    zeros = torch.zeros(len(inputs), dtype=torch.int64)
    eps = torch.full((1, 1, 1, 1), 0.01)
    return Rows(
        batch=Batch(sample_ids=torch.arange(len(inputs)), inputs=inputs),
        ball=Ball(norm=norm, originals=inputs, eps=eps, support=support),
        begin=inputs.clone(),
        restart=zeros.clone(),
        sample=torch.arange(len(inputs)),
        step=zeros.clone(),
        done=zeros.bool(),
    )


def play(hop, rows, wrong, steps):
    """Answers decisions only, `wrong(points) -> bool (n,)`; yields phases and points before each answer."""
    hop.start(rows, RNG)
    for _ in range(steps):
        query = hop.ask(rows, RNG)
        phases = rows.memory["phase"].clone()
        rows.step = rows.step + 1
        nothing = torch.full((len(rows),), torch.nan)
        hop.tell(rows, query, Answer(nothing, torch.where(wrong(query.points), 0.0, 1.0), None))
        yield phases, query.points


def halfspace(n=6, seed=0):
    """Points on the right side of a plane through the unit cube, their labels' plane, and the distances to it."""
    weight = linear(2, shape=SHAPE, seed=seed).weight.detach()
    weight = (weight[1] - weight[0]).reshape(1, *SHAPE)
    inputs = images(60, shape=SHAPE, low=0.3, high=0.7)
    values = ((inputs - 0.5) * weight).flatten(1).sum(1)
    chosen = ((values < -0.3) & (values > -0.8)).nonzero()[:n, 0]
    return inputs[chosen], (lambda points: ((points - 0.5) * weight).flatten(1).sum(1) > 0), -values[chosen], weight


@pytest.mark.parametrize("norm", [Norm.LINF, Norm.L2])
@pytest.mark.parametrize("edge", [28, 64, 128])
def test_the_sphere_is_wider_than_what_the_bisection_leaves_open(norm, edge):
    """In float32 the interval has a floor; a smaller sphere would lie on one side of the boundary as a whole."""
    rows = rows_for(torch.full((1, 3, edge, edge), 0.5), norm)
    rows.memory = {"wrong": rows.ball.originals + 0.1, "round": torch.tensor([2])}
    size, distance = 3 * edge**2, _distance(rows)
    growth = size if norm is Norm.LINF else size**0.5
    assert float(_radius(rows)) == pytest.approx(float(distance) * growth * _finest(rows), rel=1e-5)
    assert float(_radius(rows)) >= float(distance) / size * (1 - 1e-6)


@pytest.mark.parametrize("norm", [Norm.LINF, Norm.L2])
def test_it_comes_close_to_the_exact_distance_with_decisions_alone(norm):
    """The nearest point of a plane is |w . x + b| / ||w||_q away; objectives are NaN, gradients None."""
    inputs, wrong, values, weight = halfspace()
    exact = values / (weight.abs().sum() if norm is Norm.LINF else weight.norm())
    rows, nearest = rows_for(inputs, norm), torch.full((len(inputs),), torch.inf)
    for _, points in play(HopSkipJump(queries=1000), rows, wrong, 1000):
        change = (points - inputs).flatten(1)
        size = change.abs().amax(1) if norm is Norm.LINF else change.norm(dim=1)
        nearest = torch.where(wrong(points), torch.minimum(nearest, size), nearest)
        assert wrong(rows.memory["wrong"])[rows.memory["phase"] != START].all()
    assert (nearest >= exact - 1e-5).all()
    assert (nearest <= (1.25 if norm is Norm.LINF else 1.1) * exact).all()
    assert rows.done.all()


def test_the_rounds_by_hand():
    """16 values: a bisection of 6 halvings to 16^-1.5 of the way, 100 decisions, a jump; 141 in the second round.

    The jump of round t is the distance over sqrt(t).
    """
    inputs, wrong, _, _ = halfspace(n=1)
    rows, phases, jumps, lengths = rows_for(inputs), [], [], []
    for phase, _ in play(HopSkipJump(queries=400), rows, wrong, 400):
        phases.append(int(phase))
        if phases[-1] == ESTIMATE and int(rows.memory["phase"]) == LEAP:
            jumps.append(float(rows.memory["reach"] / (rows.memory["wrong"] - inputs).norm()))
    assert jumps[:2] == pytest.approx([1.0, 1 / math.sqrt(2)])
    for phase in phases:
        if lengths and lengths[-1][0] == phase:
            lengths[-1][1] += 1
        else:
            lengths.append([phase, 1])
    assert [phase for phase, _ in lengths[:7]] == [START, SEARCH, ESTIMATE, LEAP, SEARCH, ESTIMATE, LEAP]
    assert lengths[1][1] == lengths[4][1] == math.log2(16**1.5)
    assert lengths[2][1] == 100
    assert lengths[5][1] == math.floor(100 * math.sqrt(2))


def test_the_slope_points_along_the_normal_of_the_plane():
    inputs, wrong, _, weight = halfspace()
    rows, hop = rows_for(inputs), HopSkipJump(queries=800, first_draws=600)
    for phases, _ in play(hop, rows, wrong, 800):
        if (phases == LEAP).any():
            break
    aimed = phases == LEAP
    cosine = torch.cosine_similarity(rows.memory["direction"].flatten(1), weight.flatten(1), dim=1)
    assert (cosine[aimed] > 0.9).all()


def test_jumps_are_halved_and_given_up():
    """A model that is wrong at the boundary point alone: no jump ever lands, and the row feels for the slope again."""
    inputs, _, _, _ = halfspace(n=1)
    rows, count = rows_for(inputs), [0]

    def wrong(points):
        count[0] += 1
        return torch.tensor([count[0] == 1])

    trace = list(play(HopSkipJump(queries=300, first_draws=20), rows, wrong, 150))
    leaps = [(points - rows.memory["wrong"]).norm() for phase, points in trace if int(phase) == LEAP]
    ratios = [float(b / a) for a, b in itertools.pairwise(leaps[:12])]
    assert ratios[4:] == pytest.approx([0.5] * 7, abs=0.02)  # the first ones end at the bounds of [0, 1]
    assert int(trace[1 + 6 + 20 + 12][0]) == ESTIMATE


def test_it_keeps_to_the_support():
    inputs, wrong, _, _ = halfspace()
    support = torch.zeros_like(inputs, dtype=torch.bool)
    support[..., :2, :] = True
    rows = rows_for(inputs, Norm.LINF, support)
    for _, points in play(HopSkipJump(queries=400), rows, wrong, 400):
        assert torch.equal(points[..., 2:, :], inputs[..., 2:, :])


@pytest.mark.parametrize(("norm", "eps"), [(Norm.LINF, 0.02), (Norm.L2, 0.12)])
@pytest.mark.parametrize("detached", [False, True])
def test_it_reaches_the_robust_accuracy_of_a_linear_model(norm, eps, detached):
    """Also where no gradient leads to the inputs: every decision-based attack is indifferent to that."""
    model = linear(2)
    batch = batch_for(model, images(24))
    member = Member(name="hsj", attack="attacks.hop_skip_jump:HopSkipJump", options={"queries": 600})
    gap, scale = robust_gap(model, batch, eps, norm), robust_gap(model, batch, 0.0, norm)
    victim = Detached(model).eval() if detached else model
    result = attack(victim, batch, protocol_of(member, eps=(eps,), norm=norm), slots=24).budgets[0]
    robust = result.scores > 0.5
    assert 5 < int((gap > 0).sum()) < 19
    assert robust[gap > 0].all()
    assert not robust[gap < -0.15 * scale].any()
    assert result.members[0].backwards == 0
    assert result.members[0].errors == 0


def test_a_start_is_found_where_white_noise_has_the_original_class():
    """A model that looks for strong coarse structure: fine noise of any contrast has none."""

    class Coarse(nn.Module):
        def forward(self, inputs):
            ripple = (inputs[..., 1:] - inputs[..., :-1]).abs().flatten(1).mean(1)
            coarse = inputs.flatten(1).std(1) - 2 * ripple
            return torch.stack([torch.full_like(coarse, 0.02), coarse], 1)

    inputs = images(4, shape=(1, 8, 8), low=0.4, high=0.6)
    batch = batch_for(Coarse(), inputs)
    noise = torch.rand(500, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    assert batch.targets["label"].eq(0).all()
    assert Coarse()(noise).argmax(1).eq(0).all()
    member = Member(name="hsj", attack="attacks.hop_skip_jump:HopSkipJump", options={"queries": 200})
    result = attack(Coarse(), batch, protocol_of(member, eps=(0.9,))).budgets[0]
    assert (result.scores < 0.5).all()
