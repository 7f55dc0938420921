"""What is stored is at least as bad as what was found, lies in the ball, and is what the record's scores are of."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from attacks.judging import FINAL, judge_scores
from attacks.victim import ModelVictim
from benchmark.stored_adversarials import balls, certify, stored_points, take
from datasets.batch import Batch
from datasets.tasks.classification import Classification
from datasets.tasks.segmentation import Segmentation
from registry import Member, Norm, Randomness, ThreatModel, linf
from results.adversarials import EXACT, pack, unpack
from tests.toys import Linear, NoisyInput, attack, batch_for, cnn, images, linear, protocol_of

APGD = Member(name="apgd", attack="attacks.apgd:APGD", options={"steps": 12}, objective="margin")


def check(victim: ModelVictim, batch: Batch, protocol, outcome, stored, adversarials) -> None:
    """Asserts that the stored file gives the outcome's scores and points, inside of the balls."""
    adversarials = unpack(pack(adversarials), "memory")
    ids, clean = batch.sample_ids.numpy(), outcome.clean_scores
    for index in adversarials.certified:
        found = stored.budgets[index]
        holding = adversarials.holding(ids, index)
        scores = clean.clone()
        for row in np.flatnonzero(holding >= 0):
            one = take(adversarials, [holding[row]])
            own = batch.take(slice(int(row), int(row) + 1))
            budget = protocol.budgets[int(one.budgets[0])]
            point = stored_points(one, own, balls(protocol.threat_model, budget, own))
            assert balls(protocol.threat_model, found.budget, own).contains(point).all()
            assert torch.equal(point, found.points[row : row + 1])
            scores[row] = torch.minimum(judge_scores(victim, own.with_inputs(point), FINAL)[0], clean[row])
        assert torch.equal(scores, found.scores)
        lowered = (found.scores < clean).numpy()
        assert (holding[lowered] >= 0).all()


@pytest.mark.parametrize("norm", [Norm.LINF, Norm.L2])
def test_a_binary_score_has_a_certificate_at_every_budget_and_is_kept_once(norm):
    model = cnn(3)
    batch = batch_for(model, images(10, shape=(1, 8, 8)), wrong=1)
    eps = (0.01, 0.03, 0.09) if norm is Norm.LINF else (0.05, 0.2, 0.6)
    protocol = protocol_of(APGD, eps=eps, norm=norm)
    outcome = attack(model, batch, protocol)
    victim = ModelVictim(model, Classification(3), slots=8)
    stored, adversarials = certify(victim, batch, protocol, outcome, linf(4 / 255))
    assert adversarials.certified == (0, 1, 2)
    assert [b.scores.tolist() for b in stored.budgets] == [b.scores.tolist() for b in outcome.budgets]
    assert 0 < len(adversarials) == len(set(adversarials.sample_ids.tolist()))
    assert [b.found_by for b in stored.budgets] == [b.found_by for b in outcome.budgets]
    assert (adversarials.levels == 1).any()
    check(victim, batch, protocol, outcome, stored, adversarials)


def test_what_no_coarse_form_reaches_is_kept_exactly():
    """A sample is lost only within 1e-7 of one point that no number of steps meets."""

    class Needle(nn.Module):
        def forward(self, inputs):
            hit = ((inputs - 0.512345678).abs() < 1e-7).flatten(1).all(1)
            return torch.stack([1 - hit.float(), hit.float()], 1)

    batch = Batch(
        sample_ids=torch.tensor([4]), inputs=torch.full((1, 1, 2, 2), 0.5), targets={"label": torch.zeros(1).long()}
    )
    protocol = protocol_of(APGD, eps=(0.02,))
    outcome = attack(Needle(), batch, protocol)
    point = torch.full_like(batch.inputs, 0.512345678)
    found = replace(
        outcome.budgets[0], points=point, scores=torch.zeros(1), found_by=("apgd",), step=torch.ones(1).long()
    )
    victim = ModelVictim(Needle(), Classification(2), slots=4)
    stored, adversarials = certify(victim, batch, protocol, replace(outcome, budgets=(found,)), linf(0.02))
    assert adversarials.levels.tolist() == [EXACT] and torch.equal(stored.budgets[0].points, point)
    check(victim, batch, protocol, outcome, stored, adversarials)


