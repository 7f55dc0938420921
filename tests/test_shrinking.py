"""Auto-PGD over shrinking radii: its stages by hand, its candidates, and its strength on a linear model."""

import pytest
import torch
from torch import nn

from attacks.ball import ball_for
from attacks.draws import KeyedRandom
from attacks.shell import verify_free
from attacks.shrinking import ShrinkingAPGD
from attacks.stepped import Rows
from attacks.victim import Answer
from datasets.batch import Batch
from datasets.tasks.segmentation import Segmentation
from registry import Budget, Member, Norm, ThreatModel
from tests.toys import attack, batch_for, images, linear, protocol_of, robust_gap

RNG = KeyedRandom(seed=0)
EPS = 0.1


def rows_for(n=1, norm=Norm.LINF) -> Rows:
    inputs = torch.full((n, 1, 2, 2), 0.5)
    zeros = torch.zeros(n, dtype=torch.int64)
    return Rows(
        batch=Batch(sample_ids=torch.arange(n), inputs=inputs),
        ball=ball_for(ThreatModel(norm=norm), Budget(norm=norm, eps=EPS), inputs),
        begin=inputs.clone(),
        restart=zeros.clone(),
        sample=torch.arange(n),
        step=zeros.clone(),
        done=zeros.bool(),
    )


def play(rows, gradient, steps=10, objective=lambda step: step):
    """Tells the attack gradients `gradient(step)` (n, 1, 2, 2); returns the points of each step until one is done."""
    shrinking, points = ShrinkingAPGD(steps=steps), []
    shrinking.start(rows, RNG)
    while not rows.done.any():
        query = shrinking.ask(rows, RNG)
        points.append(query.points)
        assert query.free
        value = torch.full((len(rows),), float(objective(int(rows.step[0]))))
        rows.step = rows.step + 1
        shrinking.tell(rows, query, Answer(value, torch.ones(len(rows)), gradient(len(points) - 1)))
    return points


@pytest.mark.parametrize("norm", [Norm.LINF, Norm.L2])
def test_the_radius_shrinks_from_twice_eps_to_eps(norm):
    """Of 11 answers three are at 2 eps, three at 1.5 eps, the other five in the ball."""
    rows = rows_for(norm=norm)
    points = play(rows, lambda step: torch.ones(1, 1, 2, 2))
    sizes = [round(float(rows.ball.size(point)), 4) for point in points]
    assert sizes == [2.0] * 3 + [1.5] * 3 + [1.0] * 5
    assert rows.ball.eps.item() == pytest.approx(EPS)


def test_each_stage_begins_at_the_projection_of_the_best_point_before():
    objective = {0: 1.0, 1: 9.0, 2: 2.0, 3: 1.0, 4: 1.0, 5: 7.0}  # the second answer is the best of the first stage
    gradient = torch.tensor([[[[1.0, -1.0], [1.0, -1.0]]]])
    points = play(rows_for(), lambda step: gradient * (-1) ** step, objective=lambda step: objective.get(step, 0.0))
    assert torch.allclose(points[3], points[1].clamp(0.5 - 0.15, 0.5 + 0.15))
    assert torch.allclose(points[6], points[5].clamp(0.4, 0.6))
    assert not torch.allclose(points[2], points[1])


def test_a_row_with_a_zero_gradient_goes_to_the_next_stage_at_once():
    ones = torch.ones(2, 1, 2, 2)

    def gradient(step):
        return ones * torch.tensor([0.0 if step == 0 else 1.0, 1.0]).reshape(2, 1, 1, 1)

    rows = rows_for(n=2)
    points = play(rows, gradient)
    sizes = [[round(size, 4) for size in rows.ball.size(point).tolist()] for point in points]
    assert [first for first, _ in sizes] == [2.0] + [1.5] * 3 + [1.0] * 5
    assert [second for _, second in sizes] == [2.0] * 3 + [1.5] * 3 + [1.0] * 3
    assert rows.done.tolist() == [True, False]


