"""PGD0: the robust accuracy of linear models, its first steps by hand, and its lengths."""

import pytest
import torch

from attacks.pgd_l0 import PGD0
from attacks.stepped import Query
from attacks.victim import Answer
from registry import Member, Norm
from registry.errors import InvalidEntryError
from tests.rows import RNG, play, rows_for
from tests.toys import attack, batch_for, images, linear, protocol_of, robust_gap


def member(objective="margin", **options):
    return Member(name="pgd0", attack="attacks.pgd_l0:PGD0", options=options, objective=objective)


@pytest.mark.parametrize(
    ("n_classes", "shape", "objective", "restarts"),
    [(2, (1, 8, 8), "margin", 1), (3, (3, 6, 6), "targeted-margin", 2)],
)
@pytest.mark.parametrize("pixels", [1, 2, 4])
def test_it_reaches_the_robust_accuracy_of_a_linear_model(n_classes, shape, objective, restarts, pixels):
    model = linear(n_classes, shape=shape)
    batch = batch_for(model, images(150, shape=shape, low=0.0, high=1.0))
    gap = robust_gap(model, batch, pixels, Norm.L0)
    own = member(objective, steps=20, restarts=restarts)
    robust = attack(model, batch, protocol_of(own, eps=(pixels,), norm=Norm.L0), slots=50).budgets[0].scores > 0.5
    assert (gap < 0).sum() > 0
    assert torch.equal(robust[gap.abs() > 1e-3], (gap > 0)[gap.abs() > 1e-3])


def test_values_between_the_corners_are_found():
    """The objective is best at 0.3 and 0.7 in two pixels, and worse at both of their ends than where it begins."""
    inputs = torch.full((1, 1, 3, 3), 0.5)
    aims = torch.tensor([0.3, 0.7] + [0.5] * 7).reshape(1, 1, 3, 3)
    rows = rows_for(inputs, Norm.L0, 2)
    asked = play(PGD0(steps=60), rows, lambda points: -(points - aims).square().flatten(1).sum(1))
    assert torch.allclose(asked[-1], aims, atol=0.02)


@pytest.mark.parametrize(("restart", "first"), [(0, 0.09), (1, 0.03), (2, 0.01), (3, 0.01), (5, 0.09), (6, 0.03)])
def test_lengths_of_steps(restart, first):
    """Mean change of a value, where nothing is cut off: from 0.09 / 3^restart to 0.01; the sixth run starts over."""
    inputs = torch.full((1, 1, 5, 5), 0.2)
    rows, pgd = rows_for(inputs, Norm.L0, 25), PGD0(steps=5, step_size=0.09, last_step_size=0.01)
    rows.restart += restart
    pgd.start(rows, RNG)
    points = [inputs]
    for _ in range(5):
        rows.memory["point"] = points[-1]
        rows.step = rows.step + 1
        slope = torch.linspace(6, 8, 25).reshape(1, 1, 5, 5)
        pgd.tell(rows, Query(points[-1], gradient=True), Answer(torch.zeros(1), torch.ones(1), slope))
        points.append(rows.memory["point"])
    found = torch.cat(points).flatten(1).mean(1).diff()
    assert found.tolist() == pytest.approx([first * (0.01 / first) ** (step / 4) for step in range(5)], rel=1e-3)


def test_restarts_begin_at_random_pixels_of_corner_colours():
    inputs = images(4, shape=(3, 5, 5))
    rows = rows_for(inputs, Norm.L0, 3)
    rows.restart += torch.tensor([0, 1, 1, 2])
    first = play(PGD0(steps=3), rows, lambda points: points.flatten(1).sum(1), steps=1)[0]
    changed = (first != inputs).any(1)
    assert changed.flatten(1).sum(1).tolist() == [0, 3, 3, 3]
    new = first[first != inputs]
    assert ((new == 0) | (new == 1)).all()


def test_other_norms_are_refused():
    with pytest.raises(InvalidEntryError, match="for L0, got L2"):
        PGD0(steps=3).start(rows_for(images(1, shape=(1, 4, 4)), Norm.L2, 1.0), RNG)


@pytest.mark.parametrize(("options", "low", "high"), [({"inset": 0.2}, 0.2, 0.8), ({"most_change": 0.1}, None, None)])
def test_values_keep_within_their_limits(options, low, high):
    """Four pixels are worth most where they are black or white; they end at the limits, and no other one changes."""
    inputs = images(3, shape=(1, 6, 6), low=0.0, high=1.0)
    weight = torch.randn((1, 6, 6), generator=torch.Generator().manual_seed(3))
    rows = rows_for(inputs, Norm.L0, 4)
    asked = play(PGD0(steps=30, **options), rows, lambda points: (points * weight).flatten(1).sum(1))
    changed = asked != inputs
    assert (changed.flatten(2).sum(2) <= 4).all() and changed[-1].flatten(1).sum(1).min() == 4
    lowest, highest = (inputs - 0.1, inputs + 0.1) if low is None else (torch.full_like(inputs, v) for v in (low, high))
    lowest, highest = lowest.clamp(min=0), highest.clamp(max=1)
    assert (((asked >= lowest - 1e-6) & (asked <= highest + 1e-6)) | ~changed).all()
    ends = torch.where(weight > 0, highest, lowest)
    assert torch.allclose(asked[-1][changed[-1]], ends[changed[-1]], atol=1e-5)
