"""Noise-injection defenses: the gates' equations by hand, the networks, random weights, and what entries declare."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from attacks.bpda import straight_through
from attacks.keyed_noise import KeyedNoise
from defenses.build import build_untrained
from defenses.noise import attention_noise, uman, weight_noise
from defenses.noise.attention_noise import LUMAN, NUMAN, ChannelAttention, SpatialAttention, learned_omegas
from defenses.noise.weight_noise import RandomProjectionConv2d, WeightNoise, learned_alphas
from defenses.recipes import half_clean
from registry import DATASETS, DEFENSES, Family, Randomness, load_entries
from registry.errors import InvalidEntryError
from tests.test_architectures import parameters, spec
from tests.test_recipes import toy_dataset

load_entries()
SAMPLE = ("Dhar2026UMAN", "Dhar2026UMANTuned", "Dhar2026NUMAN", "Dhar2026LUMAN", "GaussianInputNoise")
MODEL = ("He2019PNI", "Dong2023RPF")


def set_all(module: nn.Module, value: float) -> nn.Module:
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.fill_(value)
    return module


def logistic(value: float) -> float:
    return 1 / (1 + math.exp(-value))


@pytest.fixture
def fixed_draws(monkeypatch):
    """Makes the calls of randn_like return the given numbers, one after the other."""

    def fix(*numbers: float):
        waiting = list(numbers)
        monkeypatch.setattr(torch, "randn_like", lambda like: torch.full_like(like, waiting.pop(0)))
        return waiting

    return fix


def test_attentions_by_hand():
    inputs = torch.tensor([[[[1.0, 3.0]], [[-2.0, 0.0]]]])  # (1, 2, 1, 2); channel means 2 and -1
    spatial = set_all(SpatialAttention(2), 0.5)
    left, right = logistic(0.5 * (1 - 2) + 0.5), logistic(0.5 * (3 + 0) + 0.5)
    assert torch.allclose(spatial(inputs), torch.tensor([[[[left, 3 * right]], [[-2 * left, 0.0]]]]))
    channel = set_all(ChannelAttention(2), 0.5)
    weight = logistic(0.5 * (0.5 * (2 - 1) + 0.5) + 0.5)
    assert torch.allclose(channel(inputs), inputs * weight)


def test_one_channel_has_one_hidden_unit():
    assert ChannelAttention(1).squeeze.out_features == 1
    assert ChannelAttention(5).squeeze.out_features == 2


def test_numan_by_hand(fixed_draws):
    gate, inputs = set_all(NUMAN(1, sigma=0.5), 0.0), torch.full((1, 1, 2, 2), 0.8)  # weights of attention are 1/2
    left = fixed_draws(0.4, -0.2)
    assert torch.allclose(gate(inputs), inputs * (0.4 + 0.2) * (0.4 - 0.1))
    assert not left
    fixed_draws(3.0, 0.0)
    assert torch.allclose(gate(inputs), inputs * 1.0 * 0.4)  # the first gate is clipped
    fixed_draws(-3.0, 0.0)
    assert gate(inputs).eq(0).all()


def test_luman_by_hand(fixed_draws):
    gate, inputs = set_all(LUMAN(1, sigma=0.5), 0.0), torch.full((1, 1, 2, 2), 0.8)
    with torch.no_grad():
        gate.omega_spatial.fill_(0.5)
        gate.omega_channel.fill_(2.0)
    fixed_draws(0.4, -0.2)  # n is 0.2 and -0.1: n + n^2 is 0.24 and -0.09
    a, b = 0.4 + 0.5 * 0.24, 0.4 + 2.0 * -0.09
    assert torch.allclose(gate(inputs), inputs * (a * b) ** 3)


@pytest.mark.parametrize(("make", "channels"), [(NUMAN, 1), (LUMAN, 6)], ids=["NUMAN", "LUMAN"])
def test_the_stand_in_is_the_mean_over_the_noise_and_never_flat(make, channels):
    torch.manual_seed(0)
    gate = make(channels)
    inputs = torch.rand(2, gate.channel.squeeze.in_features, 5, 5, requires_grad=True)
    with torch.no_grad():
        mean = torch.stack([gate(inputs) for _ in range(3000)]).mean(0)
    twin = gate.bpda_twin(inputs)
    assert torch.allclose(twin, mean, atol=0.03)
    assert twin.mean().item() == pytest.approx(mean.mean().item(), rel=0.02)
    slope = torch.autograd.grad(twin.sum(), inputs)[0]
    assert (slope.abs() > 1e-3).all()


def test_straight_through_a_shut_gate_still_has_a_gradient(fixed_draws):
    gate, inputs = set_all(NUMAN(1, sigma=1.0), 0.0), torch.full((1, 1, 2, 2), 0.8, requires_grad=True)

    def slope() -> torch.Tensor:
        fixed_draws(-3.0, 0.0)  # the first gate is shut, the second lets 0.4 through
        gated = gate(inputs)
        assert gated.eq(0).all()
        return torch.autograd.grad(gated.sum(), inputs)[0]

    assert slope().eq(0).all()
    with straight_through(nn.Sequential(gate)):
        assert torch.allclose(slope(), torch.full_like(inputs, 0.8 * 0.5 * 0.4))  # x s b
    assert slope().eq(0).all()


def test_negative_features_shut_the_gates_of_luman(fixed_draws):
    gate = set_all(LUMAN(1), 0.0)
    fixed_draws(0.0, 0.0)
    assert gate(torch.full((1, 1, 2, 2), -0.8)).eq(0).all()


def test_gates_of_numan_are_shut_as_often_as_calculated():
    """a is 0 where n1 <= -x/2: at x = 0 both gates let through in a quarter of the draws, at x = 1 in 0.69^2."""
    torch.manual_seed(0)
    gate = set_all(NUMAN(1), 0.0)
    for value, shut in ((1.0, 0.522), (0.5, 0.642)):
        share = gate(torch.full((1, 1, 300, 300), value)).eq(0).float().mean()
        assert abs(float(share) - shut) < 0.01


def test_noise_off_draws_nothing_and_trains_no_omega():
    model = uman.build(spec(), input_sigma=0.0, feature_sigma=0.0, width=4).eval()
    inputs = torch.rand(3, 1, 28, 28)
    before = torch.random.get_rng_state()
    with torch.no_grad():
        assert torch.equal(model(inputs), model(inputs))
    assert torch.equal(before, torch.random.get_rng_state())
    assert not any(p.requires_grad for name, p in model.named_parameters() if "omega" in name)


def test_noise_is_drawn_in_eval_and_in_training():
    model, inputs = uman.build(spec(), width=4), torch.rand(4, 1, 28, 28)
    for mode in (True, False):
        model.train(mode)
        assert not torch.equal(model(inputs), model(inputs))


def test_the_network_has_one_numan_and_26_luman_and_its_ablations_one_kind():
    for sigmas, expected in (((1.0, 1.0), (1, 26)), ((1.0, None), (1, 0)), ((None, 1.0), (0, 26))):
        model = uman.build(spec(), input_sigma=sigmas[0], feature_sigma=sigmas[1], width=4)
        kinds = [sum(isinstance(m, kind) for m in model.modules()) for kind in (NUMAN, LUMAN)]
        assert tuple(kinds) == expected


def test_the_published_form_is_chosen_by_size():
    full, small = uman.build(spec(shape=(3, 128, 128))), uman.build(spec(shape=(3, 64, 64)))
    assert (full.full, full.stem[0].kernel_size, full.stem[0].out_channels) == (True, (7, 7), 64)
    assert (small.full, small.stem[0].stride, small.stem[0].out_channels) == (False, (2, 2), 16)
    assert isinstance(full.stem[-1], nn.MaxPool2d)
    gates = sum(parameters(m) for m in full.modules() if isinstance(m, (NUMAN, LUMAN)))
    assert parameters(full) - gates == 11_176_512 + 2 * 513  # ResNet-18 without its head, and a head of 2 logits


def test_a_block_keeps_the_published_order():
    """The shortcut leaves behind the first gate, and ReLU comes before the first normalisation."""
    torch.manual_seed(0)
    block = uman.GatedBlock(4, 4, 1, sigma=0.0).eval()
    with torch.no_grad():
        block.norm1.running_mean.fill_(0.3)
    inputs = torch.randn(2, 4, 6, 6)
    gated = block.gate_input(inputs)
    hidden = block.gate_hidden(block.norm1(F.relu(block.conv1(gated))))
    assert block.norm1(F.relu(block.conv1(gated))).min() < 0
    expected = F.relu(block.gate_sum(block.norm2(block.conv2(hidden)) + gated))
    assert torch.allclose(block(inputs), expected)


def test_gradients_reach_image_and_omegas():
    torch.manual_seed(0)
    model, inputs = uman.build(spec(), width=4), torch.rand(8, 1, 28, 28, requires_grad=True)
    F.cross_entropy(model(inputs), torch.arange(8) % 2).backward()
    assert inputs.grad.abs().sum() > 0
    touched = [p.grad.abs().item() > 0 for name, p in model.named_parameters() if "omega" in name]
    assert sum(touched) == len(touched) == 52


def test_omegas_are_reported_by_module():
    omegas = learned_omegas(uman.build(spec(), width=4))
    assert len(omegas) == 26
    assert set(omegas.values()) == {(1.0, 1.0)}
    assert "blocks.3.gate_hidden" in omegas


def test_uman_refuses_other_tasks_and_negative_noise():
    with pytest.raises(InvalidEntryError, match="choose a data set for classification"):
        uman.build(spec("segmentation"))
    with pytest.raises(InvalidEntryError, match="0 turns it off"):
        attention_noise.NUMAN(1, -1.0)


def test_weight_noise_has_the_scale_that_alpha_says():
    torch.manual_seed(0)
    weight, noise = torch.randn(100, 100) * 3, WeightNoise(0.5)
    added = (noise(weight) - weight).detach()
    assert float(added.std()) == pytest.approx(0.5 * float(weight.std()), rel=0.03)
    weight.requires_grad_(True)
    (slope,) = torch.autograd.grad(noise(weight).sum(), weight)
    assert torch.allclose(slope, torch.ones_like(slope))  # none through the standard deviation


def test_every_layer_gets_a_learned_alpha():
    model = weight_noise.noisy_weights(spec(), alpha=0.25, width=4)
    layers = sum(isinstance(m, (nn.Conv2d, nn.Linear)) for m in model.modules())
    assert len(learned_alphas(model)) == layers == 21
    assert set(learned_alphas(model).values()) == {0.25}
    F.cross_entropy(model(torch.rand(4, 1, 28, 28)), torch.arange(4) % 2).backward()
    assert all(m.alpha.grad.abs().item() > 0 for m in model.modules() if isinstance(m, WeightNoise))


def test_random_filters_are_fresh_and_have_the_scale_of_trained_ones():
    torch.manual_seed(0)
    layer = RandomProjectionConv2d(3, 64, 48, 3, 1, 1)
    one, other = layer.filters(), layer.filters()
    assert one.shape == (64, 3, 3, 3)
    assert not torch.isclose(one[:48], other[:48]).any()
    assert torch.equal(one[48:], other[48:])
    assert float(one[:48].detach().std()) == pytest.approx(1 / 3, rel=0.05)
    assert torch.allclose(one[48:].flatten(1).std(1), torch.full((16,), 1 / 3), rtol=1e-3)


def test_trained_filters_are_scaled_and_not_centred():
    layer = RandomProjectionConv2d(1, 1, 0, 2, 1, 0)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[[[1.0, 3.0], [1.0, 3.0]]]]))
    deviation = (4 / 3) ** 0.5  # of 1, 3, 1, 3 with n - 1 in the denominator
    expected = torch.tensor([[1.0, 3.0], [1.0, 3.0]]) / (deviation * 2)
    assert torch.allclose(layer.filters()[0, 0], expected, rtol=1e-4)


def test_random_projection_replaces_the_first_convolution_of_either_network():
    small = weight_noise.random_projection(spec(), width=16)
    assert isinstance(small.stem[0], RandomProjectionConv2d)
    assert (small.stem[0].n_random, len(small.stem[0].weight)) == (12, 4)
    large = weight_noise.random_projection(spec(shape=(3, 128, 128)))
    assert large[1].conv1.n_random == 48
    with torch.no_grad():
        assert large.eval()(torch.rand(2, 3, 128, 128)).shape == (2, 2)
    with pytest.raises(InvalidEntryError, match="random filters"):
        weight_noise.random_projection(spec(), share=1.0)


def test_half_clean_training_learns_and_moves_alpha():
    dataset = toy_dataset()
    torch.manual_seed(0)
    model = weight_noise.noisy_weights(dataset.spec, width=4)
    options = {"epochs": 2, "steps": 1, "validation_steps": 1, "eps": 2 / 255}
    training = half_clean.train(model, dataset, options, seed=0, device="cpu")
    assert len(training.curve) == 2
    assert "val_robust" in training.curve[0]
    assert any(abs(alpha - 0.25) > 1e-4 for alpha in learned_alphas(model).values())


@pytest.mark.parametrize("name", SAMPLE)
def test_noise_of_an_image_does_not_depend_on_its_neighbours(name):
    dataset = DATASETS["phantom2"]
    torch.manual_seed(0)
    model = build_untrained(DEFENSES[name], dataset).eval()
    inputs, keys = torch.rand(4, *dataset.input_shape), torch.arange(4)
    with torch.no_grad():
        with KeyedNoise(keys):
            together = model(inputs)
        with KeyedNoise(keys[2:]):
            apart = model(inputs[2:])
    assert torch.allclose(together[2:], apart, atol=1e-5)


@pytest.mark.parametrize("name", [*SAMPLE, *MODEL, "Xie2018RandomResizePad", "Dhar2026UMANNoiseOff"])
def test_entries_say_what_they_do(name):
    entry = DEFENSES[name]
    kind = Randomness.NONE if name.endswith("Off") else Randomness.MODEL if name in MODEL else Randomness.SAMPLE
    assert entry.randomness is kind
    assert not entry.is_control
    assert entry.departures
    assert (entry.family is Family.NOISE_INJECTION) == (name != "Xie2018RandomResizePad")
