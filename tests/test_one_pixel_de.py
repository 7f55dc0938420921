"""Differential evolution: one generation by hand, its range, and scipy's differential evolution on the same problem."""

import math

import numpy as np
import pytest
import torch
from scipy.optimize import differential_evolution

from attacks.one_pixel_de import OnePixelDE, _painted, _three
from attacks.victim import Answer
from registry import Member, Norm, Scope
from registry.errors import InvalidEntryError
from tests.rows import RNG, play, rows_for
from tests.toys import attack, batch_for, images, linear, protocol_of, robust_gap


def hills(points):
    """An objective with many local maxima, best at values of 0.3: (N, 1, H, W) to (N,)."""
    places = torch.arange(points.shape[-1] * points.shape[-2], dtype=torch.float32)
    weight = torch.sin(0.37 * places) + 0.5 * torch.cos(1.9 * places) + 0.002 * places
    return (torch.exp(-((points.flatten(1) - 0.3) / 0.15).square()) * weight).sum(1)


def test_it_finds_what_scipy_finds():
    """The same number of candidates, the same weight, crossover off; means over 20 images and 20 seeds of scipy."""
    population, generations = 40, 20
    inputs = torch.full((20, 1, 12, 12), 0.5)
    rows = rows_for(inputs, Norm.L0, 1)
    play(OnePixelDE(population=population, generations=generations), rows, hills)
    ours = rows.memory["fitness"].amax(1).numpy()

    def painted(vector):
        point = torch.full((1, 1, 12, 12), 0.5)
        row, column = (min(int(12 * value), 11) for value in vector[:2])
        point[0, 0, row, column] = vector[2]
        return -float(hills(point))

    rng = np.random.default_rng(0)
    theirs = []
    for seed in range(20):
        places = rng.random((population, 2))
        colours = np.clip(rng.normal(128 / 255, 127 / 255, (population, 1)), 0, 1)
        found = differential_evolution(
            painted,
            [(0, 1)] * 3,
            init=np.hstack([places, colours]),
            maxiter=generations,
            strategy="rand1bin",
            mutation=0.5,
            recombination=1.0,
            updating="deferred",
            tol=0,
            polish=False,
            rng=seed,
        )
        theirs.append(-found.fun)
    random = max(-painted(vector) for vector in rng.random((population, 3)))
    assert ours.mean() > random  # it gets ahead of its first generation
    assert ours.mean() == pytest.approx(np.mean(theirs), abs=2.5 * math.hypot(ours.std(), np.std(theirs)) / 20**0.5)


def test_one_generation_by_hand():
    """Children are a + 0.5 (b - c) of the parents, cut off at 0 and 1, and take the place of worse parents only."""
    inputs = torch.full((2, 1, 6, 6), 0.5)
    attack_, rows = OnePixelDE(population=5, generations=1), rows_for(inputs, Norm.L0, 2)
    attack_.start(rows, RNG)
    parents = rows.memory["parents"].clone()
    play_on(attack_, rows, 5)
    assert torch.equal(rows.memory["parents"], parents)
    fitness = rows.memory["fitness"].clone()
    assert torch.allclose(fitness, torch.stack([hills(_painted(inputs, parents[:, i])) for i in range(5)], 1))
    for place in range(5):
        three = torch.stack(_three(rows.memory["random"][:, 5 + place], 5), 1)
        child = torch.stack([p[a] + 0.5 * (p[b] - p[c]) for p, (a, b, c) in zip(parents, three, strict=True)])
        child = child.clamp(0, 1)
        play_on(attack_, rows, 1)
        better = hills(_painted(inputs, child)) > fitness[:, place]
        expected = torch.where(better[:, None, None], child, parents[:, place])
        assert torch.allclose(rows.memory["following"][:, place], expected)
    assert torch.equal(rows.memory["parents"], rows.memory["following"])
    assert rows.done.all()


