"""The engine: exact on models with a closed form, ascending budgets, sealed against faulty attacks and models."""

import pytest
import torch

from attacks.judging import FINAL, judge_scores
from attacks.stepped import Query
from attacks.victim import ModelVictim
from datasets.batch import Batch
from datasets.tasks.classification import Classification
from datasets.tasks.segmentation import Segmentation
from registry import Knowledge, Member, Norm, Randomness
from registry.errors import InputContractError
from tests.toys import (
    NoisyInput,
    NotANumber,
    attack,
    batch_for,
    images,
    linear,
    protocol_of,
    robust_gap,
)

PGD = Member(name="pgd", attack="attacks.gradient:PGD", options={"steps": 10}, objective="margin")
SQUARE = Member(name="square", attack="attacks.square:Square", options={"queries": 30}, objective="margin")


def apgd(steps=10, restarts=1, objective="margin", **options) -> Member:
    options |= {"steps": steps, "restarts": restarts}
    return Member(name="apgd", attack="attacks.apgd:APGD", options=options, objective=objective)


def pgd(steps=10, restarts=1, objective="margin") -> Member:
    options = {"steps": steps, "restarts": restarts, "step_size": 0.5}
    return Member(name="pgd", attack="attacks.gradient:PGD", options=options, objective=objective)


@pytest.mark.parametrize(("norm", "eps"), [(Norm.LINF, 0.02), (Norm.L2, 0.08)])
@pytest.mark.parametrize("k", [2, 4, 9])
@pytest.mark.parametrize("member", [apgd, pgd])
def test_closed_form_of_a_linear_model(member, k, norm, eps):
    """With one restart for each wrong class, the worst case of a linear model is exact."""
    model = linear(k)
    batch = batch_for(model, images(80), wrong=3)
    gap = robust_gap(model, batch, eps, norm)
    clear = gap.abs() > 0.01  # steps of a finite size end close to the edge of an L2 ball
    truth = (gap > 0).float()
    assert clear.sum() > 70
    assert 0.15 < truth.mean() < 0.85
    attack_member = member(20, max(k - 1, 1), "margin" if k == 2 else "targeted-margin")
    scores = attack(model, batch, protocol_of(attack_member, eps=(eps,), norm=norm), slots=32).budgets[0].scores
    assert torch.equal(scores[clear], truth[clear])


def test_broken_stays_broken_with_the_same_adversarial():
    model = linear(3)
    batch = batch_for(model, images(30), wrong=2)
    first, second = attack(model, batch, protocol_of(apgd(3), eps=(0.02, 0.04))).budgets
    broken = first.scores == 0
    assert 2 < broken.sum() < 30
    assert torch.equal(second.points[broken], first.points[broken])
    assert (second.scores <= first.scores).all()
    assert second.members[0].attempted == 30 - int(broken.sum())
    assert torch.equal(second.step[broken], first.step[broken])
    assert first.found_by[:2] == ("", "")  # wrong without any attack


BEGAN, GRADIENTS = [], []


class Recorder:
    """Remembers where its rows begin; its points and answers are the victim's business."""

    knowledge, restarts, eot_samples, steps = Knowledge.SCORE_BASED, 1, 1, 1

    def start(self, rows, rng):
        BEGAN.append((rows.sample.clone(), rows.begin.clone()))

    def ask(self, rows, rng):
        step = 0.7 * rows.ball.eps * torch.ones_like(rows.begin)
        return Query(rows.ball.project(rows.ball.originals + step), gradient=True)

    def tell(self, rows, query, answer):
        GRADIENTS.append(answer.gradient)
        rows.done = torch.ones_like(rows.done)


def stripes(n=6) -> tuple[torch.nn.Module, Batch, Segmentation]:
    """A graded task: pixels above 0.5 are foreground, columns at different distances from the border."""
    ramp = torch.linspace(0.4, 0.6, 9).expand(n, 1, 6, 9) + 0.002 * torch.arange(n).reshape(n, 1, 1, 1)
    mask = (ramp[:, 0] > 0.5).long()

    class Threshold(torch.nn.Module):
        def forward(self, inputs):
            return torch.cat([0.5 - inputs, inputs - 0.5], 1)

    return Threshold().eval(), Batch(sample_ids=torch.arange(n), inputs=ramp, targets={"mask": mask}), Segmentation(2)


def test_a_graded_task_keeps_the_lower_score_and_carries_the_candidate():
    model, batch, task = stripes()
    BEGAN.clear()
    protocol = protocol_of(Member(name="recorder", attack=Recorder, objective="soft-dice"), eps=(0.04, 0.08, 0.2))
    outcome = attack(model, batch, protocol, task=task)
    scores = [outcome.clean_scores, *(budget.scores for budget in outcome.budgets)]
    assert (scores[0] == 1).all()
    for larger, smaller in zip(scores[1:], scores[:-1], strict=True):
        assert (larger < smaller).all()
    assert ((scores[1] > 0) & (scores[1] < 1)).all()  # graded: broken or not, it goes on until 0
    for (sample, begin), before in zip(BEGAN, [None, *outcome.budgets], strict=False):
        expected = batch.inputs if before is None else before.points
        assert torch.equal(begin, expected[sample])


def test_a_graded_score_never_rises_when_a_later_member_is_worse():
    model, batch, task = stripes()
    ce = Member(name="ce", attack="attacks.apgd:APGD", options={"steps": 5}, objective="cross-entropy")
    weak = Member(name="weak", attack=Recorder, objective="soft-dice")
    alone = attack(model, batch, protocol_of(ce, eps=(0.05,)), task=task).budgets[0]
    both = attack(model, batch, protocol_of(ce, weak, eps=(0.05,)), task=task).budgets[0]
    assert torch.equal(both.scores, alone.scores)
    assert torch.equal(both.points, alone.points)
    assert both.members[1].lowered == 0


