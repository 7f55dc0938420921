"""Detectors: what is rejected does not count as broken, false alarms do, and the attack aims at both parts."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from attacks.engine import run_protocol
from attacks.objectives import objective_for
from attacks.objectives.classification import DetectorMargin, DetectorTargetedMargin
from attacks.victim import Access, ModelVictim
from datasets.batch import Batch, Dataset, Split
from datasets.tasks.base import task_for
from datasets.tasks.detector import DetectorClassification
from defenses.detectors.feature_squeezing import FeatureSqueezing
from defenses.recipes.threshold import train
from defenses.transforms import BitDepth
from registry import AttackProtocol, CellFacts, DefenseEntry, Family, Member, Randomness, ThreatModel, linf
from registry.errors import InvalidEntryError, ModelContractError
from tests.synthetic_records import make_dataset

TASK = DetectorClassification(2)
EPS = 0.25


class Toy(nn.Module):
    """Two pixels: their sum decides the class, the second one far from the middle is rejected."""

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        first, second = inputs.flatten(1).unbind(1)
        logits = torch.stack([torch.zeros_like(first), 8 * (first + second - 1)], 1)
        rejection = logits.amax(1) + 10 * ((second - 0.5).abs() - 0.1)
        return torch.cat([logits, rejection[:, None]], 1)


def batch_of(*pixels: tuple[float, float], label: int = 0) -> Batch:
    inputs = torch.tensor(pixels, dtype=torch.float32).reshape(-1, 1, 1, 2)
    labels = torch.full((len(inputs),), label, dtype=torch.int64)
    return Batch(sample_ids=torch.arange(len(inputs)), inputs=inputs, targets={"label": labels})


def attacked(batch: Batch, objective: str, options: dict) -> torch.Tensor:
    """Returns the scores under one gradient attack."""
    member = Member(name="pgd", attack="attacks.gradient:PGD", options=options, objective=objective)
    protocol = AttackProtocol(
        name="toy",
        title="One attack",
        threat_model=ThreatModel(),
        budgets=(linf(EPS),),
        tasks=("classification",),
        members=lambda facts, budget: (member,),
    )
    victim = ModelVictim(Toy(), TASK, slots=4)
    access = Access(victim=victim, search=victim)
    batch = TASK.mark(victim.outputs(batch), batch)
    outcome = run_protocol(access, batch, protocol, CellFacts(task="classification", n_classes=2))
    return outcome.budgets[0].scores


def test_an_attack_that_is_detected_does_not_count_and_the_joint_one_wins():
    batch = batch_of((0.30, 0.50), (0.28, 0.52), (0.33, 0.48))
    one_corner = {"steps": 3, "step_size": 1.0, "random_start": False}
    small = {"steps": 60, "step_size": 0.1, "random_start": False}
    corner = batch.with_inputs(batch.inputs + EPS)
    assert (Toy()(corner.inputs)[:, 1] > 0).all()  # the classifier alone is fooled at the corner
    assert attacked(batch, "cross-entropy", one_corner).tolist() == [1, 1, 1]  # and the detector is not
    assert attacked(batch, "margin", small).tolist() == [0, 0, 0]


def test_the_classifiers_attack_stays_detected_with_small_steps_from_beyond_the_threshold():
    """Both attacks take the same steps; only what they ascend differs."""
    batch = batch_of((0.26, 0.58))  # two steps of the classifier's gradient lead it past the threshold
    small = {"steps": 60, "step_size": 0.1, "random_start": False}
    assert attacked(batch, "cross-entropy", small).tolist() == [1]
    assert attacked(batch, "detector-margin", small).tolist() == [0]


def test_a_false_alarm_is_wrong_whatever_happens_to_it():
    batch = batch_of((0.30, 0.50), (0.30, 0.62))  # the second one is rejected unchanged
    outputs = Toy()(batch.inputs)
    clean = TASK.score(TASK.decode(outputs, batch), batch)
    marked = TASK.mark(outputs, batch)
    assert clean.tolist() == [1, 0] and TASK.score(TASK.decode(outputs, marked), marked).tolist() == [1, 0]
    moved = marked.with_inputs(torch.tensor([[[[0.3, 0.9]]], [[[0.3, 0.5]]]]))  # rejected; classified right again
    assert TASK.score(TASK.decode(Toy()(moved.inputs), moved), moved).tolist() == [1, 0]
    facts = TASK.facts(TASK.decode(outputs, batch), batch)
    assert facts["prediction"].tolist() == [0, 2] and facts["probabilities"].shape == (2, 2)
    assert TASK.corpus_metrics(facts)["rejected"] == 0.5


def test_the_joint_margin_is_the_smaller_of_both_leads():
    batch = batch_of((0.1, 0.5), (0.1, 0.5), (0.1, 0.5))
    logits = torch.tensor([[1.0, 3.0, 2.5], [1.0, 3.0, -9.0], [4.0, 1.0, 0.0]])
    progress = torch.zeros(3)
    assert DetectorMargin(TASK)(logits, batch, progress).tolist() == [0.5, 2.0, -3.0]
    assert DetectorMargin(TASK)(logits[:, :2], batch, progress).tolist() == [2.0, 2.0, -3.0]  # a twin never rejects
    targeted = DetectorTargetedMargin(TASK)
    aimed = targeted.aim(logits, batch, torch.tensor([0, 1, 2]))
    assert aimed.targets["goal"].tolist() == [1, 1, 1]  # never the rejection
    assert targeted(logits, aimed, progress).tolist() == [0.5, 2.0, -3.0]
    assert isinstance(objective_for(TASK, "margin"), DetectorMargin)
    assert not isinstance(objective_for(task_for(make_dataset()), "margin"), DetectorMargin)


def test_a_detector_returns_one_logit_more_than_classes():
    batch = batch_of((0.3, 0.5))
    TASK.check_outputs(torch.zeros(1, 3), batch)
    with pytest.raises(ModelContractError, match="one for rejection"):
        TASK.check_outputs(torch.zeros(1, 2), batch)
    with pytest.raises(InvalidEntryError, match="one label"):
        task_for(make_dataset(task="segmentation"), detects=True)
    with pytest.raises(InvalidEntryError, match="ranks=False"):
        entry(ranks=True)
    with pytest.raises(InvalidEntryError, match="randomness"):
        entry(ranks=False, randomness=Randomness.SAMPLE)
    assert entry(ranks=False).detects


def entry(**fields) -> DefenseEntry:
    fixed = {"name": "D", "summary": "d", "family": Family.DETECTION, "tasks": ("classification",), "build": Toy}
    return DefenseEntry(**fixed, base="Undefended", **fields)


class Linear(nn.Module):
    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        value = inputs.flatten(1).sum(1)
        return torch.stack([torch.zeros_like(value), 5 * (value - 0.5)], 1)


def test_feature_squeezing_rejects_exactly_above_the_threshold_that_five_in_a_hundred_exceed():
    values = torch.rand(100, generator=torch.Generator().manual_seed(0)).reshape(-1, 1, 1, 1)
    split = Split(images=values.numpy(), targets={"label": np.zeros(100, dtype=np.int64)})
    spec = make_dataset(input_shape=(1, 1, 1))
    model = FeatureSqueezing(Linear(), (BitDepth(1),))
    assert not (model(values).argmax(1) == 2).any()  # before its threshold is fixed
    training = train(model, Dataset(spec=spec, splits={"val": split}, sha256=""), {}, seed=0, device="cpu")
    rejected = model(values).argmax(1) == 2
    assert torch.equal(rejected, model.detection_score(values) > model.threshold)
    assert int(rejected.sum()) == 5 and training.curve[0]["val_false_alarms"] == 0.05
    first = float(values[0])  # worked by hand: one bit rounds to 0 or 1
    p, q = (1 / (1 + np.exp(-5 * (value - 0.5))) for value in (first, round(first)))
    assert float(model.detection_score(values)[0]) == pytest.approx(2 * abs(p - q), rel=1e-4)


def test_the_threshold_is_saved_with_the_weights():
    model = FeatureSqueezing(Linear(), (BitDepth(5),))
    model.threshold.fill_(0.3)
    other = FeatureSqueezing(Linear(), (BitDepth(5),))
    other.load_state_dict(model.state_dict())
    assert float(other.threshold) == pytest.approx(0.3)