def test_rows_do_not_depend_on_their_neighbours():
    """A row that enters late is in another stage than the others; it goes the same way as alone."""

    def slope(points):
        return torch.sin(17 * points)

    def one_step(shrinking, rows):
        query = shrinking.ask(rows, RNG)
        rows.step = rows.step + 1
        value = -torch.cos(17 * query.points).flatten(1).sum(1)
        shrinking.tell(rows, query, Answer(value, torch.ones(len(rows)), slope(query.points)))

    shrinking = ShrinkingAPGD(steps=10)
    alone = rows_for(n=2)
    shrinking.start(alone, RNG)
    late = alone.take(torch.tensor([1]))
    early = alone.take(torch.tensor([0]))
    for _ in range(4):
        one_step(shrinking, early)
    memory = {name: torch.cat([early.memory[name], late.memory[name]]) for name in early.memory}
    mixed = rows_for(n=2)
    mixed.memory, mixed.step = memory, torch.tensor([4, 0])
    for _ in range(7):
        one_step(shrinking, mixed)
        one_step(shrinking, alone)
    assert mixed.done.tolist() == [True, False]
    assert torch.equal(mixed.memory["point"][1], alone.memory["point"][1])
    assert mixed.memory["stage"].tolist() == [2, 2]


@pytest.mark.parametrize(("norm", "eps"), [(Norm.LINF, 0.02), (Norm.L2, 0.1)])
@pytest.mark.parametrize("objective", ["cross-entropy", "margin"])
def test_it_reaches_the_exact_robust_accuracy_of_a_linear_model(norm, eps, objective):
    """Candidates in the ball alone count: with those at 2 eps it would break more than can be broken."""
    model = linear(2)
    batch = batch_for(model, images(120))
    gap, wider = robust_gap(model, batch, eps, norm), robust_gap(model, batch, 2 * eps, norm)
    assert 20 < int((gap > 0).sum()) < 100
    assert int(((gap > 0) & (wider < 0)).sum()) > 10
    member = Member(name="s", attack="attacks.shrinking:ShrinkingAPGD", options={"steps": 20}, objective=objective)
    outcome = attack(model, batch, protocol_of(member, eps=(eps,), norm=norm), slots=32)
    sure = gap.abs() > 1e-4
    assert torch.equal((outcome.budgets[0].scores > 0.5)[sure], (gap > 0)[sure])
    assert outcome.budgets[0].members[0].violations == 0


def test_points_inside_up_to_rounding_count():
    """Projection on a sphere is not exact to the last bit, above all on black; such points are candidates, too."""
    inputs = images(200, shape=(1, 8, 8)) * (torch.arange(8) > 3)
    ball = ball_for(ThreatModel(norm=Norm.L2), Budget(norm=Norm.L2, eps=EPS), inputs)
    noise = torch.randn(inputs.shape, generator=torch.Generator().manual_seed(0))
    points = ball.project(inputs + noise)
    checked, counted = verify_free(points, ball)
    assert counted.all()
    assert ball.contains(checked.points).all()
    outside, counted = verify_free(inputs + 0.1 * noise, ball)
    assert not counted.any()
    assert torch.equal(outside.points, (inputs + 0.1 * noise).clamp(0, 1))


@pytest.mark.parametrize("objective", ["masked-cross-entropy", "segpgd", "cospgd", "jensen-shannon"])
def test_every_segmentation_objective_breaks_a_pixelwise_model(objective):
    """A pixel's class is whether it is bright: exactly the pixels within eps of the threshold can be turned."""
    weight = torch.tensor([[-20.0], [20.0]])[:, :, None, None]
    model = nn.Conv2d(1, 2, 1)
    model.weight.data, model.bias.data = weight, torch.tensor([10.0, -10.0])
    inputs = images(6, shape=(1, 8, 8), low=0.3, high=0.7)
    mask = (inputs[:, 0] > 0.5).long()
    batch = Batch(sample_ids=torch.arange(6), inputs=inputs, targets={"mask": mask})
    member = Member(name="s", attack="attacks.shrinking:ShrinkingAPGD", options={"steps": 20}, objective=objective)
    task = Segmentation(2)
    outcome = attack(model.eval().requires_grad_(False), batch, protocol_of(member, eps=(0.05,)), task=task)
    turned = torch.where(((inputs[:, 0] - 0.5).abs() < 0.05), 1 - mask, mask)
    expected = task.score({"mask": turned}, batch)
    assert torch.allclose(outcome.budgets[0].scores, expected)
