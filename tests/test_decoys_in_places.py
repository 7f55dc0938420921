"""Models that are honest where probes used to look: on ramps, off the grid, beside twins, in copies, in few pixels."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

from attacks.ball import ball_for
from attacks.soundness.audit import audit
from attacks.soundness.examination import examine
from attacks.soundness.jump import jump_finding
from attacks.victim import Access, ModelVictim
from datasets.tasks.classification import Classification
from registry import Budget, CellFacts, Member, Norm, ThreatModel, linf
from tests.toys import BatchDependent, attack, batch_for, cnn, images, linear, protocol_of

SHAPE = (1, 8, 8)
BASE, OTHER = linear(2, shape=SHAPE), linear(2, shape=SHAPE, seed=7)
N = 40


class GentleRamp(nn.Module):
    """The class is one model's, the lead another's, but near the boundary, where it falls evenly to nothing."""

    def __init__(self, band: float = 1.0) -> None:
        super().__init__()
        self.base, self.other, self.band = BASE, OTHER, band

    def forward(self, inputs):
        one, two = self.base(inputs), self.other(inputs)
        lead = one[:, 1] - one[:, 0]
        side = torch.where(lead > 0, 1.0, -1.0).to(inputs.dtype)
        ramp = (lead.abs() / self.band).clamp(max=1)
        height = nn.functional.softplus(4 + (two[:, 1] - two[:, 0]) * side) * ramp.detach()
        return torch.stack([-side * height / 2, side * height / 2], 1)


class Gridded(nn.Module):
    """One model on exact multiples of 1/255, as stored images are, another one everywhere else."""

    def __init__(self) -> None:
        super().__init__()
        self.base, self.other = BASE, OTHER

    def forward(self, inputs):
        stored = ((inputs.detach() * 255).round() / 255 == inputs.detach()).flatten(1).all(1)
        return torch.where(stored[:, None], self.base(inputs), self.other(inputs))


class NotCopied(nn.Module):
    """Knows which object it was made as, and answers otherwise in copies."""

    def __init__(self) -> None:
        super().__init__()
        self.base, self.other, self.born = BASE, OTHER, id(self)

    def forward(self, inputs):
        return (self.base if id(self) == self.born else self.other)(inputs)


class BesideATwin(nn.Module):
    """Answers as another model where a batch holds nearly the same image twice."""

    def __init__(self) -> None:
        super().__init__()
        self.base, self.other = BASE, OTHER

    def forward(self, inputs):
        apart = torch.cdist(inputs.flatten(1), inputs.flatten(1), p=torch.inf).detach()
        twin = (apart + torch.eye(len(inputs)).to(inputs) < 0.02).any(1)
        return torch.where(twin[:, None], self.other(inputs), self.base(inputs))


class NoPixels(nn.Module):
    """Has no gradient where a pixel stands out from the mean of its image."""

    def __init__(self) -> None:
        super().__init__()
        self.base = BASE

    def forward(self, inputs):
        logits = self.base(inputs)
        out = (inputs - inputs.mean((1, 2, 3), keepdim=True)).abs().flatten(1).amax(1) > 0.45
        return torch.where(out[:, None], logits.detach(), logits)


def stored(n: int = N) -> torch.Tensor:
    """Returns images as files hold them."""
    return (images(n, shape=SHAPE) * 255).round() / 255


def victim_of(model: nn.Module) -> ModelVictim:
    return ModelVictim(model.eval(), Classification(2), slots=32)


def audited(model: nn.Module, original: nn.Module | None = None) -> dict:
    batch = batch_for(BASE, stored())
    ball = ball_for(ThreatModel(), linf(0.02), batch.inputs)
    found = audit(victim_of(model), batch, torch.ones(N), ball, "margin", original=original)
    return {finding.name: finding for finding in found}


def jumping(model: nn.Module, batch=None, **options):
    batch = batch_for(model, stored()) if batch is None else batch
    victim = victim_of(model)
    return jump_finding(victim, batch, torch.arange(len(batch)), victim.outputs(batch), **options)


def test_a_gentle_ramp_is_seen_by_its_gradient_at_the_boundary():
    finding = jumping(GentleRamp())
    assert finding.red, finding.evidence
    assert finding.values["share"] < 0.1, "nothing jumps"
    assert not jumping(GentleRamp(), slope=False).red


@pytest.mark.parametrize("model", [BASE, cnn(2)], ids=["linear", "network"])
def test_honest_gradients_deliver_at_the_boundary(model):
    finding = jumping(model)
    assert not finding.red, finding.evidence
    assert all(0.7 < finding.values[f"boundary eps/{divisor}"] < 1.3 for divisor in (4, 2, 1)), finding.values


def test_where_all_images_are_of_one_class_made_ones_are_the_other_side():
    batch = batch_for(BASE, stored(120))
    one = batch.take((batch.targets["label"] == 0).nonzero()[:, 0])
    finding = jumping(BASE, one)
    assert finding.values["n"] > len(one) / 2 and not finding.red, finding.evidence
    assert jumping(GentleRamp(), one).red


def test_outputs_that_change_off_the_grid_are_discontinuous():
    found = audited(Gridded())["discontinuous"]
    assert found.red and found.values["share"] > 0.5, found.evidence
    for honest in (BASE, cnn(2)):
        assert audited(honest)["discontinuous"].values["share"] == 0


def test_a_model_that_knows_its_copies_is_told_from_them():
    model = NotCopied()
    victim = copy.deepcopy(model)
    assert not audited(victim)["stateful"].red
    found = audited(victim, original=model)["stateful"]
    assert found.red and found.values["copied"] > 0.1, found.evidence
    assert not audited(copy.deepcopy(BASE), original=BASE)["stateful"].red


def test_a_model_that_looks_for_twins_in_its_batch_is_stateful():
    assert audited(BesideATwin())["stateful"].red
    assert audited(BatchDependent(BASE))["stateful"].red
    assert not audited(cnn(2))["stateful"].red


def test_in_l0_gradients_are_asked_for_where_pixels_are_changed():
    member = Member(name="pgd0", attack="attacks.pgd_l0:PGD0", options={"steps": 5}, objective="margin")

    def red(model):
        model, batch = model.eval(), batch_for(BASE, stored(16))
        protocol = replace(protocol_of(member, eps=(3,), norm=Norm.L0), ranks=True)
        facts = CellFacts(task="classification", n_classes=2, ranked_budget=Budget(norm=Norm.L0, eps=3))
        victim = victim_of(model)
        outcome = attack(model, batch, protocol)
        _, found, escalation = examine(Access(victim=victim, search=victim), batch, protocol, facts, outcome)
        assert escalation is None
        return {finding.name for finding in found if finding.red}

    assert "zero-gradient" in red(NoPixels())
    assert "zero-gradient" not in red(BASE)
