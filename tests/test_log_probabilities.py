"""Models that end in probabilities: what they show to attackers is attacked as of models that return logits."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from attacks.adaptive_members import purifier_members
from attacks.log_probabilities import LogProbabilities
from benchmark.access import Subject, access_to
from benchmark.assessment import check_model
from datasets.tasks.classification import Classification
from defenses.stages import declared_stages, shown
from registry import AttackProtocol, Need, ThreatModel, linf
from tests.test_layered import SPEC, Purified
from tests.toys import batch_for, images, linear

RULES = AttackProtocol(
    name="toy",
    title="Toy",
    threat_model=ThreatModel(),
    budgets=(linf(0.2),),
    tasks=("classification",),
    members="attacks.adaptive_members:purifier_members",
)


class Softmaxed(Purified):
    """A purifier whose last step is a softmax behind the network that it shows."""

    def forward(self, inputs):
        return super().forward(inputs).softmax(1)

    def restored(self, inputs):
        return self.purifier(inputs)


def outer():
    return Softmaxed(linear(3)).eval()


def inner():
    """The softmax belongs to the network that it shows."""
    return Purified(nn.Sequential(linear(3), nn.Softmax(1))).eval()


@pytest.mark.parametrize("build", [outer, inner])
def test_a_purifier_that_ends_in_softmax_is_attacked_through_its_network_and_on_its_features(build):
    model = build()
    batch = batch_for(model, images(12))
    subject = check_model(Subject(model=model, task=Classification(3), spec=SPEC), batch)
    assert isinstance(subject.model, LogProbabilities)
    access, facts = access_to(subject, batch, RULES, slots=16, seed=0)
    assert facts.has_bare and facts.has_mechanism and facts.stages == ("net.purifier",)
    names = {member.name for member in purifier_members(facts, linf(0.2))}
    assert {"transfer-bare", "apgd-features"} <= names
    found = access.source(Need.BARE).outputs(batch)
    expected = model.net(batch.inputs) if build is outer else model.net[0](batch.inputs).log_softmax(1)
    assert torch.equal(found, expected) if build is outer else torch.allclose(found, expected, atol=1e-5)
    assert torch.equal(access.source(Need.MECHANISM).outputs(batch), model.mechanism()(batch.inputs))


def test_what_a_model_does_not_show_stays_absent():
    plain = LogProbabilities(nn.Sequential(linear(3), nn.Softmax(1))).eval()
    assert shown(plain, "bare") is None and shown(plain, "mechanism") is None
    assert not hasattr(plain, "restored") and not hasattr(plain, "anything")
    assert declared_stages(plain) == ()


def test_copies_show_the_same_and_restored_images_are_those_of_the_model():
    model = outer()
    whole, inputs = LogProbabilities(model).eval(), images(4)
    twin = copy.deepcopy(whole)
    assert torch.equal(twin(inputs), whole(inputs))
    assert torch.equal(whole(inputs).exp().argmax(1), model(inputs).argmax(1))
    assert torch.equal(shown(twin, "bare")(inputs), shown(whole, "bare")(inputs))
    assert shown(twin, "bare").net is not model.net
    assert torch.equal(whole.restored(inputs), model.restored(inputs))


def test_a_bare_network_that_is_sure_keeps_a_gradient():
    sure = LogProbabilities(inner())
    with torch.no_grad():
        for parameter in sure.parameters():
            parameter.mul_(60.0)
    inputs = images(4).requires_grad_()
    gradients = [
        torch.autograd.grad(outputs.amin(1).sum(), inputs)[0]
        for outputs in (shown(sure, "bare")(inputs), sure.net.bare()(inputs))
    ]
    assert gradients[0].abs().mean() > 100 * gradients[1].abs().mean()


class Forgetful(nn.Module):
    """Dropout that belongs to the defense, and is on at inference; it shows the network with and without it."""

    def __init__(self, softmax: bool) -> None:
        super().__init__()
        self.dropout, self.net, self.softmax = nn.Dropout(0.6), linear(3), softmax
        self.eval()
        self.dropout.train()

    def forward(self, inputs):
        logits = self.net(self.dropout(inputs))
        return logits.softmax(1) if self.softmax else logits

    def bare(self):
        return nn.Sequential(self.dropout, self.net)

    def mechanism(self):
        return self


def test_dropout_that_a_defense_leaves_on_stays_on():
    model = Forgetful(softmax=True)
    batch = batch_for(model.net, images(6))
    checked = check_model(Subject(model=model, task=Classification(3), spec=SPEC), batch).model
    assert isinstance(checked, LogProbabilities)
    assert (checked.training, model.training, model.dropout.training) == (False, False, True)
    with torch.no_grad():
        assert not torch.equal(checked(batch.inputs), checked(batch.inputs))


@pytest.mark.parametrize("name", ["bare", "mechanism"])
def test_what_a_model_shows_keeps_the_modes_of_its_own_modules(name):
    model = Forgetful(softmax=False)
    part = shown(model, name)
    assert not part.training
    assert model.dropout.training
