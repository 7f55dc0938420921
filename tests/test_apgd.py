"""Auto-PGD: checkpoints and step sizes by hand, and behaviour against the published implementation."""

import itertools

import pytest
import torch
from pyautoattack.autopgd_base import APGDAttack, APGDAttack_targeted

from attacks.apgd import APGD, _windows
from attacks.ball import ball_for
from attacks.draws import KeyedRandom
from attacks.stepped import Rows
from attacks.victim import Answer
from datasets.batch import Batch
from registry import Budget, Member, Norm, ThreatModel
from tests.toys import attack, batch_for, cnn, images, protocol_of, trained

RNG = KeyedRandom(seed=0)
TARGETED_EPS = 0.006


def checkpoints(steps):
    return _windows(steps).nonzero()[:, 0].tolist()


def test_checkpoints_by_hand():
    """p_0 = 0, p_1 = 0.22, p_j+1 = p_j + max(p_j - p_j-1 - 0.03, 0.06): section 3 of the paper, for 100 steps."""
    assert checkpoints(100) == [22, 41, 57, 70, 80, 87, 93, 99]
    assert _windows(100)[[22, 41, 57, 70, 80, 87, 93, 99]].tolist() == [22, 19, 16, 13, 10, 7, 6, 6]


@pytest.mark.parametrize("steps", [1, 2, 5, 10, 20, 50, 1000])
def test_checkpoints_of_other_lengths(steps):
    points = checkpoints(steps)
    lengths = _windows(steps)[points].tolist()
    assert sum(lengths) == points[-1] <= steps
    assert all(a >= b for a, b in itertools.pairwise(lengths))
    assert points[0] == max(int(0.22 * steps), 1)


def rows_for(n=1, eps=0.1, norm=Norm.LINF) -> Rows:
    inputs = torch.full((n, 1, 2, 2), 0.5)
    return Rows(
        batch=Batch(sample_ids=torch.arange(n), inputs=inputs),
        ball=ball_for(ThreatModel(norm=norm), Budget(norm=norm, eps=eps), inputs),
        begin=inputs.clone(),
        restart=torch.zeros(n, dtype=torch.int64),
        sample=torch.arange(n),
        step=torch.zeros(n, dtype=torch.int64),
        done=torch.zeros(n, dtype=torch.bool),
    )


def play(objectives, steps=100, gradient=1.0):
    """Tells the attack a fixed sequence of objective values; returns rows, step sizes and points after each answer."""
    apgd, rows = APGD(steps=steps), rows_for()
    apgd.start(rows, RNG)
    sizes, points = [], []
    for value in objectives:
        query = apgd.ask(rows, RNG)
        points.append(query.points)
        rows.step = rows.step + 1
        direction = torch.full_like(query.points, gradient)
        apgd.tell(rows, query, Answer(torch.tensor([float(value)]), torch.ones(1), direction))
        sizes.append(float(rows.memory["step_size"]))
    return rows, sizes, points


def test_the_step_stays_while_every_step_gains():
    _, sizes, _ = play(range(101))
    assert set(sizes) == {2.0}


def test_the_step_is_halved_where_too_few_steps_gain():
    """16 of 22 steps gain: at most 0.75 * 22 = 16.5, so the first checkpoint halves; 17 would not."""
    for gains, expected in ((16, 1.0), (17, 2.0)):
        values = [0.0] + [float(k) for k in range(1, gains + 1)] + [-float(k) for k in range(22 - gains)]
        _, sizes, _ = play(values)
        assert sizes[21] == 2.0
        assert sizes[22] == expected


def test_the_second_condition_waits_for_a_window_without_halving():
    """Oscillating objectives that gain often enough but whose best stands still are halved one window later."""
    first = list(range(23))  # 22 gains: no halving, best 22
    second = []
    value = -100.0
    for _ in range(19):  # gains at every step, but never above the best
        value += 1
        second.append(value)
    _, sizes, _ = play(first + second + [value + 1])
    assert sizes[22] == 2.0
    assert sizes[41] == 1.0


