"""FAB: exact distances and robust accuracies of linear models, and side by side with the published implementation."""

import pytest
import torch
from pyautoattack.fab_pt import FABAttack_PT

from attacks.ball import Ball, ball_for
from attacks.draws import KeyedRandom
from attacks.fab import FAB, FINAL
from attacks.stepped import Rows
from attacks.victim import Answer
from datasets.batch import Batch
from registry import Budget, Member, Norm, Randomness, ThreatModel
from tests.minimal_norm import NORMS, closest, distances, norms_of
from tests.toys import NoisyInput, attack, batch_for, cnn, images, linear, protocol_of, robust_gap

each_norm = pytest.mark.parametrize("norm", NORMS)


def fab(**options) -> Member:
    objective = "targeted-margin" if "targets" in options else "margin"
    return Member(name="fab", attack="attacks.fab:FAB", options={"steps": 20} | options, objective=objective)


@each_norm
@pytest.mark.parametrize("classes", [2, 4])
def test_the_exact_distance_of_a_linear_model_in_the_box(norm, classes):
    """Images reach 0 and 1, so that the box binds; the distances are those of a solver."""
    model = linear(classes)
    batch = batch_for(model, images(10, low=0.0, high=1.0).round(decimals=1))
    exact = distances(model, batch, norm)
    targeted = {"targets": classes - 1} if classes > 2 else {}
    found = closest(
        FAB(steps=30, **targeted), model, batch, norm, float(exact.max()), objective=fab(**targeted).objective
    )
    assert (found >= exact * (1 - 1e-4)).all()
    assert (found <= exact * 1.005).all()


@pytest.mark.parametrize("norm", [Norm.LINF, Norm.L2])
@pytest.mark.parametrize("classes", [2, 4])
def test_the_exact_robust_accuracy_of_a_linear_model(norm, classes):
    """The budgets lie between the distances of two samples, or a thousandth beside the distance of one."""
    model = linear(classes)
    batch = batch_for(model, images(24, low=0.4, high=0.6), wrong=2)
    low, high = torch.zeros(24), torch.full((24,), 1.0)
    for _ in range(40):  # the distance: where the gap is 0
        middle = (low + high) / 2
        gap = torch.stack([robust_gap(model, batch, float(m), norm)[k] for k, m in enumerate(middle)])
        low, high = torch.where(gap > 0, middle, low), torch.where(gap > 0, high, middle)
    median = float(high[2:].median())
    eps = (0.5 * median, 0.999 * median, 1.001 * median, 2 * median)
    member = fab(**({"targets": 3, "restarts": 1} if classes > 2 else {}))
    outcome = attack(model, batch, protocol_of(member, eps=eps, norm=norm))
    for budget, radius in zip(outcome.budgets, eps, strict=True):
        (run,) = budget.members
        assert (run.errors, run.violations) == (0, 0), run.error
        assert torch.equal(budget.scores, (robust_gap(model, batch, radius, norm) > 0).float()), radius
    assert outcome.budgets[2].scores.sum() == outcome.budgets[1].scores.sum() - 1


@pytest.mark.parametrize("norm", [Norm.LINF, Norm.L2])
@pytest.mark.parametrize("classes", [2, 4])
def test_it_finds_no_less_than_the_published_fab(norm, classes):
    model = cnn(classes)
    batch = batch_for(model, images(40, shape=(1, 8, 8), low=0.0, high=1.0))
    eps = {Norm.LINF: 0.03, Norm.L2: 0.15}[norm]
    targeted = {"targets": 3} if classes > 2 else {}
    ours = attack(model, batch, protocol_of(fab(**targeted), eps=(eps,), norm=norm), slots=40).budgets[0]
    reference = FABAttack_PT(model, norm=str(norm), n_restarts=1, n_iter=20, eps=eps, seed=0, device="cpu")
    reference.targeted, reference.n_target_classes = classes > 2, classes - 1
    with torch.random.fork_rng(devices=[]):
        points = reference.perturb(batch.inputs, batch.targets["label"])
    theirs = (model(points).argmax(1) == batch.targets["label"]).float()
    assert norms_of(points - batch.inputs, norm).max() <= eps + 1e-5
    assert 0.1 < theirs.mean() < 0.9
    assert ours.scores.sum() <= theirs.sum()
    assert ours.members[0].forwards <= 40 * len(batch.inputs) * max(classes - 1, 1)


def test_closest_adversarials_are_no_farther_than_the_published_ones():
    model = cnn(2, seed=3)
    batch = batch_for(model, images(24, shape=(1, 8, 8), low=0.0, high=1.0))
    for norm, eps in ((Norm.LINF, 0.05), (Norm.L2, 0.3), (Norm.L1, 2.0)):
        ours = closest(FAB(steps=20), model, batch, norm, eps)
        reference = FABAttack_PT(model, norm=str(norm), n_restarts=1, n_iter=20, eps=eps, seed=0, device="cpu")
        with torch.random.fork_rng(devices=[]):
            points = reference.attack_single_run(batch.inputs, batch.targets["label"])
        theirs = norms_of(points - batch.inputs, norm)
        near = (theirs > 0) & (theirs < eps)
        assert near.sum() >= 6
        assert (ours[near] / theirs[near]).log().mean() < 0.01, norm


def rows_for(n=3, eps=0.1, restart=0) -> Rows:
    inputs = torch.full((n, 1, 2, 2), 0.5)
    return Rows(
        batch=Batch(sample_ids=torch.arange(n), inputs=inputs),
        ball=ball_for(ThreatModel(), Budget(norm=Norm.LINF, eps=eps), inputs),
        begin=inputs.clone(),
        restart=torch.full((n,), restart),
        sample=torch.arange(n),
        step=torch.zeros(n, dtype=torch.int64),
        done=torch.zeros(n, dtype=torch.bool),
    )


