"""Models without a path from outputs to inputs: gradients find nothing, scores and decisions find the same as ever."""

from functools import cache

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from registry import Member
from tests.toys import Detached, attack, batch_for, cnn, images, protocol_of

EPS = 0.015
MODEL = cnn(3).requires_grad_(False)
BATCH = batch_for(MODEL, images(24, shape=(1, 8, 8)))
APGD = Member(name="apgd", attack="attacks.apgd:APGD", options={"steps": 20}, objective="margin")
SQUARE = Member(name="square", attack="attacks.square:Square", options={"queries": 300}, objective="margin")
HSJ = Member(name="hsj", attack="attacks.hop_skip_jump:HopSkipJump", options={"queries": 800})


class NoGrad(nn.Module):
    """A `torch.no_grad` inside the forward pass, as published code has it."""

    @torch.no_grad()
    def forward(self, inputs: Tensor) -> Tensor:
        return MODEL(inputs)


class Votes(nn.Module):
    """Tells the class and nothing else: no score to climb, either."""

    def forward(self, inputs: Tensor) -> Tensor:
        return F.one_hot(MODEL(inputs).argmax(1), 3).float()


def robust(model: nn.Module, member: Member) -> Tensor:
    """Returns which samples survive a member."""
    result = attack(model, BATCH, protocol_of(member, eps=(EPS,)), slots=24).budgets[0]
    assert result.members[0].errors == 0, result.members[0].error
    return result.scores > 0.5


@cache
def truth() -> Tensor:
    """Which samples survive the gradient of the bare model; about half of them."""
    survivors = robust(MODEL, APGD)
    assert 8 <= int(survivors.sum()) <= 16
    return survivors


@pytest.mark.parametrize("model", [Detached(MODEL), NoGrad(), Votes()], ids=lambda model: type(model).__name__)
def test_gradients_find_next_to_nothing(model):
    assert int(robust(model.eval(), APGD).sum()) >= len(BATCH) - 3  # their random start may be lucky


@pytest.mark.parametrize("model", [Detached(MODEL), NoGrad()], ids=lambda model: type(model).__name__)
@pytest.mark.parametrize("member", [SQUARE, HSJ], ids=lambda member: member.name)
def test_scores_and_decisions_find_what_the_gradient_of_the_bare_model_finds(model, member):
    survivors = robust(model.eval(), member)
    assert int(survivors.sum()) <= int(truth().sum()) + 2


def test_decisions_break_a_model_that_tells_its_votes_alone():
    survivors = robust(Votes().eval(), HSJ)
    assert int(survivors.sum()) <= int(truth().sum()) + 2