def test_after_halving_it_goes_on_from_the_best_point():
    values = [0.0, 5.0] + [-1.0] * 21
    rows, sizes, points = play(values)
    assert sizes[22] == 1.0
    best = points[1]
    assert torch.equal(rows.memory["best_point"], best)
    eps = 0.1
    expected = best + 0.75 * ((best + eps).clamp(max=0.6) - best) + 0.25 * (best - rows_previous(values))
    assert torch.allclose(rows.memory["point"], expected.clamp(0.4, 0.6), atol=1e-6)


def rows_previous(values):
    """Returns the point from which the last move before the checkpoint began."""
    rows, _, _ = play(values[:-1])
    return rows.memory["previous"]


def test_momentum_by_hand():
    """x2 = x1 + 0.75 (z - x1) + 0.25 (x1 - x0); the first move takes the whole step."""
    apgd, rows = APGD(steps=10), rows_for()
    apgd.start(rows, RNG)
    start = rows.memory["point"]
    gradient = torch.tensor([[[[1.0, -1.0], [1.0, -1.0]]]])
    for expected_sign in (1.0, -1.0):
        query = apgd.ask(rows, RNG)
        rows.step = rows.step + 1
        apgd.tell(rows, query, Answer(torch.zeros(1), torch.ones(1), expected_sign * gradient))
    one = (start + 0.2 * gradient).clamp(0.4, 0.6)
    target = (one - 0.2 * gradient).clamp(0.4, 0.6)
    two = (one + 0.75 * (target - one) + 0.25 * (one - start)).clamp(0.4, 0.6)
    assert torch.allclose(rows.memory["point"], two, atol=1e-6)


@pytest.mark.parametrize(
    ("objective", "loss", "norm", "budgets"),
    [
        ("cross-entropy", "ce", Norm.LINF, (0.01, 0.02)),
        ("cross-entropy", "ce", Norm.L2, (0.08, 0.15)),
        ("dlr", "dlr", Norm.LINF, (0.01, 0.02)),
    ],
)
def test_it_is_as_strong_as_the_published_one(objective, loss, norm, budgets):
    """The published code on the same network, images and budget: not above it by more than 1 of 200 samples."""
    model, batch = trained()
    label = batch.targets["label"]
    for eps in budgets:
        member = Member(name="apgd", attack="attacks.apgd:APGD", options={"steps": 50}, objective=objective)
        outcome = attack(model, batch, protocol_of(member, eps=(eps,), norm=norm), slots=100)
        with torch.random.fork_rng(devices=[]):
            published = APGDAttack(model, n_iter=50, norm=str(norm), eps=eps, seed=0, loss=loss, device="cpu")
            adversarials = published.perturb(batch.inputs, label)
        with torch.no_grad():
            theirs = int((model(adversarials).argmax(1) == label).sum())
        ours = int(outcome.budgets[0].scores.sum())
        assert outcome.clean_scores.mean() > 0.8
        assert 10 < theirs <= outcome.clean_scores.sum() - 5  # otherwise the budget tells nothing
        assert ours <= theirs + 1
        assert ours >= theirs - 8  # the same attack, not another one


def test_at_every_target_it_is_as_strong_as_the_published_one():
    """The targeted DLR loss needs 4 classes; as many targets as there are other classes."""
    model, inputs = cnn(4, seed=1), images(60, shape=(1, 8, 8))
    batch = batch_for(model, inputs)
    options = {"steps": 30, "restarts": 3}
    member = Member(name="apgd-t", attack="attacks.apgd:APGD", options=options, objective="targeted-dlr")
    outcome = attack(model, batch, protocol_of(member, eps=(TARGETED_EPS,)), slots=60)
    with torch.random.fork_rng(devices=[]):
        published = APGDAttack_targeted(
            model, n_iter=30, norm="Linf", eps=TARGETED_EPS, seed=0, n_target_classes=3, device="cpu"
        )
        adversarials = published.perturb(batch.inputs, batch.targets["label"])
    with torch.no_grad():
        theirs = int((model(adversarials).argmax(1) == batch.targets["label"]).sum())
    ours = int(outcome.budgets[0].scores.sum())
    assert 5 < theirs < 55  # otherwise the budget tells nothing
    assert theirs - 3 <= ours <= theirs + 1