@each_norm
def test_later_restarts_begin_halfway_and_each_target_at_the_original(norm):
    run = FAB(targets=2, restarts=2)
    assert run.restarts == 4
    for restart, expected in ((0, 0.0), (1, 0.0), (2, 0.05), (3, 0.05)):
        rows = rows_for(restart=restart)
        rows.ball = Ball(norm=norm, originals=rows.ball.originals, eps=rows.ball.eps)
        run.start(rows, KeyedRandom(seed=1))
        sizes = norms_of(run.ask(rows, KeyedRandom(seed=1)).points - rows.begin, norm)
        assert sizes.tolist() == pytest.approx([expected] * 3, rel=1e-4, abs=1e-9)


def test_steps_by_hand():
    """f(x) = sum(x - 0.5) - 0.12 in 4 places: the boundary is 0.03 away, and eta = 1.05 leads to 0.0315.

    From there back to 0.9 * 0.0315 = 0.02835, then 1.05 * 0.00165 on to 0.0300825, weighted with 0.0315 from the
    original by 0.00165 / (0.00165 + 0.03) = 0.0521327.
    """
    run, rows, rng = FAB(steps=5), rows_for(1), KeyedRandom(seed=0)
    run.start(rows, rng)
    sizes = []
    while not rows.done:
        query = run.ask(rows, rng)
        sizes.append(float((query.points - 0.5).mean()))
        value = (query.points - 0.5).flatten(1).sum(1) - 0.12
        rows.step = rows.step + 1
        run.tell(rows, query, Answer(value, torch.ones(1), torch.ones_like(query.points)))
    assert sizes[:3] == pytest.approx([0, 0.0315, 0.0300825 + 0.0521327 * 0.0014175], abs=2e-7)
    assert len(sizes) == 5 + FINAL
    assert 0.03 <= float(rows.memory["best_size"]) <= 0.03001


def test_the_last_search_asks_the_surface_of_the_ball():
    """The only adversarial found is at 0.15; at the ball's surface, 0.1, is another one that the walk never met."""
    run, rows, rng = FAB(steps=1), rows_for(1), KeyedRandom(seed=0)
    run.start(rows, rng)
    rows.memory["point"] = rows.begin + 0.15
    asked = []
    while not rows.done:
        query = run.ask(rows, rng)
        asked.append(float((query.points - 0.5).mean()))
        rows.step = rows.step + 1
        run.tell(rows, query, Answer(torch.ones(1), torch.ones(1), torch.ones_like(query.points)))
    assert asked[1] == pytest.approx(0.1, abs=1e-6)
    assert rows.ball.contains(rows.ball.originals + asked[1]).all()


def test_the_walk_keeps_within_its_reach_and_gives_up_where_nothing_is_found():
    run, rows, rng = FAB(steps=6, reach=1.5), rows_for(2), KeyedRandom(seed=0)
    run.start(rows, rng)
    while not rows.done.all():
        query = run.ask(rows, rng)
        assert (query.points - 0.5).abs().max() <= 0.15 + 1e-6
        rows.step = rows.step + 1
        run.tell(rows, query, Answer(torch.full((2,), -1.0), torch.ones(2), torch.ones_like(query.points)))
    assert rows.step.tolist() == [6, 6]


def test_modalities_with_radii_of_their_own_and_a_restricted_support():
    """Linf balls of 0.004, 0 and 0.01 hold all that is proposed; with one modality allowed only that one changes."""
    model = linear(2, shape=(3, 1, 4, 4))
    batch = batch_for(model, images(16, shape=(3, 1, 4, 4), low=0.4, high=0.6))
    weight = (model.weight[0] - model.weight[1]).detach().abs().reshape(3, -1).sum(1)
    margins = model(batch.inputs).detach().diff(dim=1).abs()[:, 0]
    for radii, support in (((0.004, 0.0, 0.01), "everything"), ((0.02, 0.02, 0.02), "modality:1")):
        protocol = protocol_of(fab(), eps=(radii,), support=support)
        budget = attack(model, batch, protocol).budgets[0]
        assert (budget.members[0].errors, budget.members[0].violations) == (0, 0), budget.members[0].error
        allowed = weight * torch.tensor(radii)
        reach = allowed.sum() if support == "everything" else allowed[1]
        assert torch.equal(budget.scores, (margins > reach).float())
        assert 0.1 < budget.scores.mean() < 0.9


def test_an_original_that_is_adversarial_already_is_no_error():
    """As under noise, where a sample may be right on the mean of its draws and wrong on one of them."""
    run, rows, rng = FAB(steps=3), rows_for(1), KeyedRandom(seed=0)
    run.start(rows, rng)
    while not rows.done:
        query = run.ask(rows, rng)
        assert torch.isfinite(query.points).all()
        rows.step = rows.step + 1
        run.tell(rows, query, Answer(torch.ones(1), torch.ones(1), torch.ones_like(query.points)))


def test_a_noisy_victim_is_attacked_without_errors():
    model = NoisyInput(linear(3, shape=(1, 8, 8)))
    batch = batch_for(model.base, images(6, shape=(1, 8, 8)))
    protocol = protocol_of(fab(targets=2, eot_samples=4, steps=5), eps=(0.05,))
    budget = attack(model, batch, protocol, randomness=Randomness.SAMPLE, slots=6).budgets[0]
    assert (budget.members[0].errors, budget.members[0].violations) == (0, 0)
    assert budget.scores.mean() < 0.5
