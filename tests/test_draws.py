"""Keyed randomness: a row's numbers depend on its key alone, look like what they claim, and no operator escapes."""

import itertools
import math

import pytest
import torch
from scipy import stats
from torch import nn
from torch.nn import functional as F

from attacks.draws import _GOLDEN, KeyedRandom, _mix
from attacks.keyed_noise import KeyedNoise
from registry.errors import ModelContractError

RNG = KeyedRandom(seed=3)
IDS = torch.arange(6) + 40
SHAPE = (2, 5, 5)

DRAWS = {
    "rand_like": lambda x: torch.rand_like(x),
    "randn_like": lambda x: torch.randn_like(x),
    "rand": lambda x: torch.rand(x.shape),
    "randn": lambda x: torch.randn(x.shape),
    "normal_": lambda x: torch.empty_like(x).normal_(0.5, 2.0),
    "uniform_": lambda x: torch.empty_like(x).uniform_(-1, 3),
    "bernoulli_": lambda x: torch.empty_like(x).bernoulli_(0.3),
    "bernoulli": lambda x: torch.bernoulli(torch.full_like(x, 0.3)),
    "bernoulli of p": lambda x: torch.bernoulli(x, 0.3),
    "bernoulli_ of tensor": lambda x: torch.empty_like(x).bernoulli_(torch.full_like(x, 0.3)),
    "normal of size": lambda x: torch.normal(0.5, 2.0, x.shape),
    "normal of tensors": lambda x: torch.normal(torch.full_like(x, 0.5), torch.full_like(x, 2.0)),
    "normal of mean": lambda x: torch.normal(torch.full_like(x, 0.5), 2.0),
    "normal of std": lambda x: torch.normal(0.5, torch.full_like(x, 2.0)),
    "dropout": lambda x: F.dropout(torch.ones_like(x), 0.3, training=True),
    "Dropout": lambda x: nn.Dropout(0.3).train()(torch.ones_like(x)),
    "native_dropout": lambda x: torch.native_dropout(torch.ones_like(x), 0.3, True)[0],
    "dropout2d": lambda x: F.dropout2d(torch.ones_like(x), 0.3, training=True),
    "channels-last": lambda x: torch.randn_like(x.to(memory_format=torch.channels_last)),
    "double": lambda x: torch.randn(x.shape, dtype=torch.float64),
    "rand like whole numbers": lambda x: torch.rand_like(x.to(torch.uint8), dtype=torch.float32),
    "randn like a mask": lambda x: torch.randn_like(x > 0, dtype=torch.float32),
    "a mask": lambda x: torch.empty_like(x, dtype=torch.bool).bernoulli_(0.3).float(),
    "a mask of whole numbers": lambda x: torch.empty_like(x, dtype=torch.uint8).bernoulli_(0.3).float(),
    "normal of shapes": lambda x: torch.normal(torch.full_like(x[..., :1], 0.5), torch.full_like(x, 2.0)),
}
MOMENTS = {  # mean and standard deviation
    "rand_like": (0.5, 12**-0.5),
    "randn_like": (0.0, 1.0),
    "rand": (0.5, 12**-0.5),
    "randn": (0.0, 1.0),
    "normal_": (0.5, 2.0),
    "uniform_": (1.0, 4 * 12**-0.5),
    "bernoulli_": (0.3, 0.21**0.5),
    "bernoulli": (0.3, 0.21**0.5),
    "bernoulli of p": (0.3, 0.21**0.5),
    "bernoulli_ of tensor": (0.3, 0.21**0.5),
    "normal of size": (0.5, 2.0),
    "normal of tensors": (0.5, 2.0),
    "normal of mean": (0.5, 2.0),
    "normal of std": (0.5, 2.0),
    "dropout": (1.0, (0.3 / 0.7) ** 0.5),
    "Dropout": (1.0, (0.3 / 0.7) ** 0.5),
    "native_dropout": (1.0, (0.3 / 0.7) ** 0.5),
    "dropout2d": (1.0, (0.3 / 0.7) ** 0.5),
    "channels-last": (0.0, 1.0),
    "double": (0.0, 1.0),
    "rand like whole numbers": (0.5, 12**-0.5),
    "randn like a mask": (0.0, 1.0),
    "a mask": (0.3, 0.21**0.5),
    "a mask of whole numbers": (0.3, 0.21**0.5),
    "normal of shapes": (0.5, 2.0),
}
REFUSED = {
    "randint": lambda x: torch.randint(0, 5, x.shape),
    "randint_like": lambda x: torch.randint_like(x, 5),
    "randperm": lambda x: torch.randperm(len(x)),
    "random_": lambda x: torch.empty_like(x).random_(),
    "exponential_": lambda x: torch.empty_like(x).exponential_(),
    "log_normal_": lambda x: torch.empty_like(x).log_normal_(),
    "cauchy_": lambda x: torch.empty_like(x).cauchy_(),
    "geometric_": lambda x: torch.empty_like(x).geometric_(0.5),
    "poisson": lambda x: torch.poisson(torch.ones_like(x)),
    "multinomial": lambda x: torch.multinomial(torch.ones(len(x), 3), 1),
    "binomial": lambda x: torch.binomial(torch.ones_like(x), torch.full_like(x, 0.5)),
    "rrelu": lambda x: F.rrelu(x - 1, training=True),
    "gamma": lambda x: torch._standard_gamma(torch.ones_like(x)),
}


