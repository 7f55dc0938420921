"""Probes beyond two labels of one draw: other norms, random weights, noise, graded scores, targets, stand-ins."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from attacks.ball import ball_for
from attacks.judging import FINAL, judge_scores
from attacks.soundness.audit import audit
from attacks.soundness.comparisons import Comparisons, clear_gap
from attacks.soundness.convergence import not_converged
from attacks.soundness.fresh import Cell, run_fresh
from attacks.soundness.views import TRUE, View
from attacks.standard_ensemble import members
from attacks.victim import ModelVictim
from datasets.tasks.classification import Classification
from registry import CellFacts, Member, Norm, Randomness, ThreatModel, linf
from registry.threat_model import Budget
from tests.soundness_toys import SHAPE, cell, flat_linear
from tests.toys import RandomWeights, attack, batch_for, cnn, images, linear, protocol_of

LINEAR = linear(3, shape=SHAPE)


class Wobbling(nn.Module):
    """Random weights, and something that honest ones have not."""

    def __init__(self, fault: str) -> None:
        super().__init__()
        self.base, self.fault, self.calls = RandomWeights(LINEAR, 0.02), fault, 0
        self.offset = nn.Parameter(torch.zeros(3))

    def forward(self, inputs: Tensor) -> Tensor:
        outputs = self.base(inputs)
        if self.fault == "counter":
            self.calls += 1
            return outputs + 5 * (self.calls % 2)
        if self.fault == "batch mean":
            return outputs - outputs.mean(0, keepdim=True)
        self.offset.data += 1.0
        return outputs


class Dropping(nn.Dropout):
    """Dropout that stays on, as Monte-Carlo dropout does."""

    def train(self, mode: bool = True) -> Dropping:
        return super().train(True)


def red_flags(model, *, randomness=Randomness.NONE, norm=Norm.LINF, eps=8 / 255):
    batch = batch_for(LINEAR, images(40, shape=SHAPE))
    victim = ModelVictim(model.eval(), Classification(3), slots=16, randomness=randomness)
    ball = ball_for(ThreatModel(norm=norm), Budget(norm=norm, eps=eps), batch.inputs)
    findings = audit(victim, batch, judge_scores(victim, batch, FINAL), ball, "margin")
    return {finding.name for finding in findings if finding.red}


@pytest.mark.parametrize("eps", [0.25, 1.0])
def test_an_honest_model_is_honest_in_l2(eps):
    """A sign step is eps in every pixel there, far out of the ball."""
    model = cnn(3)
    batch = batch_for(model, images(40, shape=SHAPE))
    victim = ModelVictim(model, Classification(3), slots=16)
    ball = ball_for(ThreatModel(norm=Norm.L2), Budget(norm=Norm.L2, eps=eps), batch.inputs)
    findings = {f.name: f for f in audit(victim, batch, judge_scores(victim, batch, FINAL), ball, "margin")}
    assert not findings["dishonest-gradient"].red, findings["dishonest-gradient"].evidence
    assert findings["dishonest-gradient"].values["eps/4"] > 0.6


@pytest.mark.parametrize("fault", ["counter", "batch mean", "parameter"])
def test_declared_random_weights_hide_no_state(fault):
    assert "stateful" in red_flags(Wobbling(fault), randomness=Randomness.MODEL)


def test_honest_random_weights_have_no_state():
    assert "stateful" not in red_flags(RandomWeights(LINEAR, 0.02), randomness=Randomness.MODEL)


def test_dropout_may_stay_on_where_noise_is_declared():
    model = nn.Sequential(Dropping(0.1), LINEAR)
    assert "train-mode" in red_flags(model)
    assert "train-mode" not in red_flags(model, randomness=Randomness.SAMPLE)
    norm = nn.Sequential(nn.BatchNorm2d(1), LINEAR)
    norm.eval()
    norm[0].train = lambda mode=True: norm[0]
    norm[0].training = True
    assert "train-mode" in red_flags(norm, randomness=Randomness.SAMPLE)


class Plateau(nn.Module):
    """Two logits that follow one pixel's distance to 0.5 up to a wall, behind which they are flat and right again."""

    def forward(self, inputs: Tensor) -> Tensor:
        value = inputs.flatten(1)[:, 0] - 0.5
        lost = torch.where(value < 0.035, value, torch.full_like(value, -0.01))
        return torch.stack([0.015 - lost, torch.zeros_like(lost)], 1)