def test_score_based_attacks_never_see_a_gradient():
    model = linear(2)
    batch = batch_for(model, images(5))
    GRADIENTS.clear()
    outcome = attack(model, batch, protocol_of(Member(name="recorder", attack=Recorder, objective="margin")))
    assert GRADIENTS == [None]
    assert outcome.budgets[0].members[0].backwards == 0


class Lying(torch.nn.Module):
    """Agrees with its base on the originals and calls everything else wrong."""

    def __init__(self, base, originals):
        super().__init__()
        self.base, self.originals = base, originals

    def forward(self, inputs):
        logits = self.base(inputs)
        away = (inputs[:, None] - self.originals[None]).abs().flatten(2).amax(2).amin(1) > 0
        return torch.where(away[:, None], -logits, logits)


def test_a_search_model_that_lies_breaks_nothing():
    model = linear(3)
    batch = batch_for(model, images(20))
    robust = robust_gap(model, batch, 0.003) > 1e-4
    protocol = protocol_of(apgd(9, restarts=2), SQUARE, eps=(0.003,))
    outcome = attack(model, batch, protocol, search=Lying(model, batch.inputs)).budgets[0]
    assert robust.sum() > 10
    assert (outcome.scores[robust] == 1).all()
    assert torch.equal(outcome.points[robust], batch.inputs[robust])
    victim = ModelVictim(model, Classification(3), slots=8)
    assert torch.equal(judge_scores(victim, batch.with_inputs(outcome.points), FINAL), outcome.scores)


def test_a_faster_search_model_finds_what_the_judge_confirms():
    model = linear(2)
    batch = batch_for(model, images(40))
    truth = (robust_gap(model, batch, 0.02) > 0).float()
    faster = linear(2).double().float()  # another module with the same weights
    outcome = attack(model, batch, protocol_of(apgd(10), eps=(0.02,)), search=faster)
    assert torch.equal(outcome.budgets[0].scores, truth)


def test_a_stochastic_candidate_is_the_one_with_the_highest_objective():
    """One draw that errs at the random start must not keep the far worse points of later steps from being judged."""
    base = linear(2)
    batch = batch_for(base, images(24))
    model = NoisyInput(base, sigma=0.25, drop=0.0)
    outcome = attack(model, batch, protocol_of(apgd(12), eps=(0.1,)), randomness=Randomness.SAMPLE)
    direction = base.weight[1] - base.weight[0]
    sign = torch.where(batch.targets["label"] == 0, 1.0, -1.0)[:, None]
    worst = batch.with_inputs((batch.inputs + 0.1 * (sign * direction.sign()).reshape(-1, 1, 4, 4)).clamp(0, 1))
    victim = ModelVictim(model, Classification(2), slots=8, randomness=Randomness.SAMPLE)
    truth = judge_scores(victim, worst, FINAL)
    assert (outcome.clean_scores.mean() - truth.mean()) > 0.3
    assert outcome.budgets[0].scores.mean() < truth.mean() + 0.03


def test_a_stochastic_score_is_taken_on_fresh_draws():
    """The minimum over many equal candidates of a coin flip must not read as robustness lost."""
    base = linear(2)
    batch = batch_for(base, images(24))
    model = NoisyInput(base, sigma=0.25, drop=0.0)
    protocol = protocol_of(apgd(10), SQUARE, eps=(0.0,))
    outcome = attack(model, batch, protocol, randomness=Randomness.SAMPLE)
    assert torch.equal(outcome.budgets[0].scores, outcome.clean_scores)


class Chaotic(torch.nn.Module):
    """A coin for every point and draw: the least change of the image tosses it anew."""

    def forward(self, inputs):
        phase = inputs.flatten(1).sum(1, keepdim=True) + torch.rand(len(inputs), 1)
        wave = torch.sin(1e5 * phase)
        return torch.cat([wave, -wave], 1)


def test_the_selected_candidate_keeps_its_own_final_score():
    """The minimum of a candidate's and the original's noisy means would be lower than either, without any attack."""
    batch, model = batch_for(linear(2), images(40)), Chaotic()
    member = Member(name="random", attack="attacks.random_search:RandomSearch", options={"queries": 6})
    outcome = attack(model, batch, protocol_of(member, eps=(0.02,)), randomness=Randomness.SAMPLE)
    (found,) = outcome.budgets
    victim = ModelVictim(model, Classification(2), slots=8, randomness=Randomness.SAMPLE)
    assert torch.equal(found.scores, judge_scores(victim, batch.with_inputs(found.points), FINAL))
    moved = (found.points != batch.inputs).flatten(1).any(1)
    assert (found.scores > outcome.clean_scores)[moved].any()
    assert torch.equal(found.scores[~moved], outcome.clean_scores[~moved])


def test_inputs_out_of_range_are_refused():
    model = linear(2)
    batch = batch_for(model, images(5))
    refused = [
        (batch.inputs * 255, "divide by 255"),
        (batch.inputs.double(), "float32"),
        (batch.inputs * torch.nan, "finite"),
    ]
    for inputs, text in refused:
        with pytest.raises(InputContractError, match=text):
            attack(model, batch.with_inputs(inputs), protocol_of(PGD), task=Classification(2))


def test_a_model_that_returns_nan_inside_the_ball_gives_errors():
    base = linear(3)
    batch = batch_for(base, images(12))
    model = NotANumber(base, batch.inputs)
    outcome = attack(model, batch, protocol_of(apgd(5), PGD, SQUARE, eps=(0.05,))).budgets[0]
    assert [m.errors for m in outcome.members] == [12, 12, 12]
    assert torch.equal(outcome.points, batch.inputs)
