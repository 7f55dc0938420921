"""CW-L2: distances of linear models, the search for c by hand, and side by side with an independent implementation."""

import pytest
import torch
import torchattacks

from attacks.ball import Ball
from attacks.carlini_wagner import CarliniWagner
from attacks.draws import KeyedRandom
from attacks.stepped import Rows
from attacks.victim import Answer
from datasets.batch import Batch
from registry import Member, Norm
from tests.minimal_norm import closest, distances, norms_of
from tests.toys import attack, batch_for, cnn, images, linear, protocol_of, robust_gap


def member(**options) -> Member:
    return Member(name="cw", attack="attacks.carlini_wagner:CarliniWagner", options=options, objective="margin")


def test_the_distance_of_a_linear_model():
    """Up to one step of Adam, which moves each of the 16 places by half the learning rate."""
    model = linear(2)
    batch = batch_for(model, images(12, low=0.4, high=0.6))
    exact = distances(model, batch, Norm.L2)
    found = closest(
        CarliniWagner(steps=60, search_steps=4, learning_rate=0.004, initial_c=0.1), model, batch, Norm.L2, 1.0
    )
    assert (found >= exact * (1 - 1e-4)).all()
    assert (found <= exact * 1.01 + 0.008).all()


def test_robust_accuracy_of_a_linear_model():
    model = linear(3)
    batch = batch_for(model, images(24), wrong=2)
    budget = attack(
        model, batch, protocol_of(member(steps=40, search_steps=4, initial_c=0.1), eps=(0.09,), norm=Norm.L2), slots=24
    ).budgets[0]
    assert (budget.members[0].errors, budget.members[0].violations) == (0, 0), budget.members[0].error
    gap = robust_gap(model, batch, 0.09, Norm.L2)
    clear = (robust_gap(model, batch, 0.093, Norm.L2) > 0) == (robust_gap(model, batch, 0.087, Norm.L2) > 0)
    assert clear.sum() >= 20
    assert torch.equal(budget.scores[clear], (gap > 0).float()[clear])
    assert 0.2 < budget.scores.mean() < 0.8


def test_no_farther_than_torchattacks_with_the_best_of_its_constants():
    """It holds c fixed; ours searches it, so that it comes at least as near as the best c for each sample.

    Single samples near the boundary differ by a step of Adam.
    """
    model = cnn(3)
    batch = batch_for(model, images(8, shape=(1, 8, 8), seed=3))
    far = torch.full((8,), torch.inf)
    for c in (1.0, 10.0):
        theirs = torchattacks.CW(model, c=c, kappa=0, steps=40, lr=0.01)
        theirs.set_device("cpu")
        points = theirs(batch.inputs, batch.targets["label"]).detach()
        wrong = model(points).argmax(1) != batch.targets["label"]
        far = torch.where(wrong, torch.minimum(far, norms_of(points - batch.inputs, Norm.L2)), far)
    reached = torch.isfinite(far)
    assert reached.sum() >= 5
    ours = closest(CarliniWagner(steps=40, search_steps=5, initial_c=1.0), model, batch, Norm.L2, 1.0)
    assert torch.isfinite(ours).all()
    assert ours[reached].mean() <= far[reached].mean() * 1.01


def rows_for(n: int) -> Rows:
    inputs = torch.full((n, 1, 1, 4), 0.5)
    zero = torch.zeros(n, dtype=torch.int64)
    return Rows(
        batch=Batch(sample_ids=zero, inputs=inputs),
        ball=Ball(norm=Norm.L2, originals=inputs, eps=torch.full((1, 1, 1, 1), 0.1)),
        begin=inputs.clone(),
        restart=zero,
        sample=zero,
        step=zero.clone(),
        done=zero.bool(),
    )


@pytest.mark.parametrize(
    ("value", "expected"), [(0.5, [1.0, 0.5, 0.25]), (-0.5, [1.0, 10.0, 100.0])], ids=["always", "never"]
)
def test_the_search_for_c_by_hand(value, expected):
    """After success to the middle of 0 and c, after failure ten times as high; three runs of three steps at most."""
    cw, rows, rng = CarliniWagner(steps=3, search_steps=3, initial_c=1.0), rows_for(1), KeyedRandom(seed=0)
    cw.start(rows, rng)
    seen = []
    while not rows.done:
        query = cw.ask(rows, rng)
        seen.append(float(rows.memory["c"]))
        rows.step = rows.step + 1
        cw.tell(rows, query, Answer(torch.tensor([value]), torch.ones(1), torch.ones_like(query.points)))
    assert list(dict.fromkeys(seen)) == expected
    assert len(seen) <= cw.steps


def test_every_row_is_at_a_run_of_its_own():
    """The loss of the first row never falls: its runs end at the second check, while the second row's goes on."""
    cw, rows, rng = CarliniWagner(steps=30, initial_c=1.0), rows_for(2), KeyedRandom(seed=0)
    cw.start(rows, rng)
    for step in range(12):
        query = cw.ask(rows, rng)
        rows.step = rows.step + 1
        gradient = torch.ones_like(query.points) * torch.tensor([0.0, 1.0]).reshape(2, 1, 1, 1)
        cw.tell(rows, query, Answer(torch.tensor([-0.5, -1.0 + 0.05 * step]), torch.ones(2), gradient))
    assert rows.memory["run"].tolist() == [2, 0]
    assert rows.memory["c"].tolist() == [100.0, 1.0]


def test_the_first_step_by_hand():
    """Adam's first step is the learning rate in tanh space: 0.5 (1 + tanh(0.01)) along a positive gradient."""
    cw, rows, rng = CarliniWagner(steps=5), rows_for(1), KeyedRandom(seed=0)
    cw.start(rows, rng)
    query = cw.ask(rows, rng)
    assert torch.allclose(query.points, rows.begin, atol=1e-6)
    rows.step = rows.step + 1
    gradient = torch.tensor([3.0, -2.0, 1.0, 0.0]).reshape(1, 1, 1, 4)
    cw.tell(rows, query, Answer(torch.tensor([-1.0]), torch.ones(1), gradient))
    moved = (cw.ask(rows, rng).points - 0.5).flatten()
    assert moved.tolist() == pytest.approx([0.005, -0.005, 0.005, 0.0], abs=1e-5)


def test_other_norms_are_refused():
    outcome = attack(linear(2), batch_for(linear(2), images(3)), protocol_of(member(), eps=(0.1,))).budgets[0]
    assert outcome.members[0].errors == 3
    assert "is for L2" in outcome.members[0].error