def drawn(name, ids, draw=0, shape=SHAPE):
    with KeyedNoise(RNG.keys(ids, draw)):
        return DRAWS[name](torch.zeros(len(ids), *shape))


def test_every_replacement_is_tested():
    assert set(DRAWS) == set(MOMENTS)


@pytest.mark.parametrize("name", DRAWS)
def test_alone_batched_and_shuffled_draw_the_same_numbers(name):
    together = drawn(name, IDS)
    alone = torch.cat([drawn(name, IDS[row : row + 1]) for row in range(len(IDS))])
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    assert torch.equal(together, alone)
    assert torch.equal(drawn(name, IDS[order]), together[order])


@pytest.mark.parametrize("name", DRAWS)
def test_torchs_generator_is_neither_read_nor_moved(name):
    before = torch.random.get_rng_state()
    first = drawn(name, IDS)
    torch.manual_seed(77)
    assert torch.equal(drawn(name, IDS), first)
    torch.random.set_rng_state(before)
    drawn(name, IDS)
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("name", DRAWS)
def test_moments(name):
    values = drawn(name, torch.arange(400), shape=(10, 4, 4)).double()
    mean, spread = MOMENTS[name]
    independent = 4000 if name == "dropout2d" else values.numel()
    assert abs(float(values.mean()) - mean) < 5 * spread / math.sqrt(independent)
    assert float(values.std()) == pytest.approx(spread, rel=0.03)
    if name != "dropout2d":
        assert float(values.mean((1, 2, 3)).std()) == pytest.approx(spread / math.sqrt(160), rel=0.15)


@pytest.mark.parametrize(
    ("draw", "law"), [(KeyedRandom.uniform, "uniform"), (KeyedRandom.normal, "norm")], ids=["uniform", "normal"]
)
def test_distribution(draw, law):
    values = draw(RNG.keys(torch.arange(100)), (100,)).flatten().double().numpy()
    assert stats.kstest(values, law).pvalue > 0.001


def test_uniform_numbers_stay_below_one():
    values = KeyedRandom.uniform(RNG.keys(torch.arange(200)), (5000,))
    assert values.min() >= 0
    assert values.max() < 1


def test_normal_numbers_are_finite():
    assert torch.isfinite(KeyedRandom.normal(RNG.keys(torch.arange(200)), (5000,))).all()


def test_samples_draws_ordinals_seeds_and_streams_are_independent():
    def values(rng=RNG, sample=7, draw=0, restart=0, ordinal=0):
        return rng.normal(rng.keys(torch.tensor([sample]), restart, draw), (4096,), ordinal)[0].double()

    streams = [
        *(values(sample=s) for s in (7, 8, 9)),
        *(values(draw=d) for d in (1, 2)),
        *(values(restart=r) for r in (1, 2)),
        *(values(ordinal=o) for o in (1, 2)),
        values(KeyedRandom(seed=4)),
        values(KeyedRandom(seed=3, stream=1)),
        values(KeyedRandom(seed=4, stream=1)),
    ]
    for first, second in itertools.combinations(streams, 2):
        assert abs(float((first * second).mean())) < 5 / math.sqrt(4096)
        assert not torch.equal(first, second)


