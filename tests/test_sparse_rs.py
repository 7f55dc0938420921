"""Sparse-RS: the robust accuracy of linear models, its schedule, and what one step exchanges."""

import pytest
import torch
from torch import nn

from attacks.sparse_rs import SparseRS, exchanged_share
from registry import Member, Norm, Scope
from registry.errors import InvalidEntryError
from tests.rows import RNG, play, rows_for
from tests.toys import attack, batch_for, images, linear, protocol_of, robust_gap, shuffled


def member(**options):
    return Member(name="sparse-rs", attack="attacks.sparse_rs:SparseRS", options=options, objective="margin")


def weighted(shape, seed=2):
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    return lambda points: (points * weight).flatten(1).sum(1)


def changed_pixels(points, inputs):
    """bool (..., pixels): all channels, the third axis from the end, count once."""
    return (points != inputs).any(-3).flatten(-2)


@pytest.mark.parametrize(
    ("n_classes", "shape", "pixels"),
    [(2, (1, 6, 6), 1), (2, (1, 6, 6), 2), (2, (1, 6, 6), 4), (3, (3, 4, 4), 2), (3, (3, 4, 4), 3)],
)
def test_it_reaches_the_robust_accuracy_of_a_linear_model(n_classes, shape, pixels):
    model = linear(n_classes, shape=shape)
    batch = batch_for(model, images(60, shape=shape, low=0.0, high=1.0))
    gap = robust_gap(model, batch, pixels, Norm.L0)
    outcome = attack(model, batch, protocol_of(member(queries=800), eps=(pixels,), norm=Norm.L0), slots=30)
    robust = outcome.budgets[0].scores > 0.5
    assert (gap < 0).sum() > 0
    assert torch.equal(robust[gap.abs() > 1e-4], (gap > 0)[gap.abs() > 1e-4])


@pytest.mark.parametrize(
    ("step", "divisor"), [(0, 1), (1, 2), (50, 2), (51, 4), (500, 5), (2000, 8), (8000, 15), (8001, 20), (10_000, 20)]
)
def test_the_published_schedule(step, divisor):
    assert exchanged_share(0.3, step, 10_000) == pytest.approx(0.3 / divisor)
    assert exchanged_share(0.3, step // 10, 1000) >= 0.3 / divisor


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 6, 7), (2, 1, 5, 5)])
@pytest.mark.parametrize("pixels", [1, 4, 20])
def test_every_proposal_holds_that_many_pixels_of_corner_colours(shape, pixels):
    inputs = images(5, shape=shape)
    rows = rows_for(inputs, Norm.L0, pixels)
    asked = play(SparseRS(queries=40), rows, weighted(shape))
    assert (changed_pixels(asked, inputs).sum(-1) == pixels).all()
    new = asked[asked != inputs]
    assert ((new == 0) | (new == 1)).all()
    values = torch.stack([weighted(shape)(points) for points in asked])
    assert torch.allclose(rows.memory["best"], values.amax(0))
    assert torch.equal(rows.memory["best_point"], asked[values.argmax(0), torch.arange(5)])
    order = rows.memory["order"].flatten(0, -2).sort(dim=1).values
    assert torch.equal(order, torch.arange(order.shape[1]).expand_as(order))
    chosen = torch.zeros_like(rows.memory["order"]).scatter(-1, rows.memory["order"][..., :pixels], 1).bool()
    assert torch.equal(chosen.squeeze(1), changed_pixels(rows.memory["best_point"], inputs))


def test_a_step_exchanges_the_scheduled_share():
    """20 pixels: 0.3 of them at first, half of that up to query 50 of 10,000; the objective never gains."""
    inputs = images(3, shape=(1, 8, 8))
    constant = torch.zeros(3)
    asked = changed_pixels(
        play(SparseRS(queries=10_000), rows_for(inputs, Norm.L0, 20), lambda p: constant, steps=60), inputs
    )
    kept = (asked[1:] & asked[:1]).sum(-1)
    assert (kept[:50] == 20 - 3).all()
    assert (kept[50:] == 20 - 1).all()


def test_every_pixel_and_colour_has_its_chance():
    """One pixel, no gain: 800 uniform exchanges over 9 pixels and 8 colours, never the pixel's own colour."""
    inputs = torch.full((1, 3, 3, 3), 0.5)
    asked = play(SparseRS(queries=801), rows_for(inputs, Norm.L0, 1), lambda points: torch.zeros(1))[:, 0]
    place = (asked[1:] != 0.5).any(1).flatten(1).float().argmax(1)
    counts = torch.bincount(place, minlength=9)
    kept = changed_pixels(asked[:1], inputs[0]).flatten().nonzero().item()
    assert counts[kept] == 0
    others = counts[torch.arange(9) != kept]
    assert (others - 100).abs().max() < 40
    colours = asked[1:].flatten(2).gather(2, place[:, None, None].expand(-1, 3, 1))[..., 0]
    assert torch.bincount((colours * torch.tensor([1.0, 2.0, 4.0])).sum(1).long(), minlength=8).min() > 60


