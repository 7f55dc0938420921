"""Without any budget an attack on a stochastic control changes nothing: its score is the clean one, draw by draw."""

from dataclasses import replace

import pytest
import torch

from attacks.engine import run_protocol
from benchmark.access import Subject, access_to
from datasets.tasks.base import task_for
from defenses.build import defended_model
from registry import DATASETS, DEFENSES, PROTOCOLS, Member, Need, Randomness, linf, load_entries

STOCHASTIC = ("Cohen2019Smoothing", "ControlLogitNoise", "ControlResizePad")
APGD, MIM = "attacks.apgd:APGD", "attacks.momentum:MIM"
MEMBERS = (
    Member(name="apgd", attack=APGD, options={"steps": 4, "eot_samples": 2}, objective="margin"),
    Member(name="pooled", attack=MIM, options={"steps": 4, "eot_samples": 2}, objective="margin", pooled=True),
    Member(name="frozen", attack=APGD, options={"steps": 4}, objective="margin", source=Need.FROZEN_DRAW),
    Member(name="square", attack="attacks.square:Square", options={"queries": 8, "eot_samples": 2}, objective="margin"),
)


def test_every_stochastic_control_is_checked():
    load_entries()
    noisy = {entry.name for entry in DEFENSES if entry.truth is not None and entry.randomness is not Randomness.NONE}
    assert noisy == set(STOCHASTIC)


@pytest.mark.parametrize("name", STOCHASTIC)
def test_the_score_without_a_budget_is_the_clean_one(name):
    load_entries()
    data, entry = DATASETS["phantom2"].load(None), DEFENSES[name]
    model, _ = defended_model(entry, data.spec, 0, None)
    subject = Subject(model=model, task=task_for(data.spec), spec=data.spec, randomness=entry.randomness)
    batch = data.splits["test"].take(range(6))
    rules = replace(PROTOCOLS["standard"], budgets=(linf(0.0), linf(8 / 255)), members=lambda facts, budget: MEMBERS)
    access, facts = access_to(subject, batch, rules, slots=16, seed=0)
    outcome = run_protocol(access, batch, rules, facts)
    nothing, something = outcome.budgets
    assert not any(member.errors for member in nothing.members)
    assert torch.equal(nothing.points, batch.inputs)
    assert torch.equal(nothing.scores, outcome.clean_scores)
    assert not torch.equal(something.points, batch.inputs), "the same attacks do move points where they may"