def play_on(attack_, rows, steps):
    for _ in range(steps):
        query = attack_.ask(rows, RNG)
        rows.step = rows.step + 1
        attack_.tell(rows, query, Answer(hills(query.points), torch.ones(len(rows)), None))


def test_the_first_generation_is_the_published_one():
    """Uniform places; colours of mean 128 and standard deviation 127, cut off at 0 and 255."""
    rows = rows_for(torch.full((20, 3, 4, 4), 0.5), Norm.L0, 1)
    OnePixelDE().start(rows, RNG)
    parents = rows.memory["parents"]
    assert parents.shape == (20, 400, 1, 5)
    places, colours = parents[..., :2], parents[..., 2:]
    assert places.mean() == pytest.approx(0.5, abs=0.01)
    assert places.std() == pytest.approx(1 / 12**0.5, abs=0.01)
    normal = torch.distributions.Normal(128 / 255, 127 / 255)
    assert (colours == 0).float().mean() == pytest.approx(float(normal.cdf(torch.tensor(0.0))), abs=0.01)
    assert (colours < 0.25).float().mean() == pytest.approx(float(normal.cdf(torch.tensor(0.25))), abs=0.01)
    assert OnePixelDE().steps == 400 * 101


def test_three_parents_differ_and_are_equally_likely():
    triples = torch.stack(_three(torch.rand(6000, 3, generator=torch.Generator().manual_seed(0)), 5), 1)
    assert (triples.sort(dim=1).values.diff(dim=1) > 0).all()
    counts = torch.stack([torch.bincount(column, minlength=5) for column in triples.T])
    assert (counts - 1200).abs().max() < 150
    assert len(triples.unique(dim=0)) == 60


def test_a_row_ends_where_all_parents_are_the_same():
    rows = rows_for(torch.full((2, 1, 4, 4), 0.5), Norm.L0, 1)
    attack_ = OnePixelDE(population=3, generations=50)
    attack_.start(rows, RNG)
    rows.memory["parents"][0] = rows.memory["parents"][0, :1]
    play_on(attack_, rows, 3)
    assert rows.done.tolist() == [True, False]


def test_it_breaks_no_sample_of_a_linear_model_that_is_robust():
    model = linear(2, shape=(1, 6, 6))
    batch = batch_for(model, images(40, shape=(1, 6, 6), low=0.0, high=1.0))
    member = Member(
        name="de",
        attack="attacks.one_pixel_de:OnePixelDE",
        options={"population": 30, "generations": 15},
        objective="cross-entropy",
    )
    protocol = protocol_of(member, eps=(1, 2), norm=Norm.L0)
    for result in attack(model, batch, protocol, slots=20).budgets:
        gap = robust_gap(model, batch, result.budget.size, Norm.L0)
        robust = result.scores > 0.5
        assert robust[gap > 1e-4].all()
        assert (~robust).sum() >= 0.6 * (gap < 0).sum() > 3


@pytest.mark.parametrize("scope", list(Scope))
def test_modalities_and_supports(scope):
    inputs = images(3, shape=(2, 2, 4, 4))
    support = torch.ones_like(inputs, dtype=torch.bool)
    support[..., 0] = False
    rows = rows_for(inputs, Norm.L0, 2, support=support, scope=scope)
    asked = play(OnePixelDE(population=8, generations=3), rows, lambda points: points.flatten(1).sum(1))
    counts = (asked != inputs).any(3).flatten(3).sum(3)
    assert (counts <= 2).all()
    assert scope is Scope.EACH or (counts.sum(2) <= 2).all()
    assert counts[..., 0].max() > 0
    assert counts[..., 1].max() > 0
    assert torch.equal(asked[..., 0], inputs[..., 0].expand_as(asked[..., 0]))


def test_what_makes_no_sense_is_refused():
    with pytest.raises(InvalidEntryError, match="3 or more, got 2"):
        OnePixelDE(population=2)
    with pytest.raises(InvalidEntryError, match="for L0, got L1"):
        OnePixelDE().start(rows_for(images(1, shape=(1, 4, 4)), Norm.L1, 1.0), RNG)
