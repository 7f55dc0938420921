"""The sealed shell: whatever an attack does wrong is counted, and never reads as robustness."""

import pytest
import torch

from attacks.ball import ball_for
from attacks.shell import WorstCase, admit_inputs, modules_in_training_mode, verify
from attacks.stepped import Query
from datasets.batch import Batch
from registry import Budget, Knowledge, Member, Norm, ThreatModel
from registry.errors import InputContractError
from tests.toys import NotANumber, StuckInTraining, attack, batch_for, images, linear, protocol_of, robust_gap

N, EPS = 20, 0.02
PGD = Member(name="pgd", attack="attacks.gradient:PGD", options={"steps": 5, "step_size": 1.0}, objective="margin")


def simple(proposal):
    """Returns the factory of a simple attack that proposes `proposal(batch, ball)`."""

    class Attack:
        knowledge = Knowledge.WHITE_BOX

        def run(self, access, batch, ball, rng):
            return proposal(batch, ball)

    return Attack


def stepped(proposal):
    """Returns the factory of a stepped attack that asks for `proposal(batch, ball)`."""

    class Attack:
        knowledge, restarts, eot_samples, steps = Knowledge.WHITE_BOX, 1, 1, 3

        def start(self, rows, rng):
            pass

        def ask(self, rows, rng):
            return Query(proposal(rows.batch, rows.ball), gradient=False)

        def tell(self, rows, query, answer):
            rows.done = rows.step >= self.steps

    return Attack


def fail(batch, ball):
    raise RuntimeError("out of luck")


FAULTS = {
    "raises": fail,
    "NaN": lambda batch, ball: batch.inputs * torch.nan,
    "infinity": lambda batch, ball: batch.inputs + torch.inf,
    "another shape": lambda batch, ball: batch.inputs[:, :, :2],
    "fewer rows": lambda batch, ball: batch.inputs[:-1],
    "integers": lambda batch, ball: (batch.inputs * 255).long(),
    "no tensor": lambda batch, ball: None,
}
both_kinds = pytest.mark.parametrize("kind", [simple, stepped])


def run(factory, *others, model=None):
    model = model or linear(2)
    batch = batch_for(model, images(N), wrong=2)
    member = Member(name="faulty", attack=factory, objective="margin")
    return batch, attack(model, batch, protocol_of(member, *others, eps=(EPS,))).budgets[0]


@both_kinds
@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_a_faulty_attack_is_counted_and_the_others_go_on(fault, kind):
    batch, outcome = run(kind(fault), PGD)
    faulty, honest = outcome.members
    assert faulty.attempted == N - 2
    assert faulty.errors == N - 2
    assert faulty.lowered == faulty.broken == 0
    assert honest.errors == 0
    truth = (robust_gap(linear(2), batch, EPS) > 0).float()
    assert torch.equal(outcome.scores, truth)


@both_kinds
def test_an_exception_keeps_its_traceback(kind):
    _, outcome = run(kind(fail))
    assert "RuntimeError: out of luck" in outcome.members[0].error


@both_kinds
def test_candidates_outside_of_the_ball_are_moved_back_and_counted(kind):
    def leave(batch, ball):
        sign = torch.where(batch.targets["label"] == 0, 1.0, -1.0).reshape(-1, 1, 1, 1)
        weight = linear(2).weight.detach()
        return batch.inputs + 10 * EPS * sign * (weight[1] - weight[0]).sign().reshape(1, 1, 4, 4)

    batch, outcome = run(kind(leave))
    assert outcome.members[0].violations >= N - 2
    assert outcome.members[0].errors == 0
    assert (outcome.points - batch.inputs).abs().max() <= EPS + 1e-6
    assert torch.equal(outcome.scores, (robust_gap(linear(2), batch, EPS) > 0).float())


@both_kinds
def test_returning_the_clean_image_is_counted(kind):
    batch, outcome = run(kind(lambda batch, ball: batch.inputs), PGD)
    assert outcome.members[0].unmoved == N - 2
    assert outcome.members[1].unmoved == 0  # it moved every sample, whether it broke it or not
    assert torch.equal(outcome.scores, (robust_gap(linear(2), batch, EPS) > 0).float())


@both_kinds
def test_an_attack_that_writes_into_what_it_is_given_gains_nothing(kind):
    def scribble(batch, ball):
        ball.originals.fill_(0.9)
        batch.inputs.fill_(0.9)
        ball.eps.fill_(1.0)
        batch.targets["label"].add_(1).remainder_(2)
        return torch.full_like(batch.inputs, 0.9)

    batch, outcome = run(kind(scribble))
    assert (outcome.points - batch.inputs).abs().max() <= EPS + 1e-6
    assert torch.equal(batch.inputs, images(N))
    robust = robust_gap(linear(2), batch, EPS) > 0
    assert (outcome.scores[robust] == 1).all()
    assert outcome.members[0].violations >= N - 2


