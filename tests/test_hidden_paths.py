"""Gradients that models hide: undeclared stages, saturated outputs and wrapped networks are found, honest ones left."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.fx import GraphModule

from attacks.soundness.fresh import Cell, run_fresh
from attacks.soundness.hidden_paths import bypass_stages, declare_stages, has_stages, inner_logits, inner_network
from attacks.soundness.views import all_views, first_view, private
from registry import CellFacts
from tests.soundness_toys import MARGIN, SHAPE, Rounded, Saturating, Scaled, cell, examined, flat_linear
from tests.toys import Quantise, Sine, batch_for, cnn, images, linear

LINEAR = flat_linear()


@pytest.mark.parametrize(
    ("stage", "found"),
    [
        (Rounded(), ("0",)),
        (Sine(), ("0",)),
        (Quantise(), ()),  # declares its stand-in itself
        (nn.Sequential(nn.Identity(), Rounded()), ("0.1", "0")),
        (nn.AvgPool2d(3, 1, 1), ()),  # honest
        (nn.Identity(), ()),
    ],
    ids=["rounded", "sine", "declared", "nested", "mean", "identity"],
)
def test_stages_that_hide_their_gradient_are_found(stage, found):
    model = nn.Sequential(stage, LINEAR).eval()
    assert declare_stages(model, batch_for(LINEAR, images(8, shape=SHAPE))) == found
    assert all(hasattr(model.get_submodule(name), "bpda_twin") for name in found)


def test_stages_behind_the_first_weights_are_left_alone():
    model = nn.Sequential(nn.Conv2d(1, 1, 1), Rounded(), LINEAR).eval()
    assert declare_stages(model, batch_for(LINEAR, images(8, shape=SHAPE))) == ()


def test_inner_logits_are_found_behind_what_saturates():
    batch = batch_for(LINEAR, images(8, shape=SHAPE))
    with torch.no_grad():
        logits = LINEAR(batch.inputs)
        for model in (Saturating(LINEAR), Scaled(LINEAR, 1e4), nn.Sequential(LINEAR, nn.Softmax(1))):
            inner = inner_logits(model.eval(), batch)
            assert torch.equal(inner(batch.inputs), logits)
        assert inner_logits(cnn(2), batch) is None
        assert inner_logits(nn.Sequential(LINEAR, nn.Flatten()), batch) is None
        assert inner_logits(Scaled(LINEAR, -1.0), batch) is None  # it predicts the opposite


class Votes(nn.Module):
    """Counts what a network says of shifted copies, without any gradient."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, inputs):
        with torch.no_grad():
            votes = [self.net(inputs + shift).argmax(1) for shift in (-0.001, 0.0, 0.001)]
        return sum(nn.functional.one_hot(vote, 2).to(inputs.dtype) for vote in votes)


def test_the_network_inside_of_a_wrapper_is_found():
    batch = batch_for(LINEAR, images(20, shape=SHAPE))
    assert inner_network(Votes(LINEAR), batch) is LINEAR
    assert inner_network(nn.Sequential(Rounded(), LINEAR), batch) is LINEAR
    assert inner_network(cnn(2), batch) is None
    assert inner_network(Scaled(LINEAR, -1.0), batch) is None


def test_votes_are_seen_through_without_a_twin():
    found = examined(Votes(flat_linear()), LINEAR, n=16, members=(MARGIN,), larger=False)
    assert {"zero-gradient", "unbounded-survivors"} <= found.started_by
    assert found.escalation.strongest.name == "inner network"
    assert found.red == {"jumping-margin"}  # another network's margin says nothing of the votes' own


def test_views_of_a_model():
    batch = batch_for(LINEAR, images(8, shape=SHAPE))
    model = nn.Sequential(Rounded(256), Saturating(LINEAR))
    access, _, facts = cell(model, batch, twin=linear(2, shape=SHAPE, seed=5))
    views = all_views(private(access), batch)
    assert [view.name for view in views] == [
        "true gradient",
        "BPDA",
        "learned BPDA",
        "inner logits",
        "inner network",
        "twin",
    ]
    assert [view.transfers for view in views] == [False] * 4 + [True] * 2
    assert not any(hasattr(module, "bpda_twin") for module in model.modules())
    assert first_view(access, facts).backward == "true"
    assert (
        first_view(access, CellFacts(task="classification", n_classes=2, stages=("0",), hidden_stages=("0",))).backward
        == "bpda"
    )
    targeted = views[0].members(CellFacts(task="classification", n_classes=3), ("margin", "targeted-margin"), 9, 5)
    assert [member.options["restarts"] for member in targeted] == [5, 2]


