"""The code for GPUs, followed on a CPU: in a classification cell nothing of a device meets a tensor of the host."""

import copy
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch
from torch import nn

from attacks import standard_ensemble
from attacks.engine import run_protocol
from attacks.soundness import comparisons, convergence, escalation, witness
from attacks.soundness.examination import examine
from benchmark.access import Subject, access_to
from benchmark.stored_adversarials import certify
from benchmark.summary import Summary
from datasets.tasks.classification import Classification
from registry import DATASETS, PROTOCOLS, Randomness, load_entries
from tests.device_tracker import DeviceTracker, on_device
from tests.toys import NoisyInput, Quantise, batch_for, cnn, images

SHORT = {
    comparisons: {"RESTARTS": 2, "STEPS": 4, "NOISE_QUERIES": 4},
    convergence: {"MOST_DRAWS": 2},
    witness: {"MOST_SHIFTS": 16},
    escalation: {"VIEW_STEPS": 4, "LONGER": 2, "QUERIES": 12, "DECISIONS": 40, "ESTIMATES": 2, "MOST_DRAWS": 4},
}
EFFORT = {"steps": 4, "restarts": 2, "fab": 4, "queries": 12, "segmentation_queries": 10}


@pytest.fixture(autouse=True)
def short_runs(monkeypatch):
    """Few steps of everything: only devices are looked at."""
    for module, values in SHORT.items():
        for name, value in values.items():
            monkeypatch.setattr(module, name, value)
    monkeypatch.setattr(standard_ensemble, "EFFORTS", dict.fromkeys(standard_ensemble.EFFORTS, EFFORT))


MODELS = {
    "plain": (lambda: cnn(2), Randomness.NONE),
    "rounded": (lambda: nn.Sequential(Quantise(4), cnn(2)), Randomness.NONE),
    "noisy": (lambda: NoisyInput(cnn(2), 0.05), Randomness.SAMPLE),
}


@pytest.mark.parametrize(
    ("name", "protocol"), [*product(MODELS, ["standard"]), ("plain", "standard:l2"), ("plain", "standard:l0")]
)
def test_a_whole_cell_stays_on_its_device(name, protocol):
    load_entries()
    make, randomness = MODELS[name]
    spec, rules = DATASETS["phantom2"], PROTOCOLS[protocol]
    ranked = rules.ranked_budget or spec.ranked_budget
    rules = replace(rules, budgets=(ranked,))
    batch = batch_for(cnn(2), images(5, shape=(1, 8, 8)))
    for tensor in (batch.inputs, batch.sample_ids, *batch.targets.values()):
        on_device(tensor)
    subject = Subject(
        model=on_device(make()),
        task=Classification(2),
        spec=spec,
        randomness=randomness,
        twin=on_device(cnn(2, seed=1)),
    )
    with DeviceTracker() as tracker:
        access, facts = access_to(subject, batch, rules, slots=512, seed=0)
        outcome = run_protocol(access, batch, rules, facts)
        outcome, findings, _ = examine(access, batch, rules, facts, outcome)
        outcome, _ = certify(access.victim, batch, rules, outcome, ranked)
        Summary(access.victim, batch, spec, outcome)
    assert findings
    assert sorted(set(tracker.mismatches)) == []


def test_the_tracker_sees_what_would_fail_on_a_gpu():
    inputs = on_device(torch.rand(4, 3))
    with DeviceTracker() as tracker:
        inputs + torch.ones(4, 1)
        torch.arange(4)[inputs[:, 0].argsort()]
        inputs.cpu() * inputs
        inputs.numpy()
        np.asarray(inputs)
        inputs + torch.as_tensor([[1.0]] * 4)
        inputs[inputs > 0.5] = torch.ones(int((inputs > 0.5).sum()))
        copy.deepcopy(on_device(nn.Linear(3, 2)))(torch.ones(1, 3))
    assert len(tracker.mismatches) == 8
    with DeviceTracker() as tracker:
        inputs + torch.ones(4, 1, device=inputs.device)
        inputs[torch.arange(4)]
        inputs.cpu().numpy()
        inputs[0] = 1.0
        inputs * torch.tensor(2.0)
        inputs.cpu() + torch.ones(3)
        torch.ones(3).to(inputs.device) + inputs
    assert tracker.mismatches == []
