"""Probes inside of the balls, and randomness that is declared but does not exist."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from attacks.ball import ball_for
from attacks.judging import FINAL, judge_scores
from attacks.soundness.answers import moved
from attacks.soundness.audit import audit
from attacks.victim import ModelVictim
from datasets.tasks.classification import Classification
from registry import Norm, Randomness, ThreatModel, linf
from registry.threat_model import Budget
from tests.soundness_toys import SHAPE, OffGrid
from tests.toys import BatchDependent, Counting, Detached, Linear, NoisyInput, RandomWeights, batch_for, images, linear

LINEAR = linear(3, shape=SHAPE)
WEIGHT = LINEAR.weight.detach()
STORED = batch_for(LINEAR, torch.round(images(40, shape=SHAPE) * 255) / 255)


class Backwards(nn.Module):
    """The right logits with a gradient of the wrong sign."""

    def forward(self, inputs: Tensor) -> Tensor:
        logits = (inputs.flatten(1) - 0.5) @ WEIGHT.to(inputs.dtype).T
        return 2 * logits.detach() - logits


class Drawing(nn.Module):
    """Draws noise and makes nothing of it."""

    def forward(self, inputs: Tensor) -> Tensor:
        torch.randn_like(inputs)
        return (inputs.flatten(1) - 0.5) @ WEIGHT.to(inputs.dtype).T


def red(model, randomness=Randomness.NONE):
    victim = ModelVictim(model.eval(), Classification(3), slots=16, randomness=randomness)
    ball = ball_for(ThreatModel(), linf(8 / 255), STORED.inputs)
    found = audit(victim, STORED, judge_scores(victim, STORED, FINAL), ball, "margin")
    return {finding.name: finding.evidence for finding in found if finding.red}


@pytest.mark.parametrize(
    ("other", "flags"),
    [
        (BatchDependent(LINEAR), {"stateful", "discontinuous"}),
        (Counting(LINEAR), {"stateful"}),
        (NoisyInput(LINEAR, 1e-3, 0.0), {"stochastic-undeclared", "stateful"}),
        (Detached(LINEAR), {"zero-gradient", "dishonest-gradient"}),
        (Backwards(), {"dishonest-gradient"}),
    ],
    ids=["batch", "counter", "noise", "detached", "backwards"],
)
def test_what_shows_inside_of_the_balls_alone_is_red(monkeypatch, other, flags):
    model = OffGrid(LINEAR, other)
    assert set(red(model)) == flags
    for module in ("answers", "gradient_probe"):
        monkeypatch.setattr(f"attacks.soundness.{module}.moved", lambda batch, ball: batch)
    continuity = {"discontinuous"}  # asked for a hair off the grid, not in a ball
    assert set(red(model)) == flags & continuity, "stored images alone do not show it"


def test_an_honest_model_is_honest_inside_of_the_balls():
    assert red(OffGrid(LINEAR, LINEAR)) == {}


@pytest.mark.parametrize(("norm", "eps"), [(Norm.LINF, 8 / 255), (Norm.L2, 0.5)])
def test_places_lie_in_the_ball_and_belong_to_their_samples(norm, eps):
    ball = ball_for(ThreatModel(norm=norm), Budget(norm=norm, eps=eps), STORED.inputs)
    points = moved(STORED, ball)
    assert ball.contains(points.inputs).all() and bool((points.inputs != STORED.inputs).flatten(1).any(1).all())
    rows = torch.tensor([7, 3])
    assert torch.equal(moved(STORED.take(rows), ball.take(rows)).inputs, points.inputs[rows])


@pytest.mark.parametrize("randomness", [Randomness.SAMPLE, Randomness.MODEL])
@pytest.mark.parametrize("model", [LINEAR, Drawing()], ids=["linear", "drawing"])
def test_declared_randomness_that_does_not_exist_is_red(model, randomness):
    found = red(model, randomness)
    assert set(found) == {"stochastic-undeclared"}
    assert f"declared as {randomness}, yet 4 draws give the same outputs bit for bit" in found["stochastic-undeclared"]


@pytest.mark.parametrize(
    ("model", "randomness"),
    [
        (NoisyInput(LINEAR, 1e-4, 0.0), Randomness.SAMPLE),
        (RandomWeights(LINEAR, 1e-4), Randomness.MODEL),
        (OffGrid(LINEAR, NoisyInput(LINEAR, 1e-3, 0.0)), Randomness.SAMPLE),
        (Linear(torch.zeros(3, 64)), Randomness.SAMPLE),
    ],
    ids=["sample", "model", "inside alone", "constant"],
)
def test_declared_randomness_that_exists_or_cannot_show_is_not(model, randomness):
    assert "stochastic-undeclared" not in red(model, randomness)


def test_no_noise_that_is_declared_as_none_is_not_red():
    assert red(NoisyInput(LINEAR, 0.0, 0.0)) == {}


def test_other_samples_have_other_places():
    ball = ball_for(ThreatModel(), linf(8 / 255), STORED.inputs)
    renamed = replace(STORED, sample_ids=STORED.sample_ids + 1)
    assert not torch.equal(moved(STORED, ball).inputs, moved(renamed, ball).inputs)