def test_where_no_pixel_is_left_colours_change_in_place():
    inputs = images(4, shape=(1, 2, 2))
    rows = rows_for(inputs, Norm.L0, 6)
    play(SparseRS(queries=60), rows, weighted((1, 2, 2)))
    weight = torch.randn((1, 2, 2), generator=torch.Generator().manual_seed(2))
    assert torch.equal(rows.memory["best_point"], (weight > 0).float().expand_as(inputs))


def test_the_support_is_never_left():
    inputs = images(4, shape=(2, 5, 5))
    support = torch.zeros_like(inputs, dtype=torch.bool)
    support[..., 2:] = True
    support[0] = False
    support[0, :, 0, 0] = True  # one pixel alone
    asked = play(SparseRS(queries=40), rows_for(inputs, Norm.L0, 3, support=support), weighted((2, 5, 5)))
    assert torch.equal(torch.where(support, inputs, asked), inputs.expand_as(asked))
    assert changed_pixels(asked, inputs).sum(-1).tolist() == [[1, 3, 3, 3]] * 40


@pytest.mark.parametrize("scope", list(Scope))
def test_modalities_have_pixels_of_their_own_or_share_them(scope):
    inputs = images(4, shape=(2, 1, 5, 5))
    asked = play(SparseRS(queries=30), rows_for(inputs, Norm.L0, 3, scope=scope), weighted((2, 1, 5, 5)))
    counts = changed_pixels(asked, inputs).sum(-1)
    assert (counts.sum(-1) == (6 if scope is Scope.EACH else 3)).all()
    assert (counts == 3).all() == (scope is Scope.EACH)


def test_neighbours_at_other_steps_change_nothing():
    """Rows that exchange fewer pixels than their neighbours draw no more than those."""
    model = linear(2, shape=(1, 6, 6))
    batch = batch_for(model, images(20, shape=(1, 6, 6), low=0.0, high=1.0))
    protocol = protocol_of(member(queries=60, share=1.0), eps=(2,), norm=Norm.L0)
    mixed, places = shuffled(batch, 3)
    one, two = attack(model, batch, protocol).budgets[0], attack(model, mixed, protocol).budgets[0]
    assert torch.equal(one.points, two.points[places])


def test_other_norms_are_refused():
    with pytest.raises(InvalidEntryError, match="for L0, got L2"):
        SparseRS(queries=3).start(rows_for(images(1, shape=(1, 4, 4)), Norm.L2, 1.0), RNG)


@pytest.mark.parametrize("options", [{"inset": 0.2}, {"most_change": 0.1}])
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 6, 7)])
def test_colours_are_corners_of_the_values_within_the_limits(shape, options):
    inputs = images(4, shape=shape, low=0.0, high=1.0)
    rows = rows_for(inputs, Norm.L0, 5)
    rows.begin = 1 - inputs  # the worst known candidate lies beyond the limits
    asked = play(SparseRS(queries=60, **options), rows, weighted(shape))
    new = asked != inputs
    inset, most = options.get("inset", 0.0), options.get("most_change", 1.0)
    low, high = (inputs - most).clamp(inset, 1 - inset), (inputs + most).clamp(inset, 1 - inset)
    assert ((asked == low) | (asked == high) | ~new).all()
    assert (changed_pixels(asked, inputs).sum(-1) <= 5).all() and new[-1].any()
    assert len(asked[:, 0].unique(dim=0)) > 40


def test_a_filter_of_black_and_white_is_met_by_grey_pixels():
    """The model puts one half in the place of what is nearly black or white; grey pixels break what corners do not."""
    base = linear(2, shape=(1, 8, 8))

    class Filtered(nn.Module):
        def forward(self, inputs):
            return base(torch.where((inputs - 0.5).abs() > 0.4, 0.5, inputs))

    batch = batch_for(base, images(40, shape=(1, 8, 8)))
    robust = {}
    for name, options in {"corners": {}, "grey": {"inset": 0.15}}.items():
        own = member(queries=400, **options)
        outcome = attack(Filtered(), batch, protocol_of(own, eps=(4,), norm=Norm.L0), slots=40)
        robust[name] = float(outcome.budgets[0].scores.mean())
    assert robust["grey"] < robust["corners"] - 0.2, robust