def test_a_row_that_stepped_onto_a_plateau_goes_back():
    """Auto-PGD begins with 2 eps: in a corner on the plateau, where the next point is the same."""
    batch = batch_for(Plateau(), torch.full((6, 1, 2, 2), 0.5))
    member = Member(name="apgd", attack="attacks.apgd:APGD", options={"steps": 100, "restarts": 3}, objective="margin")
    outcome = attack(Plateau(), batch, protocol_of(member, eps=(0.04,)))
    assert outcome.budgets[0].scores.max() == 0


def test_a_view_aims_at_every_target_and_follows_noise_with_momentum():
    view = View(name=TRUE, access=None, eot_samples=4)
    several = view.members(CellFacts(task="classification", n_classes=7), ("margin", "targeted-margin"), 20, 1)
    assert [(m.objective, m.options["restarts"]) for m in several] == [("margin", 1), ("targeted-margin", 6)]
    noisy = CellFacts(task="classification", n_classes=2, randomness=Randomness.SAMPLE)
    attacks = [member.attack for member in view.members(noisy, ("margin",), 20, 1)]
    assert attacks == ["attacks.apgd:APGD", "attacks.momentum:MIM"]


def test_stages_that_hide_their_gradient_meet_auto_pgd_through_their_stand_in():
    hidden = CellFacts(
        task="classification", n_classes=7, stages=("round",), hidden_stages=("round",), ranked_budget=linf(8 / 255)
    )
    through = {m.name: m for m in members(hidden, linf(8 / 255)) if m.backward == "bpda"}
    assert list(through) == ["pgd-bpda", "apgd-bpda", "apgd-targeted-bpda"]
    assert through["apgd-targeted-bpda"].options["restarts"] == 6
    shown = CellFacts(task="classification", n_classes=7, stages=("median",), ranked_budget=linf(8 / 255))
    assert [m.name for m in members(shown, linf(8 / 255)) if m.backward == "bpda"] == ["pgd-bpda"]


def test_the_doubling_meets_all_survivors_not_only_the_audited_ones():
    model = flat_linear()
    batch = batch_for(model, images(24, shape=SHAPE))
    weak = Member(name="weak", attack="attacks.random_search:RandomSearch", options={"queries": 1}, objective="margin")
    access, protocol, facts = cell(model, batch, members=(weak,))
    one = Cell(batch=batch, protocol=protocol, facts=facts, budget=facts.ranked_budget)
    rows = torch.arange(4)
    main = run_fresh(one, access, torch.arange(24), (weak,), salt=0)
    survivors = int((~main.broken).sum())
    outcome = SimpleNamespace(points=main.points, scores=main.scores, members=main.members)
    fresh = run_fresh(one, access, rows, (weak,), salt=1)
    view = View(name=TRUE, access=access)
    finding, runs = not_converged(one, view, ("margin",), rows, outcome, fresh, salt=0)
    truly = run_fresh(one, access, torch.arange(24), view.members(facts, ("margin",), 40, 1), salt=2)
    assert survivors > 8
    assert finding.red
    assert finding.values["n"] == 24
    assert finding.values["lowered"] == pytest.approx(float((main.scores - truly.scores).sum()), abs=1)
    assert len(runs[0][0]) > 4


def test_graded_scores_are_compared_by_how_low_they_are():
    scores = {"low": torch.full((20,), 0.80), "high": torch.full((20,), 0.90), "same": torch.full((20,), 0.895)}
    runs = {name: SimpleNamespace(scores=value, broken=value < 0.5) for name, value in scores.items()}
    some = Comparisons.__new__(Comparisons)
    some._rows = torch.arange(20)
    some._gap = clear_gap(CellFacts(task="segmentation", n_classes=2))
    assert some._compare(runs["low"], runs["high"]).red
    assert some._compare(runs["high"], runs["low"]).expected == 20
    assert (
        some._compare(runs["same"], runs["high"]).unexpected,
        some._compare(runs["same"], runs["high"]).p_value,
    ) == (0, 1)
    some._gap = clear_gap(CellFacts(task="classification", n_classes=2))
    assert not some._compare(runs["low"], runs["high"]).red
