"""`jumping-margin`: what attacks ascend must follow the decision up to where the answer turns wrong."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from attacks.soundness.finding import Finding
from attacks.soundness.hidden_paths import has_stages
from attacks.soundness.jump import LIMIT, jump_finding
from attacks.victim import ModelVictim
from datasets.tasks.classification import Classification
from tests.soundness_toys import Decoy, Ramp, Scaled, Unlikely, WhereDark
from tests.toys import Quantise, batch_for, images, linear

SHAPE = (1, 6, 6)
BASE, OTHER = linear(2, shape=SHAPE), linear(2, shape=SHAPE, seed=7)
N = 60


def found(model: nn.Module, inputs: torch.Tensor | None = None) -> Finding:
    """Returns what the probe says of images that the base model labels."""
    batch = batch_for(BASE, images(N, shape=SHAPE) if inputs is None else inputs)
    with torch.no_grad():
        classes = model(batch.inputs[:1]).shape[1]
    victim = ModelVictim(model, Classification(classes), slots=32)
    outputs = victim.outputs(batch)
    rows = (outputs.argmax(1) == batch.targets["label"]).nonzero()[:, 0]
    return jump_finding(victim, batch, rows, outputs, slope=not has_stages(model))


def near(share: float) -> float:
    """Returns the level under which this share of the images is dark."""
    return float(images(N, shape=SHAPE).flatten(1).mean(1).quantile(share))


HONEST = {
    "linear": BASE,
    "large logits": Scaled(BASE, 1e4),
    "small logits": Scaled(BASE, 1e-4),
    "one more class": Unlikely(BASE),
    "rounded to 256 levels": nn.Sequential(Quantise(255), BASE),
}
DECOYS = {
    "at once": Decoy(BASE, OTHER),
    "on a ramp": Ramp(BASE, OTHER),
    "beside a class that nobody is": Unlikely(Decoy(BASE, OTHER)),
    "a fifth of the images, others with far larger logits": WhereDark(Decoy(BASE, OTHER), BASE, near(0.2)),
}


@pytest.mark.parametrize("name", HONEST)
def test_a_margin_that_follows_the_decision_does_not_jump(name):
    finding = found(HONEST[name])
    assert not finding.red and finding.values["share"] < LIMIT / 2, finding.evidence
    assert finding.values["n"] >= N / 2 and finding.values["jump"] < 0.1


@pytest.mark.parametrize("name", DECOYS)
def test_a_decision_behind_another_margin_jumps(name):
    finding = found(DECOYS[name])
    assert finding.red and finding.values["share"] >= LIMIT, finding.evidence


@pytest.mark.parametrize(("levels", "n"), [(1.5, N // 2), (3.0, N)])
def test_samples_at_the_boundary_are_left_out(levels, n):
    """Each image lies some grey levels off the boundary, and half of them meet their mirror image beyond it."""
    inputs = images(N, shape=SHAPE)[: N // 2].repeat_interleave(2, 0)
    weight = (BASE.weight[1] - BASE.weight[0]).detach()
    margins = (inputs.flatten(1) - 0.5) @ weight
    sides = torch.tensor([1.0, -1.0]).repeat(N // 2)
    beyond = margins / weight.abs().sum() - sides * levels / 255
    finding = found(BASE, inputs - beyond.reshape(-1, 1, 1, 1) * weight.sign().reshape(SHAPE))
    assert not finding.red and finding.values["n"] == n, finding.evidence
