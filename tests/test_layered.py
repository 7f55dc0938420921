"""Defenses of several parts: what they show to attackers is attacked, and counts only through the whole."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from attacks.engine import run_protocol
from attacks.objectives import objective_for
from attacks.soundness.views import BPDA, TRUE, all_views, first_view
from attacks.standard_ensemble import members
from benchmark.access import Subject, access_to
from benchmark.obstacles import suit_obstacle
from datasets.tasks.classification import Classification, MultiLabelClassification
from defenses.stages import declared_stages, hidden_stages
from registry import (
    PROTOCOLS,
    AttackProtocol,
    Budget,
    CellFacts,
    DatasetSpec,
    DefenseEntry,
    Family,
    Member,
    Need,
    Norm,
    Randomness,
    Recipe,
    ThreatModel,
    linf,
    load_entries,
)
from tests.toys import Linear, Quantise, batch_for, images, linear

SPEC = DatasetSpec(
    name="toy",
    title="Toy",
    task="classification",
    input_shape=(1, 4, 4),
    class_names=("a", "b", "c"),
    splits={"train": 1, "val": 1, "test": 12},
    license="none",
    citation="none",
    reader="m:read",
)
AIMED = Member(
    name="features",
    attack="attacks.apgd:APGD",
    options={"steps": 10},
    objective="feature-distance",
    source=Need.MECHANISM,
)
BARE = Member(name="bare", attack="attacks.apgd:APGD", options={"steps": 10}, objective="margin", source=Need.BARE)


class Shrink(nn.Module):
    """A purifier with a true gradient: pulls every value towards grey."""

    differentiable = True

    def forward(self, inputs):
        return 0.5 + 0.5 * (inputs - 0.5)

    def bpda_twin(self, inputs):
        return inputs


class Purified(nn.Module):
    """A network behind a purifier, which shows both to attackers."""

    def __init__(self, net):
        super().__init__()
        self.purifier, self.net = Shrink(), net

    def forward(self, inputs):
        return self.net(self.purifier(inputs))

    def bare(self):
        return self.net

    def mechanism(self):
        return nn.Sequential(self.purifier, nn.Flatten())


def purified() -> tuple[Purified, Linear]:
    net = linear(3)
    return Purified(net).eval(), net


def cell(model, *ensemble):
    batch = batch_for(model, images(12))
    rules = AttackProtocol(
        name="toy",
        title="Toy",
        threat_model=ThreatModel(),
        budgets=(linf(0.2),),
        tasks=("classification",),
        members=lambda facts, at: ensemble,
    )
    subject = Subject(model=model, task=Classification(3), spec=SPEC)
    return batch, rules, *access_to(subject, batch, rules, slots=16, seed=0)


def test_a_purifier_with_a_true_gradient_is_a_stage_that_hides_nothing():
    model = nn.Sequential(Shrink(), Quantise(), nn.Flatten())
    assert declared_stages(model) == ("0", "1")
    assert hidden_stages(model) == ("1",)


def test_what_a_model_shows_becomes_a_surrogate_and_a_fact():
    model, net = purified()
    batch, _, access, facts = cell(model)
    assert facts.has_bare and facts.has_mechanism and facts.stages == ("purifier",) and facts.hidden_stages == ()
    assert torch.equal(access.source("bare").outputs(batch), net(batch.inputs))
    assert access.source("mechanism").outputs(batch).shape == (12, 16)
    assert first_view(access, facts).name == TRUE
    assert not any(view.source == Need.MECHANISM for view in all_views(access, batch))
    _, _, access, facts = cell(nn.Sequential(Quantise(), net).eval())
    assert not facts.has_bare and not facts.has_mechanism and first_view(access, facts).name == BPDA


@pytest.mark.parametrize("member", [AIMED, BARE], ids=lambda member: member.name)
def test_attacks_on_the_parts_are_scored_through_the_whole(member):
    model, _ = purified()
    batch, rules, access, facts = cell(model, member)
    outcome = run_protocol(access, batch, rules, facts).budgets[0]
    (done,) = outcome.members
    assert done.errors == 0 and done.broken > 0
    wrong = model(outcome.points).argmax(1) != batch.targets["label"]
    assert torch.equal(outcome.scores == 0, wrong)


def test_the_l0_attack_on_features_leaves_the_original():
    """There the distance is flat: its only run would end at once."""
    load_entries()
    facts = CellFacts(task="classification", n_classes=3, has_mechanism=True)
    budget = Budget(norm=Norm.L0, eps=5)
    (member,) = (m for m in PROTOCOLS["standard:l0"].ensemble(facts, budget) if m.name == "pgd0-features")
    model, _ = purified()
    batch, rules, access, facts = cell(model, member)
    rules = replace(rules, threat_model=ThreatModel(norm=Norm.L0), budgets=(budget,))
    (done,) = run_protocol(access, batch, rules, facts).budgets[0].members
    assert done.errors == done.unmoved == 0 and done.broken > 0


def test_features_need_not_look_like_outputs():
    """Several labels are compared one by one, and 16 features are not 3 labels."""
    model, _ = purified()
    batch, rules, *_ = cell(model, AIMED)
    task, labels = MultiLabelClassification(3), (model(batch.inputs) > 0).to(torch.float32)
    subject = Subject(model=model, task=task, spec=SPEC)
    batch = batch.with_target("labels", labels).with_target("weights", torch.ones_like(labels))
    access, facts = access_to(subject, batch, rules, slots=16, seed=0)
    (found,) = run_protocol(access, batch, rules, facts).budgets
    assert found.members[0].errors == 0 and (found.scores < 1).any()


def test_feature_distance_is_the_squared_distance_from_the_features_of_the_originals():
    aim = objective_for(Classification(3), "feature-distance")
    batch = batch_for(linear(3), images(2))
    batch = aim.aim(torch.tensor([[1.0, 2.0], [0.0, 0.0]]), batch, torch.zeros(2))
    found = aim(torch.tensor([[1.0, 5.0], [3.0, 4.0]]), batch, torch.zeros(2))
    assert found.tolist() == [9.0, 25.0]


def test_the_ranking_ensemble_attacks_the_parts_only_where_they_are_shown():
    plain = CellFacts(task="classification", n_classes=2)
    layered = CellFacts(task="classification", n_classes=2, has_bare=True, has_mechanism=True)
    noisy = CellFacts(task="classification", n_classes=2, has_mechanism=True, randomness=Randomness.SAMPLE)
    budget = linf(8 / 255)
    names = {member.name for member in members(plain, budget)}
    assert {member.name for member in members(layered, budget)} - names == {"transfer-bare", "apgd-features"}
    (aimed,) = [member for member in members(noisy, budget) if member.name == "apgd-features"]
    assert aimed.options["eot_samples"] >= 4


def test_a_protocol_for_a_family_leaves_others_out_with_a_reason():
    load_entries()
    protocol = PROTOCOLS["adaptive:purifier"]

    def entry(family):
        options = {"tasks": ("classification",), "build": "m:b", "recipe": Recipe(train="m:t")}
        return DefenseEntry(name="Toy", summary="Toy", family=family, **options)

    assert suit_obstacle(protocol, entry(Family.PURIFICATION)) is None
    assert "made for purification" in suit_obstacle(protocol, entry(Family.REGULARISATION)).reason
