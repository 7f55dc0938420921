"""Square attack for L2: its bumps against the paper's formula, its steps, and the published code beside it."""

import pytest
import torch
from pyautoattack.square import SquareAttack

from attacks.square_l2 import SquareL2, bump, bumps, window_edge
from registry import Member, Norm
from registry.errors import InvalidEntryError
from tests.rows import RNG, play, rows_for
from tests.toys import attack, batch_for, images, linear, protocol_of, robust_gap, trained

EPS = 0.15


def member(**options):
    return Member(name="square", attack="attacks.square_l2:SquareL2", options=options, objective="margin")


@pytest.mark.parametrize("edge", [3, 5, 7, 9])
def test_bumps_follow_equation_2(edge):
    """eta[r, s] = sum over k = 0 .. M of 1 / (n + 1 - k)^2, M = n - the larger distance from the centre."""

    def hill(height, width):
        n = max(height // 2, width // 2)
        square = torch.zeros(height, width)
        for r in range(height):
            for s in range(width):
                m = n - max(abs(r - height // 2), abs(s - width // 2))
                square[r, s] = sum(1 / (n + 1 - k) ** 2 for k in range(m + 1))
        return square / square.norm()

    half = edge // 2
    expected = torch.cat([hill(half, edge), -hill(edge - half, edge)])
    assert torch.allclose(bump(edge), expected / expected.norm(), atol=1e-6)


def test_bumps_of_several_sizes_side_by_side():
    found = bumps(torch.tensor([5, 3, 5]), torch.tensor([False, False, True]))
    assert torch.equal(found[0], bump(5))
    assert torch.equal(found[1, :3, :3], bump(3))
    assert not found[1, 3:].any()
    assert torch.equal(found[2], bump(5).T)


def test_windows_are_odd_and_fit():
    edges = window_edge(torch.tensor([0.8, 0.4, 0.1, 0.001]), 28, 28)
    assert edges.tolist() == [25, 19, 9, 3]
    assert window_edge(torch.tensor([1.0]), 8, 6).tolist() == [6]


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 9, 7), (2, 1, 6, 6)])
def test_every_proposal_uses_the_whole_budget_and_the_best_one_stays(shape):
    inputs = images(6, shape=shape, low=0.4, high=0.6)
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(2))
    rows = rows_for(inputs, Norm.L2, EPS)
    asked = play(SquareL2(queries=60), rows, lambda points: (points * weight).flatten(1).sum(1))
    for points in asked:
        lengths = (points - inputs).flatten(len(shape) - 2).norm(dim=-1)
        assert torch.allclose(lengths, torch.full_like(lengths, EPS), atol=1e-5)
    values = (asked * weight).flatten(2).sum(2)
    assert torch.allclose(rows.memory["best"], values.amax(0))
    assert (values.amax(0) > values[0]).all()


def test_a_step_changes_two_windows_only():
    """The last windows have an edge of 3: at most 18 pixels of 144 are new, and the rest keep their ratio."""
    inputs = images(4, shape=(1, 12, 12), low=0.5, high=0.5)
    square, rows = SquareL2(queries=10_000), rows_for(inputs, Norm.L2, EPS)
    square.start(rows, RNG)
    rows.step = torch.full((4,), 9000)
    rows.memory["random"] = torch.rand(4, 50, 6, generator=torch.Generator().manual_seed(1))
    before, after = rows.memory["best_point"] - inputs, square.ask(rows, RNG).points - inputs
    ratio = after / before
    for row in range(4):
        usual = ratio[row].median()
        assert int(((ratio[row] - usual).abs() > 1e-3).sum()) <= 18
        assert 0.9 < usual < 1.2


def test_the_support_is_never_left():
    inputs = images(4, shape=(1, 8, 8))
    support = torch.zeros_like(inputs, dtype=torch.bool)
    support[..., :4] = True
    asked = play(
        SquareL2(queries=30), rows_for(inputs, Norm.L2, EPS, support=support), lambda points: points.flatten(1).sum(1)
    )
    assert torch.equal(asked[..., 4:], inputs[None, ..., 4:].expand_as(asked[..., 4:]))
    assert torch.allclose((asked - inputs).flatten(2).norm(dim=2), torch.tensor(EPS), atol=1e-5)


@pytest.mark.parametrize(("eps", "queries"), [(0.15, 300), (0.25, 300)])
def test_it_is_as_strong_as_the_published_one(eps, queries):
    """The published code never puts a window at the last row or column, so ours may be stronger."""
    model, batch = trained()
    outcome = attack(model, batch, protocol_of(member(queries=queries), eps=(eps,), norm=Norm.L2), slots=100)
    with torch.random.fork_rng(devices=[]):
        published = SquareAttack(model, norm="L2", n_queries=queries, eps=eps, seed=0, device="cpu")
        adversarials = published.perturb(batch.inputs, batch.targets["label"])
    with torch.no_grad():
        theirs = int((model(adversarials).argmax(1) == batch.targets["label"]).sum())
    ours = int(outcome.budgets[0].scores.sum())
    assert 10 < theirs <= outcome.clean_scores.sum() - 20  # otherwise the budget tells nothing
    assert theirs - 30 <= ours <= theirs + 1


def test_it_breaks_no_sample_of_a_linear_model_that_is_robust():
    model = linear(2, shape=(1, 8, 8))
    batch = batch_for(model, images(60, shape=(1, 8, 8)))
    outcome = attack(model, batch, protocol_of(member(queries=200), eps=(EPS,), norm=Norm.L2), slots=30)
    gap = robust_gap(model, batch, EPS, Norm.L2)
    robust = outcome.budgets[0].scores > 0.5
    assert robust[gap > 1e-4].all()
    assert (~robust).sum() >= 0.4 * (gap < 0).sum()


def test_other_norms_are_refused():
    with pytest.raises(InvalidEntryError, match="for L2, got Linf"):
        SquareL2(queries=3).start(rows_for(images(1, shape=(1, 4, 4)), Norm.LINF, EPS), RNG)