def test_an_attack_that_fails_on_some_samples_loses_these_only():
    def fail_on_two(batch, ball):
        points = batch.inputs.clone()
        points[batch.sample_ids == 105] = torch.nan
        points[batch.sample_ids == 112] = torch.nan
        return points

    for kind in (simple, stepped):
        _, outcome = run(kind(fail_on_two))
        assert outcome.members[0].errors == 2


@both_kinds
def test_a_model_that_returns_nan_gives_errors_whatever_the_label(kind):
    """arg max of NaN is class 0: samples of that label must not read as robust, nor others as broken."""
    base = linear(2)
    batch = batch_for(base, images(N))
    assert 0 < batch.targets["label"].sum() < N
    member = Member(name="x", attack=kind(lambda batch, ball: batch.inputs + EPS / 2), objective="margin")
    outcome = attack(NotANumber(base, batch.inputs), batch, protocol_of(member, eps=(EPS,))).budgets[0]
    assert outcome.members[0].errors == N
    assert torch.equal(outcome.scores, torch.ones(N))


def test_an_unknown_attack_is_an_error_of_its_member_alone():
    _, outcome = run("attacks.gradient:Nothing", PGD)
    assert outcome.members[0].errors == N - 2
    assert "has no 'Nothing'" in outcome.members[0].error
    assert outcome.members[1].errors == 0


def test_a_missing_surrogate_is_an_error():
    model = linear(2)
    batch = batch_for(model, images(N))
    member = Member(name="transfer", attack="attacks.gradient:PGD", options={"steps": 2}, source="twin")
    assert attack(model, batch, protocol_of(member, eps=(EPS,))).budgets[0].members[0].errors == N


def test_interruption_is_not_swallowed():
    def interrupt(batch, ball):
        raise KeyboardInterrupt

    for kind in (simple, stepped):
        with pytest.raises(KeyboardInterrupt):
            run(kind(interrupt))


def test_verification_by_hand():
    originals = torch.full((4, 1, 1, 2), 0.5)
    ball = ball_for(ThreatModel(), Budget(norm=Norm.LINF, eps=0.1), originals)
    points = originals + torch.tensor([[0.1, -0.1], [0.3, 0.0], [torch.nan, 0.0], [0.1 + 1e-8, 0.0]]).reshape(
        4, 1, 1, 2
    )
    checked = verify(points, ball)
    assert checked.violations == 1  # rounding is none, NaN is an error
    assert checked.broken_rows.tolist() == [False, False, True, False]
    assert torch.equal(checked.points[2], originals[2])
    assert checked.points[1].flatten().tolist() == pytest.approx([0.6, 0.5])


def test_the_worst_candidate_is_kept():
    worst = WorstCase(torch.zeros(3, 1), torch.ones(3), stop_at=0.0)
    samples, scores = torch.tensor([0, 0, 2]), torch.tensor([0.5, 0.25, 1.0])
    worst.offer(samples, torch.tensor([[1.0], [2.0], [3.0]]), scores, 4, torch.tensor([7, 8, 9]))
    worst.offer(torch.tensor([0, 1]), torch.tensor([[5.0], [6.0]]), torch.tensor([0.25, 0.0]), 5, torch.tensor([1, 2]))
    assert worst.scores.tolist() == [0.25, 0.0, 1.0]
    assert worst.points[:, 0].tolist() == [2.0, 6.0, 0.0]
    assert worst.member.tolist() == [4, 5, -1]
    assert worst.step.tolist() == [8, 2, -1]
    assert worst.finished.tolist() == [False, True, False]


def test_admission():
    good = Batch(sample_ids=torch.arange(2), inputs=torch.tensor([0.0, 1.0]).reshape(2, 1, 1, 1))
    admit_inputs(good)
    for inputs in (good.inputs - 0.01, good.inputs * 255, good.inputs * torch.nan, good.inputs.long()):
        with pytest.raises(InputContractError):
            admit_inputs(good.with_inputs(inputs))


def test_modules_in_training_mode_are_named():
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), StuckInTraining(torch.nn.Dropout())).eval()
    assert modules_in_training_mode(model) == ("1", "1.0")
    assert modules_in_training_mode(linear(2)) == ()
