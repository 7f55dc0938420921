"""Examination of trained models of the repository: honest ones raise nothing, a wrapped one is seen through."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from torch import nn

from attacks.engine import run_protocol
from attacks.soundness.examination import examine
from attacks.victim import Access, ModelVictim
from datasets.tasks.base import task_for
from defenses.build import defended_model
from registry import DATASETS, DEFENSES, PROTOCOLS, CellFacts, Member, load_entries
from tests.soundness_toys import Rounded

pytestmark = pytest.mark.slow

RANKED = {"phantom2": 40, "phantom4": 30, "phantomseg": 16}


def examined(dataset: str, defense: str, wrap=None):
    """Examines a model after a short ensemble at the ranked budget."""
    load_entries()
    data = DATASETS[dataset].load(Path("none"))
    batch = data.splits["test"].take(slice(0, RANKED[dataset]))
    model = defended_model(DEFENSES[defense], data.spec, 0, None)[0]
    task, budget = task_for(data.spec), data.spec.ranked_budget
    objective = "soft-dice" if data.spec.task == "segmentation" else "margin"
    options = {"steps": 20, "restarts": 2}
    member = Member(name="apgd", attack="attacks.apgd:APGD", options=options, objective=objective)
    protocol = replace(PROTOCOLS["standard"], budgets=(budget,), members=lambda facts, at: (member,), needs=frozenset())
    victim = ModelVictim((wrap(model) if wrap else model).eval(), task)
    access = Access(victim=victim, search=victim)
    facts = CellFacts(task=data.spec.task, n_classes=data.spec.n_classes, has_twin=False, ranked_budget=budget)
    outcome = run_protocol(access, batch, protocol, facts)
    return outcome, *examine(access, batch, protocol, facts, outcome)


@pytest.mark.parametrize("dataset", RANKED)
@pytest.mark.parametrize("defense", ["Undefended", "Madry2018PGDAT"])
def test_honest_models_raise_no_flag(dataset, defense):
    _, _, findings, escalation = examined(dataset, defense)
    assert {finding.name: finding.evidence for finding in findings if finding.red} == {}
    assert escalation is None


def test_rounding_in_front_of_a_trained_model_is_seen_through():
    outcome, after, _, escalation = examined("phantom2", "Undefended", lambda model: nn.Sequential(Rounded(), model))
    assert {"zero-gradient", "dishonest-gradient"} <= {flag.name for flag in escalation.flags}
    assert escalation.strongest.name == "BPDA"
    assert float(after.budgets[0].scores.mean()) < float(outcome.budgets[0].scores.mean()) - 0.3
