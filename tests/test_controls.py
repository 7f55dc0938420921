"""Controls: each does what its entry says, and what is called its truth is true."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from scipy.optimize import linprog, minimize
from torch import nn

from attacks.draws import KeyedRandom
from attacks.keyed_noise import KeyedNoise
from datasets.batch import Batch
from defenses.build import build_untrained, defended_model
from defenses.certified.closed_form import certify_constant, certify_linear, largest_decrease
from defenses.controls.inputs import DropBits, HardClip, MeanFilter, Sine, Undeclared
from defenses.controls.moving import AntiAdversary, BatchStatistics, Counter
from defenses.controls.outputs import Probabilities, Saturated, Scaled, Votes
from defenses.controls.plain import Constant, Linear
from defenses.controls.randomised import LogitNoise, RandomResizePad
from defenses.stages import declared_stages
from defenses.transforms import BitDepth, Jpeg
from registry import DATASETS, DEFENSES, SUITES, Budget, Family, KnownBy, Norm, Randomness, linf, load_entries
from tests.toys import cnn, images

load_entries()
CONTROLS = [entry for entry in DEFENSES if entry.is_control]
BROKEN = [entry for entry in CONTROLS if entry.family is Family.CONTROL_BROKEN]
N = 24


@pytest.fixture(scope="module")
def phantom(tmp_path_factory):
    return DATASETS["phantom2"].load(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def batch(phantom) -> Batch:
    return phantom.splits["test"].take(np.arange(N))


def accuracy(model: nn.Module, batch: Batch) -> float:
    with torch.no_grad():
        return float((model(batch.inputs).argmax(1) == batch.targets["label"]).float().mean())


def slope(function, inputs: torch.Tensor) -> torch.Tensor:
    inputs = inputs.clone().requires_grad_(True)
    return torch.autograd.grad(function(inputs).square().sum(), inputs)[0]


def test_there_are_enough_controls_and_each_states_its_truth():
    honest = [entry for entry in CONTROLS if entry not in BROKEN]
    assert len(BROKEN) >= 14
    assert len(honest) >= 5
    assert all(entry.name.startswith("Control") and entry.truth.statement for entry in CONTROLS)


@pytest.mark.parametrize("entry", CONTROLS, ids=lambda entry: entry.name)
def test_every_control_has_weights_for_the_phantom_and_is_better_than_chance(entry, phantom, batch):
    torch.manual_seed(0)
    model, _ = defended_model(entry, phantom.spec, 0, None)
    if entry.name == "ControlConstant":
        assert accuracy(model, batch) == max(accuracy(model, batch), 0.3)
        return
    assert accuracy(model, batch) > 0.7


@pytest.mark.parametrize("entry", CONTROLS, ids=lambda entry: entry.name)
def test_declared_randomness_is_drawn_and_nothing_else(entry, phantom, batch):
    base = build_untrained(DEFENSES[entry.base], phantom.spec) if entry.base else None
    model = build_untrained(entry, phantom.spec, base=base).eval()
    few = batch.inputs[:4]
    with torch.no_grad(), KeyedNoise(KeyedRandom(seed=0).keys(batch.sample_ids[:4])):
        keyed = model(few)
    assert keyed.shape == (4, 2)
    with torch.no_grad():
        differ = not torch.equal(model(few), model(few))
    undeclared = entry.name == "ControlCounter"
    assert differ == (entry.randomness is not Randomness.NONE or undeclared)


@pytest.mark.parametrize(
    "entry", [entry for entry in CONTROLS if entry.truth.known_by is KnownBy.BASE], ids=lambda entry: entry.name
)
def test_a_truth_known_by_the_base_means_the_same_decisions(entry, phantom, batch):
    model, _ = defended_model(entry, phantom.spec, 0, None)
    base, _ = defended_model(DEFENSES[entry.base], phantom.spec, 0, None)
    noisy = (batch.inputs + 0.1 * torch.randn_like(batch.inputs)).clamp(0, 1)
    for inputs in (batch.inputs, noisy):
        assert torch.equal(model(inputs).argmax(1), base(inputs).argmax(1))


def test_suites_leave_controls_out_unless_they_are_asked_for():
    import benchmark.suites  # noqa: F401 - registers the suites
    from benchmark.selection import Choice, Registries, select

    for suite in ("smoke", "lite", "full"):
        assert not any(entry.is_control for entry in select(SUITES[suite], Choice(), Registries()).defenses)
    asked = select(SUITES["full"], Choice(defenses=("ControlSine",)), Registries()).defenses
    assert [entry.name for entry in asked] == ["ControlSine"]
    chosen = {entry.name for entry in select(SUITES["controls"], Choice(), Registries()).defenses}
    assert chosen >= {entry.name for entry in DEFENSES if entry.truth is not None}


def test_rounded_inputs_have_no_gradient_and_declare_no_stage():
    for transform in (Undeclared(BitDepth(8)), Undeclared(Jpeg(95))):
        assert not slope(transform, images(3)).any()
        assert declared_stages(transform) == ()
    on_levels = (images(3) * 255).round() / 255
    assert torch.allclose(Undeclared(BitDepth(8))(on_levels), on_levels)


def test_a_ripple_hardly_moves_values_and_turns_the_gradient_around():
    inputs = images(4, low=0.0, high=1.0).requires_grad_(True)
    outputs = Sine(0.002, 10000.0)(inputs)
    assert (outputs - inputs).abs().max() <= 0.002
    (gradient,) = torch.autograd.grad(outputs.sum(), inputs)
    assert 0.2 < float((gradient < 0).float().mean()) < 0.8


def test_bits_are_cleared_without_any_path_of_the_gradient():
    inputs = torch.tensor([0, 1, 2, 127, 255]).reshape(1, 1, 1, 5) / 255
    assert torch.allclose(DropBits(1)(inputs) * 255, torch.tensor([0.0, 0, 2, 126, 254]))
    assert not DropBits(1)(inputs.requires_grad_(True)).requires_grad


def test_clipped_values_have_no_gradient():
    inputs = torch.tensor([[0.0, 0.5, 1.0]])
    assert slope(HardClip(0.1, 0.7), inputs).ne(0).tolist() == [[False, True, False]]


def test_a_mean_filter_is_the_mean():
    inputs = images(1, shape=(1, 5, 5))
    assert torch.allclose(MeanFilter()(inputs)[0, 0, 2, 2], inputs[0, 0, 1:4, 1:4].mean())


@pytest.mark.parametrize("n_classes", [2, 4])
def test_saturated_outputs_keep_the_decision_and_lose_the_gradient(n_classes):
    net = cnn(n_classes)
    inputs = images(40, shape=(1, 8, 8))
    model = Saturated(net, 1e5)
    assert torch.equal(model(inputs).argmax(1), net(inputs).argmax(1))
    assert float((slope(model, inputs).flatten(1).abs().amax(1) == 0).float().mean()) > 0.9


def test_other_outputs_keep_the_decision():
    net, inputs = cnn(4), images(40, shape=(1, 8, 8))
    for model in (Scaled(net, 1e4), Probabilities(net), Votes(net, 4, (1, 8, 8), 5, 0.0)):
        assert torch.equal(model(inputs).argmax(1), net(inputs).argmax(1))
    assert torch.allclose(Probabilities(net)(inputs).sum(1), torch.ones(40))


def test_votes_are_counts_without_gradient():
    counts = Votes(cnn(4), 4, (1, 8, 8), 5, 0.01)(images(6, shape=(1, 8, 8)).requires_grad_(True))
    assert not counts.requires_grad
    assert counts.sum(1).tolist() == [5.0] * 6
    assert torch.equal(counts, counts.round())


def test_a_counter_answers_each_call_differently():
    model, inputs = Counter(cnn(2), 1.0), images(3, shape=(1, 8, 8))
    first, second = model(inputs), model(inputs)
    assert (first - second).abs().max() > 0.01


def test_batch_statistics_stay_in_training_mode_and_mix_rows():
    model = BatchStatistics(cnn(2)).eval()
    inputs = images(6, shape=(1, 8, 8))
    assert not model.training
    assert [type(m).__name__ for m in model.modules() if m.training] == ["BatchNorm2d"]
    assert not torch.allclose(model(inputs)[:1], model(inputs[:1]), atol=1e-4)


def test_an_anti_adversary_is_surer_of_the_same_answer():
    net, inputs = cnn(3), images(20, shape=(1, 8, 8))
    before, after = net(inputs), AntiAdversary(net, 3, 0.01)(inputs)
    assert torch.equal(before.argmax(1), after.argmax(1))
    assert (after.softmax(1).amax(1) > before.softmax(1).amax(1)).all()
    with torch.no_grad():
        assert torch.allclose(AntiAdversary(net, 3, 0.01)(inputs), after.detach())


def test_resizing_pads_with_zeros_and_is_differentiable():
    inputs = images(30, shape=(2, 28, 28), low=0.5)
    outputs = RandomResizePad()(inputs)
    assert outputs.shape == (30, 2, 31, 31)
    assert (outputs[:, :, 0] == 0).flatten(1).all(1).any()
    kept = outputs.flatten(2).mean(2) * 31**2 / inputs.flatten(2).mean(2)
    assert (kept > 0.9 * 28**2).all()
    assert (kept < 1.1 * 31**2).all()
    assert slope(RandomResizePad(), inputs).flatten(1).ne(0).float().mean() > 0.9


def test_an_image_that_is_not_enlarged_is_only_shifted():
    inputs = images(1, shape=(1, 4, 4), low=0.5)
    rows = RandomResizePad._sources(4, 5, torch.tensor([0.0]), torch.tensor([0.9]))
    grid = torch.stack([rows[:, None, :].expand(1, 5, 5), rows[:, :, None].expand(1, 5, 5)], 3)
    shifted = torch.nn.functional.grid_sample(inputs, grid, align_corners=False)
    assert torch.allclose(shifted[:, :, 1:, 1:], inputs, atol=1e-6)


def test_noisy_logits_scatter_around_the_logits():
    net, inputs = cnn(2), images(1, shape=(1, 8, 8))
    noisy = LogitNoise(net, 0.5)(inputs.expand(4000, 1, 8, 8))
    assert torch.allclose(noisy.mean(0), net(inputs)[0], atol=0.05)
    assert torch.allclose(noisy.std(0), torch.tensor(0.5), atol=0.05)


def test_the_closed_form_equals_every_sign_of_an_exhaustive_attack():
    torch.manual_seed(3)
    model, inputs = Linear(8, 3).eval(), torch.rand(60, 1, 2, 4)
    with torch.no_grad():
        label = model(inputs).argmax(1)
    eps = 0.1
    robust = torch.ones(60, dtype=torch.bool)
    for signs in itertools.product((-1.0, 1.0), repeat=8):
        moved = (inputs + eps * torch.tensor(signs).reshape(1, 2, 4)).clamp(0, 1)
        with torch.no_grad():
            robust &= model(moved).argmax(1) == label
    batch = Batch(sample_ids=torch.arange(60), inputs=inputs, targets={"label": label})
    assert torch.equal(certify_linear(model, batch, [linf(eps)])[0].bool(), robust)
    assert 5 < int(robust.sum()) < 55


def linear_function(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns a slope and a point of two channels of 2 x 2 pixels in [0, 1]."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(1, 2, 2, 2, generator=generator, dtype=torch.float64)
    return weight, torch.rand(1, 2, 2, 2, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("seed", range(5))
def test_the_closed_form_in_l1_is_the_optimum_of_a_linear_program(seed):
    weight, inputs = linear_function(seed)
    w, x = weight.flatten().numpy(), inputs.flatten().numpy()
    cost = np.concatenate([w, -w])  # the change as its positive and its negative part
    bounds = [*((0, 1 - v) for v in x), *((0, v) for v in x)]
    for eps in (0.3, 1.7):
        best = linprog(cost, A_ub=np.ones((1, 16)), b_ub=[eps], bounds=bounds).fun
        assert float(largest_decrease(weight, inputs, Budget(norm=Norm.L1, eps=eps))) == pytest.approx(-best, abs=1e-9)


@pytest.mark.parametrize("seed", range(5))
def test_the_closed_form_in_l2_is_the_optimum_of_a_solver(seed):
    weight, inputs = linear_function(seed)
    w, x = weight.flatten().numpy(), inputs.flatten().numpy()
    for eps in (0.2, 0.9):
        within = {"type": "ineq", "fun": lambda change, eps=eps: eps**2 - change @ change}
        bounds = [(-v, 1 - v) for v in x]
        best = minimize(lambda change: w @ change, 0 * x, bounds=bounds, constraints=[within], tol=1e-10).fun
        assert float(largest_decrease(weight, inputs, Budget(norm=Norm.L2, eps=eps))) == pytest.approx(-best, abs=1e-5)


@pytest.mark.parametrize("seed", range(5))
def test_the_closed_form_in_l0_is_the_best_choice_of_pixels(seed):
    weight, inputs = linear_function(seed)
    worst = torch.where(weight > 0, 0.0, 1.0)
    found = 0.0
    for pixels in itertools.combinations(range(4), 2):
        chosen = torch.zeros(4, dtype=torch.bool).index_fill(0, torch.tensor(pixels), True).reshape(1, 1, 2, 2)
        found = max(found, float(((inputs - torch.where(chosen, worst, inputs)) * weight).sum()))
    assert float(largest_decrease(weight, inputs, Budget(norm=Norm.L0, eps=2))) == pytest.approx(found)


def test_the_truth_of_a_constant_predictor_is_the_share_of_its_class():
    model = Constant(3)
    with torch.no_grad():
        model.logits[1] = 1.0
    label = torch.tensor([1, 1, 0, 2])
    batch = Batch(sample_ids=torch.arange(4), inputs=images(4), targets={"label": label})
    assert certify_constant(model, batch, [linf(0.1), linf(1.0)]).tolist() == [[1.0, 1, 0, 0]] * 2
