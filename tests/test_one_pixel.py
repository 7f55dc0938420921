"""The exhaustive one-pixel attack against every candidate tried by hand, and its greedy way to several pixels."""

import itertools
import math

import pytest
import torch
from torch import nn

from attacks.one_pixel import OnePixel, _stride
from datasets.tasks.classification import Classification
from registry import Member, Norm
from registry.errors import InvalidEntryError
from tests.rows import RNG, play, rows_for
from tests.toys import attack, batch_for, cnn, images, linear, protocol_of, robust_gap


def member(**options):
    return Member(name="one-pixel", attack="attacks.one_pixel:OnePixel", options=options, objective="margin")


class Wrapped(nn.Module):
    """A function as a module."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, inputs):
        return self.function(inputs)


def by_hand(model, batch) -> torch.Tensor:
    """Whether no pixel with a corner colour changes the answer: one forward pass for each candidate."""
    channels, height, width = batch.inputs.shape[1:]
    robust = torch.ones(len(batch), dtype=torch.bool)
    for row, column in itertools.product(range(height), range(width)):
        for colour in itertools.product((0.0, 1.0), repeat=channels):
            points = batch.inputs.clone()
            points[:, :, row, column] = torch.tensor(colour)
            with torch.no_grad():
                robust &= model(points).argmax(1) == batch.targets["label"]
    return robust


@pytest.mark.parametrize("channels", [1, 3])
def test_it_is_exact_for_one_pixel(channels):
    model = cnn(3, channels=channels)
    brightness = images(40, shape=(channels, 1, 1), seed=3, low=0.0, high=0.8)
    batch = batch_for(model, brightness + 0.2 * images(40, shape=(channels, 8, 8)), wrong=3)
    expected = by_hand(model, batch)
    outcome = attack(model, batch, protocol_of(member(), eps=(1,), norm=Norm.L0), slots=20, task=Classification(3))
    assert 3 < expected.sum() < 35
    assert torch.equal(outcome.budgets[0].scores > 0.5, expected)


@pytest.mark.parametrize("pixels", [1, 2, 4])
def test_it_reaches_the_robust_accuracy_of_a_linear_model(pixels):
    model = linear(2, shape=(2, 5, 5))
    batch = batch_for(model, images(60, shape=(2, 5, 5), low=0.0, high=1.0))
    gap = robust_gap(model, batch, pixels, Norm.L0)
    outcome = attack(model, batch, protocol_of(member(), eps=(pixels,), norm=Norm.L0), slots=30)
    robust = outcome.budgets[0].scores > 0.5
    assert (gap < 0).sum() > 0
    assert torch.equal(robust[gap.abs() > 1e-4], (gap > 0)[gap.abs() > 1e-4])


@pytest.mark.parametrize("shape", [(1, 4, 5), (3, 3, 3), (2, 1, 3, 3)])
def test_every_candidate_is_tried_once_and_then_the_best_ones_together(shape):
    inputs = images(2, shape=shape)
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(2))
    asked = play(OnePixel(), rows_for(inputs, Norm.L0, 2), lambda points: (points * weight).flatten(1).sum(1))
    pixels, balls = math.prod(shape) // shape[-3], 2 if len(shape) == 4 else 1
    candidates = pixels * 2 ** shape[-3]
    assert len(asked) == candidates + 2 * balls - 1
    singles = asked[:candidates]
    assert ((singles != inputs).any(-3).flatten(2).sum(2) == 1).all()
    assert len(singles[:, 0].flatten(1).unique(dim=0)) == candidates
    together = (asked[candidates:] != inputs).any(-3).flatten(2).sum(2)
    assert together[:, 0].tolist() == list(range(2, 2 * balls + 1))
    best = torch.where(weight > 0, 1.0, 0.0)
    chosen = asked[-1] != inputs
    assert torch.equal(asked[-1][chosen], best.expand_as(inputs)[chosen])
    room = torch.where(weight > 0, 1 - inputs, inputs)
    gains = (weight.abs() * room).sum(-3).flatten(-2).reshape(2, balls, -1)
    expected = torch.zeros_like(gains, dtype=torch.bool).scatter(2, gains.topk(2, dim=2).indices, True)
    assert torch.equal(chosen.any(-3).flatten(-2).reshape(2, balls, -1), expected)


def test_grey_levels_between_pass_a_filter_that_removes_extremes():
    """A model that takes 0 and 1 for impulses and sets them to the middle loses to no corner colour."""
    base = linear(2, shape=(1, 4, 4))

    def model(inputs):
        return base(torch.where((inputs <= 0) | (inputs >= 1), torch.full_like(inputs, 0.5), inputs))

    batch = batch_for(model, images(40, shape=(1, 4, 4), low=0.4, high=0.6))
    scores = []
    for options in ({}, {"grey_levels": 9}):
        protocol = protocol_of(member(**options), eps=(1,), norm=Norm.L0)
        scores.append(attack(Wrapped(model), batch, protocol, slots=20, task=Classification(2)).budgets[0].scores)
    assert (scores[1] <= scores[0]).all()
    assert scores[1].sum() < scores[0].sum()


def test_every_grey_level_is_tried_once():
    inputs = images(1, shape=(1, 3, 3), low=0.3, high=0.34)
    asked = play(OnePixel(grey_levels=9), rows_for(inputs, Norm.L0, 1), lambda points: torch.zeros(1))[:, 0, 0]
    changed = asked[asked != inputs[0, 0]]
    assert len(asked) == len(changed) == 81
    assert sorted(set(changed.tolist())) == pytest.approx([k / 8 for k in range(9)])


def test_fewer_queries_are_spread_over_the_image():
    inputs = images(1, shape=(1, 10, 10))
    attack_ = OnePixel(queries=50)
    asked = play(attack_, rows_for(inputs, Norm.L0, 1), lambda points: torch.zeros(1))[:, 0, 0]
    assert attack_.steps == len(asked) == 50
    quarters = (asked != inputs[0, 0]).float().reshape(50, 2, 5, 2, 5).sum((0, 2, 4))
    assert quarters.min() >= 10


@pytest.mark.parametrize("candidates", [1, 2, 6, 7, 1568, 6272, 10_007])
def test_the_stride_visits_everything(candidates):
    stride = _stride(candidates)
    assert {step * stride % candidates for step in range(candidates)} == set(range(candidates))


def test_the_support_is_never_left():
    inputs = images(2, shape=(1, 4, 4))
    support = torch.zeros_like(inputs, dtype=torch.bool)
    support[..., :2] = True
    asked = play(OnePixel(), rows_for(inputs, Norm.L0, 2, support=support), lambda points: points.flatten(1).sum(1))
    assert torch.equal(asked[..., 2:], inputs[..., 2:].expand_as(asked[..., 2:]))
    assert (asked[-1] != inputs).flatten(1).sum(1).tolist() == [2, 2]


def test_other_norms_are_refused():
    with pytest.raises(InvalidEntryError, match="for L0, got L1"):
        OnePixel().start(rows_for(images(1, shape=(1, 4, 4)), Norm.L1, 1.0), RNG)