class Misled(Quantise):
    """Declares a stand-in that leads to other pixels."""

    def bpda_twin(self, inputs):
        return inputs.flip(-1)


class Disguised(Quantise):
    """Declares a stand-in with the right values and a gradient of nothing."""

    def bpda_twin(self, inputs):
        return inputs.detach() + 0 * inputs


class Halving(nn.Module):
    """Declares a stage that changes the shape."""

    def forward(self, inputs):
        return inputs[..., ::2]

    def bpda_twin(self, inputs):
        return 2 * inputs[..., ::2]


@pytest.mark.parametrize(
    ("stage", "found"),
    [
        (Misled(), ("0",)),
        (Disguised(), ("0",)),
        (nn.Sequential(Quantise(), Misled()), ("0.1",)),
        (Quantise(), ()),  # its stand-in is the identity already
        (Rounded(), ()),
        (nn.Sequential(Halving(), nn.Flatten(), nn.Linear(32, 64)), ()),
    ],
    ids=["misled", "disguised", "two", "identity", "undeclared", "shape"],
)
def test_declared_stand_ins_give_way_to_the_identity(stage, found):
    model = nn.Sequential(stage, LINEAR).eval()
    batch = batch_for(LINEAR, images(8, shape=SHAPE))
    assert bypass_stages(model, batch) == found
    for name in found:
        assert model.get_submodule(name).bpda_twin(batch.inputs) is batch.inputs
    assert bypass_stages(model, batch) == ()


@pytest.mark.parametrize("stage", [Misled(), Disguised()], ids=["misled", "disguised"])
def test_a_useless_stand_in_does_not_close_the_way(stage):
    batch = batch_for(LINEAR, images(32, shape=SHAPE))
    access, protocol, facts = cell(nn.Sequential(stage, LINEAR), batch, stages=("0",))
    views = {view.name: view for view in all_views(private(access), batch, own="exact")}
    assert list(views) == ["true gradient", "BPDA", "identity BPDA", "learned BPDA", "inner network"]
    assert not views["identity BPDA"].transfers
    where, broken = Cell(batch=batch, protocol=protocol, facts=facts, budget=facts.ranked_budget), {}
    for name in ("BPDA", "identity BPDA"):
        members = views[name].members(facts, ("margin",), 10, 1)
        run = run_fresh(where, views[name].access, torch.arange(32), members, salt=1)
        broken[name] = int(run.broken.sum())
    assert broken["identity BPDA"] >= broken["BPDA"] + 8, broken
    assert torch.equal(stage.bpda_twin(batch.inputs), type(stage)().bpda_twin(batch.inputs)), "the model is left alone"


def test_a_twin_that_is_the_inner_network_is_no_view_of_its_own():
    batch = batch_for(LINEAR, images(8, shape=SHAPE))
    access, *_ = cell(nn.Sequential(Rounded(256), LINEAR), batch, twin=LINEAR)
    assert [view.name for view in all_views(private(access), batch)] == [
        "true gradient",
        "BPDA",
        "learned BPDA",
        "inner network",
    ]


def test_views_search_a_faster_copy_and_the_model_judges():
    network = cnn(2)
    batch = batch_for(network, images(8, shape=(1, 8, 8)))
    access, *_ = cell(nn.Sequential(Rounded(256), network), batch)
    views = {view.name: view for view in all_views(private(access), batch, own="exact")}
    through = views["BPDA"]
    assert isinstance(through.access.search.model, GraphModule)
    assert not isinstance(through.access.victim.model, GraphModule)
    assert has_stages(through.access.search.model)
    assert isinstance(views["inner network"].gradient_of.model, GraphModule)