def graded() -> tuple[nn.Module, Batch, Segmentation]:
    """Returns a brightness threshold as a segmenter, images and the masks that it gives them."""
    model = nn.Conv2d(1, 2, 1)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([-1.0, 1.0]).reshape(2, 1, 1, 1))
        model.bias.copy_(torch.tensor([0.5, -0.5]))
    inputs = images(6, shape=(1, 8, 8), low=0.4, high=0.6)
    with torch.no_grad():
        mask = model(inputs).argmax(1)
    return model.eval(), Batch(sample_ids=torch.arange(6), inputs=inputs, targets={"mask": mask}), Segmentation(2)


def test_a_graded_score_is_that_of_the_stored_adversarial_and_never_rises():
    model, batch, task = graded()
    protocol = protocol_of(replace(APGD, objective="soft-dice"), eps=(2 / 255, 4 / 255, 8 / 255))
    outcome = attack(model, batch, protocol, task=task)
    victim = ModelVictim(model, task, slots=8)
    stored, adversarials = certify(victim, batch, protocol, outcome, linf(4 / 255))
    assert adversarials.certified == (1,) and len(adversarials) == 6
    for new, old in zip(stored.budgets, outcome.budgets, strict=True):
        assert (new.scores <= old.scores).all()
    scores = torch.stack([b.scores for b in stored.budgets])
    assert (scores[1:] <= scores[:-1]).all()
    check(victim, batch, protocol, outcome, stored, adversarials)


def test_a_lower_stored_score_is_carried_to_larger_budgets_with_its_point():
    model, batch, task = graded()
    protocol = protocol_of(replace(APGD, objective="soft-dice"), eps=(4 / 255, 8 / 255))
    outcome = attack(model, batch, protocol, task=task)
    weak = replace(outcome.budgets[1], scores=outcome.clean_scores, points=batch.inputs, found_by=("",) * 6)
    weak = replace(outcome, budgets=(outcome.budgets[0], weak))
    stored, _ = certify(ModelVictim(model, task, slots=8), batch, protocol, weak, linf(4 / 255))
    assert torch.equal(stored.budgets[1].scores, stored.budgets[0].scores)
    assert torch.equal(stored.budgets[1].points, stored.budgets[0].points)
    assert set(stored.budgets[1].found_by) == {"apgd"}


def test_a_stochastic_victim_is_scored_on_the_final_draws_of_what_is_stored():
    model = NoisyInput(linear(2, shape=(1, 4, 4)), sigma=0.05, drop=0.0).eval()
    batch = batch_for(linear(2, shape=(1, 4, 4)), images(3))
    protocol = protocol_of(APGD, eps=(4 / 255, 0.1))
    outcome = attack(model, batch, protocol, slots=3, randomness=Randomness.SAMPLE)
    victim = ModelVictim(model, Classification(2), slots=3, randomness=Randomness.SAMPLE)
    before = victim.spent.forwards
    stored, adversarials = certify(victim, batch, protocol, outcome, linf(4 / 255))
    assert adversarials.certified == (0,) and len(adversarials) > 0
    assert victim.spent.forwards == before, "storing is no part of the effort"
    check(victim, batch, protocol, outcome, stored, adversarials)


def test_nobody_attacked():
    model = linear(2)
    batch = batch_for(model, images(3))
    outcome = replace(attack(model, batch, protocol_of(APGD)), budgets=())
    victim = ModelVictim(model, Classification(2), slots=4)
    assert certify(victim, batch, protocol_of(APGD), outcome, linf(4 / 255)) == (outcome, None)


def test_one_budget_for_each_modality():
    batch = Batch(
        sample_ids=torch.arange(4),
        inputs=images(4, shape=(2, 1, 4, 4)),
        targets={"label": torch.zeros(4, dtype=torch.int64)},
    )
    budget = replace(linf(0.1), eps=(0.1, 0.0))
    ball = balls(ThreatModel(), budget, batch)
    model = Linear(torch.cat([torch.ones(1, 32), -torch.ones(1, 32)]) * 0.01)
    protocol = replace(protocol_of(APGD), budgets=(budget,))
    points = ball.project(batch.inputs - 0.1)
    outcome = attack(model, batch, protocol)
    victim = ModelVictim(model, Classification(2), slots=4)
    found = replace(outcome.budgets[0], points=points, scores=judge_scores(victim, batch.with_inputs(points), FINAL))
    outcome = replace(outcome, clean_scores=torch.ones(4), budgets=(found,))
    stored, adversarials = certify(victim, batch, protocol, outcome, budget)
    assert set(adversarials.levels.tolist()) <= {1}
    assert torch.allclose(stored.budgets[0].points[found.scores < 1], points[found.scores < 1])
    assert torch.equal(stored.budgets[0].points[:, 1], batch.inputs[:, 1]), "the other modality is not attacked"
