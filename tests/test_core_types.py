"""The core types carry every task: the engine runs end to end on toy detection, landmarks and modalities."""

from dataclasses import replace

import pytest
import torch

from attacks.objectives import OBJECTIVES
from attacks.victim import ModelVictim
from datasets.batch import Batch, concatenate
from datasets.tasks.base import Task
from registry import Budget, Member, Norm, Randomness
from registry.errors import InputContractError
from tests.toy_tasks import (
    Detection,
    Detector,
    HeatMaps,
    Landmark,
    Multimodal,
    TrainingLoss,
    detection_batch,
    landmark_batch,
    multimodal_batch,
)
from tests.toys import NoisyInput, attack, batch_for, images, linear, protocol_of, shuffled

PGD = Member(name="pgd", attack="attacks.gradient:PGD", options={"steps": 8}, objective="toy")
SQUARE = Member(name="square", attack="attacks.square:Square", options={"queries": 20}, objective="toy")


def cases():
    fusion, modalities = multimodal_batch(11)
    return {
        "detection": (Detector().eval(), Detection(), detection_batch(11), 0.2),
        "landmark": (HeatMaps().eval(), Landmark(), landmark_batch(11), 0.08),
        "multimodal": (fusion, Multimodal(3), modalities, 0.05),
    }


@pytest.fixture(params=list(cases()))
def case(request, monkeypatch):
    monkeypatch.setitem(OBJECTIVES, request.param, {"toy": TrainingLoss})
    return cases()[request.param]


def test_toy_tasks_are_tasks(case):
    assert isinstance(case[1], Task)


def test_the_engine_runs_end_to_end(case):
    model, task, batch, eps = case
    outcome = attack(model, batch, protocol_of(PGD, SQUARE, eps=(0.0, eps)), task=task, slots=4)
    none, some = outcome.budgets
    assert [m.errors + m.violations for b in outcome.budgets for m in b.members] == [0, 0, 0, 0]
    assert outcome.clean_scores.shape == (11,)
    assert outcome.clean_scores.mean() > 0.9
    assert torch.equal(none.scores, outcome.clean_scores)
    assert torch.equal(none.points, batch.inputs)
    assert some.scores.mean() < outcome.clean_scores.mean() - 0.1
    assert (some.points - batch.inputs).abs().max() <= eps + 1e-6
    rescored = ModelVictim(model, task, slots=4)
    found = task.score(task.decode(rescored.outputs(batch.with_inputs(some.points)), batch), batch)
    assert torch.equal(found, some.scores)
    assert all(len(values) == 11 for values in task.facts(task.decode(rescored.outputs(batch), batch), batch).values())


def test_order_does_not_change_a_verdict(case):
    model, task, batch, eps = case
    protocol = protocol_of(PGD, SQUARE, eps=(eps,))
    plain = attack(model, batch, protocol, task=task, slots=4).budgets[0]
    other, back = shuffled(batch, 5)
    mixed = attack(model, other, protocol, task=task, slots=4).budgets[0]
    assert torch.equal(mixed.scores[back], plain.scores)
    assert torch.equal(mixed.points[back], plain.points)


def test_padded_boxes_never_count():
    task, batch = Detection(), detection_batch(4)
    outputs = Detector()(batch.inputs)
    moved = {**batch.targets, "boxes": batch.targets["boxes"].clone()}
    moved["boxes"][:, 1] = outputs["boxes"][:, 0]  # on top of the prediction, but not valid
    other = Batch(sample_ids=batch.sample_ids, inputs=batch.inputs, targets=moved)
    predictions = task.decode(outputs, batch)
    assert torch.equal(task.score(predictions, batch), torch.ones(4))
    assert torch.equal(task.score(predictions, other), torch.ones(4))


def test_each_modality_has_a_budget_of_its_own(monkeypatch):
    monkeypatch.setitem(OBJECTIVES, "multimodal", {"toy": TrainingLoss})
    model, batch = multimodal_batch(7)
    protocol = protocol_of(PGD, eps=(0.05,))
    object.__setattr__(protocol, "budgets", (Budget(norm=Norm.LINF, eps=(0.05, 0.0)),))
    points = attack(model, batch, protocol, task=Multimodal(3)).budgets[0].points
    change = (points - batch.inputs).abs().amax((0, 2, 3, 4))
    assert 0 < change[0] <= 0.05 + 1e-6
    assert change[1] == 0


def test_one_modality_can_be_attacked_alone(monkeypatch):
    monkeypatch.setitem(OBJECTIVES, "multimodal", {"toy": TrainingLoss})
    model, batch = multimodal_batch(7)
    outcome = attack(model, batch, protocol_of(PGD, eps=(0.3,), support="modality:1"), task=Multimodal(3))
    change = (outcome.budgets[0].points - batch.inputs).abs().flatten(2).amax(2)
    assert change[:, 0].max() == 0
    assert change[:, 1].max() > 0
    lacks = ~batch.present[:, 1]
    assert torch.equal(outcome.budgets[0].scores[lacks], torch.ones(int(lacks.sum())))  # the model never looks there


def test_context_and_present_reach_the_model():
    model, batch = multimodal_batch(6)
    victim = ModelVictim(model, Multimodal(3), slots=4)
    with torch.no_grad():
        expected = model(batch.inputs, context=batch.context, present=batch.present)
    assert torch.allclose(victim.outputs(batch), expected)
    blind = replace(batch, present=torch.zeros_like(batch.present))
    assert torch.allclose(victim.outputs(blind), batch.context @ model.context_weight.T, atol=1e-6)


def test_a_stochastic_victim_goes_through_the_same_engine():
    base = linear(2)
    batch = batch_for(base, images(9))
    member = Member(name="apgd", attack="attacks.apgd:APGD", options={"steps": 6, "eot_samples": 2}, objective="margin")
    outcome = attack(NoisyInput(base), batch, protocol_of(member, eps=(0.1,)), randomness=Randomness.SAMPLE)
    assert ((outcome.clean_scores * 100).round() / 100 - outcome.clean_scores).abs().max() < 1e-6  # mean of 100 draws
    assert outcome.budgets[0].scores.mean() < outcome.clean_scores.mean()


@pytest.mark.parametrize("build", [lambda: detection_batch(6), lambda: multimodal_batch(6)[1]])
def test_batches_are_cut_and_joined_with_all_they_carry(build):
    batch = build()
    joined = concatenate([batch.take(slice(0, 2)), batch.take(torch.tensor([2, 3])), batch.take(slice(4, 6))])
    for name in batch.targets:
        assert torch.equal(joined.targets[name], batch.targets[name])
    for name in ("sample_ids", "inputs", "context", "present"):
        first, second = getattr(joined, name), getattr(batch, name)
        assert first is second is None or torch.equal(first, second)


def test_a_batch_refuses_targets_of_another_length():
    with pytest.raises(InputContractError, match="expected 2 rows of 'label'"):
        Batch(sample_ids=torch.arange(2), inputs=torch.zeros(2, 1, 2, 2), targets={"label": torch.zeros(3)})
