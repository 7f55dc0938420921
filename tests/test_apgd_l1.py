"""Auto-PGD for L1: the exact robust accuracy of linear models, its schedule by hand, the published code beside it."""

import pytest
import torch
from pyautoattack.autopgd_base import APGDAttack

from attacks.apgd_l1 import APGDL1, _Phases, _sparse_sign
from attacks.victim import Answer
from registry import Member, Norm
from registry.errors import InvalidEntryError
from tests.rows import RNG, rows_for
from tests.toys import attack, batch_for, images, linear, protocol_of, robust_gap, trained


def member(objective="margin", **options):
    return Member(name="apgd-l1", attack="attacks.apgd_l1:APGDL1", options=options, objective=objective)


@pytest.mark.parametrize(
    ("n_classes", "shape", "objective", "restarts"),
    [(2, (1, 8, 8), "margin", 1), (3, (3, 6, 6), "targeted-margin", 2)],
)
@pytest.mark.parametrize(("eps", "shrinking"), [(0.3, True), (0.8, True), (1.5, True), (0.8, False)])
def test_it_reaches_the_robust_accuracy_of_a_linear_model(n_classes, shape, objective, restarts, eps, shrinking):
    model = linear(n_classes, shape=shape)
    batch = batch_for(model, images(150, shape=shape, low=0.0, high=1.0))
    gap = robust_gap(model, batch, eps, Norm.L1)
    own = member(objective, steps=60 if shrinking else 40, restarts=restarts, shrinking=shrinking)
    outcome = attack(model, batch, protocol_of(own, eps=(eps,), norm=Norm.L1), slots=50)
    robust = outcome.budgets[0].scores > 0.5
    assert 10 < (gap > 0).sum() < 140
    assert torch.equal(robust[gap.abs() > 1e-3], (gap > 0)[gap.abs() > 1e-3])


@pytest.mark.parametrize("eps", [0.3, 0.6])
def test_it_is_as_strong_as_the_published_one(eps):
    model, batch = trained()
    protocol = protocol_of(member("cross-entropy", steps=50), eps=(eps,), norm=Norm.L1)
    outcome = attack(model, batch, protocol, slots=100)
    with torch.random.fork_rng(devices=[]):
        published = APGDAttack(
            model, n_iter=50, norm="L1", eps=eps, seed=0, loss="ce", device="cpu", use_largereps=True
        )
        adversarials = published.perturb(batch.inputs, batch.targets["label"])
    with torch.no_grad():
        theirs = int((model(adversarials).argmax(1) == batch.targets["label"]).sum())
    ours = int(outcome.budgets[0].scores.sum())
    assert 10 < theirs <= outcome.clean_scores.sum() - 5  # otherwise the budget tells nothing
    assert ours <= theirs + 1
    assert ours >= theirs - 12  # the same attack, not another one


def test_phases_by_hand():
    """30 %, 30 % and 40 % of the steps at 3, 2 and 1 eps; a checkpoint at every 4 % of a phase."""
    phases = _Phases(100, (3.0, 2.0, 1.0), (0.3, 0.3, 0.4))
    assert phases._width.tolist() == [3.0] * 30 + [2.0] * 30 + [1.0] * 41
    assert phases.begins.nonzero()[:, 0].tolist() == [0, 30, 60]
    assert not phases.checkpoints[phases.begins].any()
    longer = _Phases(1000, (1.0,), (1.0,))
    assert longer.checkpoints.nonzero()[:3, 0].tolist() == [40, 80, 120]


@pytest.mark.parametrize("steps", [1, 2, 3, 5, 10])
def test_short_runs_end_in_the_ball(steps):
    phases = _Phases(steps, (3.0, 2.0, 1.0), (0.3, 0.3, 0.4))
    assert len(phases._width) == len(phases.begins) == len(phases.checkpoints) == steps + 1
    assert phases._width[-1] == 1.0


def test_steps_are_sparse():
    gradient = torch.tensor([[[4.0, -3.0, 2.0, -1.0]]])
    for share, expected in ((0.0, [1, 0, 0, 0]), (0.5, [0.5, -0.5, 0, 0]), (1.0, [0.25, -0.25, 0.25, -0.25])):
        assert _sparse_sign(gradient, torch.tensor([[share]])).flatten().tolist() == pytest.approx(expected)
    assert (_sparse_sign(torch.zeros(1, 1, 4), torch.tensor([[0.5]])) == 0).all()


def test_radii_shrink_and_the_last_points_lie_in_the_ball():
    rows, apgd = rows_for(images(3, shape=(1, 6, 6)), Norm.L1, 1.0), APGDL1(steps=20)
    apgd.start(rows, RNG)
    sizes = []
    while not rows.done.all():
        query = apgd.ask(rows, RNG)
        assert query.free
        sizes.append(rows.ball.size(query.points))
        rows.step = rows.step + 1
        apgd.tell(rows, query, Answer(query.points.flatten(1).sum(1), torch.ones(3), torch.ones_like(query.points)))
    sizes = torch.stack(sizes)
    assert len(sizes) == 21
    for first, end, width in ((0, 6, 3.0), (6, 12, 2.0), (12, 21, 1.0)):
        assert (sizes[first:end] <= width).all()
        assert torch.allclose(sizes[end - 1], torch.full((3,), width), atol=1e-3)


def test_other_norms_are_refused():
    with pytest.raises(InvalidEntryError, match="for L1, got L2"):
        APGDL1(steps=3).start(rows_for(images(1, shape=(1, 4, 4)), Norm.L2, 1.0), RNG)