def test_neighbouring_places_are_independent():
    values = RNG.normal(RNG.keys(torch.arange(50)), (2000,)).double()
    for lag in (1, 2, 3, 28):
        assert abs(float((values[:, lag:] * values[:, :-lag]).mean())) < 5 / math.sqrt(50 * 2000)


@pytest.mark.parametrize("draw", [KeyedRandom.uniform, KeyedRandom.normal])
def test_parts_draw_what_the_whole_draws(monkeypatch, draw):
    row_keys = KeyedRandom(seed=3).keys(torch.arange(5))
    whole = draw(row_keys, (7, 3))
    monkeypatch.setattr("attacks.draws._PART", 2 * 21)  # parts of two rows, and one row left over
    assert torch.equal(draw(row_keys, (7, 3)), whole)


def test_counters_do_not_commute():
    one, two = torch.tensor([1]), torch.tensor([2])
    assert RNG.keys(one, 2) != RNG.keys(two, 1)
    assert RNG.keys(one, 1, 2) != RNG.keys(one, 2, 1)


def test_two_calls_of_one_forward_pass_differ():
    with KeyedNoise(RNG.keys(IDS)):
        first, second = torch.randn(6, 50), torch.randn(6, 50)
    assert not torch.equal(first, second)
    assert abs(float((first * second).mean())) < 5 / math.sqrt(300)


@pytest.mark.parametrize("name", REFUSED)
def test_operators_that_cannot_be_keyed_are_refused(name):
    with pytest.raises(ModelContractError, match="cannot be keyed by sample"), KeyedNoise(RNG.keys(IDS)):
        REFUSED[name](torch.ones(6, 4, 4, 4))


def test_dropout_inside_attention_is_keyed():
    values = torch.randn(6, 2, 4, 8, generator=torch.Generator().manual_seed(0))

    def attend(rows):
        with KeyedNoise(RNG.keys(IDS[rows])):
            return F.scaled_dot_product_attention(values[rows], values[rows], values[rows], dropout_p=0.5)

    alone = torch.cat([attend(slice(row, row + 1)) for row in range(6)])
    assert torch.allclose(attend(slice(0, 6)), alone, atol=1e-6)
    assert not torch.allclose(alone, F.scaled_dot_product_attention(values, values, values), atol=1e-2)


@pytest.mark.parametrize("shape", [(5, 5), (1, 3), (), (12, 2)])
def test_a_draw_without_the_batch_in_front_is_refused(shape):
    with pytest.raises(ModelContractError, match="leading axis"), KeyedNoise(RNG.keys(IDS)):
        torch.randn(shape)


def test_dropout_passes_gradients_through_what_it_keeps():
    inputs = torch.ones(6, 40, requires_grad=True)
    for drop in (lambda x: F.dropout(x, 0.5, training=True), lambda x: torch.native_dropout(x, 0.5, True)[0]):
        with KeyedNoise(RNG.keys(IDS)):
            outputs = drop(inputs)
        gradient = torch.autograd.grad(outputs.sum(), inputs)[0]
        assert torch.equal(gradient, outputs.detach())
        assert set(gradient.unique().tolist()) == {0.0, 2.0}


def test_dropout_outside_of_training_changes_nothing():
    with KeyedNoise(RNG.keys(IDS)):
        values = torch.native_dropout(torch.ones(6, 4), 0.5, False)[0]
        assert torch.equal(values, torch.ones(6, 4))
        assert torch.equal(F.dropout(torch.ones(6, 4), 0.5, training=False), torch.ones(6, 4))


def test_published_splitmix64_values():
    """The first outputs of SplitMix64 for seed 0, as published with its reference implementation."""
    state = torch.arange(1, 4) * _GOLDEN
    expected = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]
    assert [int(v) & 0xFFFFFFFFFFFFFFFF for v in _mix(state)] == expected
