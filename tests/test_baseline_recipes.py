"""Training-time baselines: their losses against hand-worked values, their steps, and that they learn."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from datasets.batch import Batch
from datasets.tasks import task_for
from defenses.architectures import dual_norm
from defenses.recipes import dual_norm_at, fgsm_at, gaussian, input_gradient, mart, standard
from defenses.recipes.fgsm_at import FgsmAtOptions, single_step
from defenses.recipes.inner_pgd import validation_attack
from defenses.recipes.input_gradient import penalised_loss
from defenses.recipes.mart import mart_loss
from defenses.recipes.training import fit
from defenses.seeding import seeded
from registry.errors import InvalidEntryError
from tests.test_recipes import EPS, QUICK, attacked, score, toy_dataset, toy_model, weights

INNER = {"eps": EPS, "validation_steps": 3}
RECIPES = {
    "mart": (mart, {**INNER, "steps": 2}),
    "fgsm_at": (fgsm_at, {**INNER, "step_size": 1.25 * EPS}),
    "n_fgsm": (fgsm_at, {**INNER, "step_size": EPS, "noise": 2.0, "project": False}),
    "input_gradient": (input_gradient, {**INNER, "penalty": 1.0}),
    "gaussian": (gaussian, {"sigma": 0.05}),
    "dual_norm_at": (dual_norm_at, {**INNER, "steps": 2}),
}


def network(name):
    if name != "dual_norm_at":
        return toy_model()
    model = toy_model()
    model[1] = dual_norm.DualBatchNorm2d(model[1], "adversarial")
    return model


def learn(name, seed=0, **changes):
    recipe, options = RECIPES[name]
    model, data = network(name), toy_dataset()
    options = {**QUICK, "flip": False, **options, **changes}
    return model, data, recipe.train(model, data, options, seed=seed, device="cpu")


def toy_batch(n=6):
    inputs = torch.rand(n, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    return Batch(sample_ids=torch.arange(n), inputs=inputs, targets={"label": torch.arange(n) % 2})


@pytest.mark.parametrize("name", RECIPES)
def test_the_same_seed_gives_the_same_weights_and_another_seed_others(name):
    first, second, other = (learn(name, seed=seed)[0] for seed in (0, 0, 1))
    assert torch.equal(weights(first), weights(second))
    assert not torch.equal(weights(first), weights(other))
    assert not any(module.training for module in first.modules())


@pytest.mark.parametrize("name", RECIPES)
def test_it_learns(name):
    model, data, _ = learn(name, epochs=16, lr=2e-2)
    assert score(model, data, "test") > 0.7


@pytest.mark.parametrize("name", ["mart", "fgsm_at", "n_fgsm", "dual_norm_at"])
def test_it_is_more_robust_than_standard_training(name):
    plain, data = toy_model(), toy_dataset()
    longer = {**QUICK, "flip": False, "epochs": 16, "lr": 2e-2}
    standard.train(plain, data, longer, seed=0, device="cpu")
    robust = learn(name, epochs=16, lr=2e-2)[0]
    scores = [score(model, data, "test", attacked(model, data, "test")) for model in (plain, robust)]
    assert scores[1] > 0.05 + scores[0]


def test_mart_loss_by_hand():
    clean, adversarial = torch.tensor([[0.7, 0.2, 0.1]]), torch.tensor([[0.5, 0.4, 0.1]])
    found = mart_loss(clean.log(), adversarial.log(), torch.tensor([0]), beta=5.0)
    divergence = 0.7 * math.log(0.7 / 0.5) + 0.2 * math.log(0.2 / 0.4) + 0.1 * math.log(0.1 / 0.1)
    expected = -math.log(0.5) - math.log(1.0001 - 0.4) + 5 * divergence * (1 - 0.7)
    assert found.shape == (1,)
    assert float(found) == pytest.approx(expected, rel=1e-5)


def test_mart_loss_is_finite_where_a_wrong_class_is_certain_and_its_gradient_reaches_both_passes():
    clean = torch.tensor([[3.0, -1.0, 0.0]], requires_grad=True)
    adversarial = torch.tensor([[-80.0, 90.0, 0.0]], requires_grad=True)
    mart_loss(clean, adversarial, torch.tensor([0]), beta=5.0).sum().backward()
    for logits in (clean, adversarial):
        assert torch.isfinite(logits.grad).all()
        assert logits.grad.abs().sum() > 0


class Weighted(nn.Module):
    """Linear: its gradient of the loss is known everywhere."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.linspace(-1, 1, 64).reshape(1, 1, 8, 8))

    def forward(self, inputs):
        return (inputs * self.weight).sum((1, 2, 3))


def take_step(generator, **options):
    model, batch = Weighted(), toy_batch()
    points = single_step(model, batch, lambda outputs, batch: outputs, FgsmAtOptions(eps=0.1, **options), generator)
    return points, batch.inputs, model.weight.detach().sign()


def test_fast_at_steps_from_noise_and_returns_into_the_ball():
    points, inputs, sign = take_step(torch.Generator().manual_seed(1))
    noise = 0.1 * (2 * torch.rand(inputs.shape, generator=torch.Generator().manual_seed(1)) - 1)
    start = (inputs + noise).clamp(0, 1)
    expected = (inputs + (start - inputs + 0.125 * sign).clamp(-0.1, 0.1)).clamp(0, 1)
    assert torch.allclose(points, expected, atol=1e-6)
    assert not points.requires_grad


def test_n_fgsm_steps_from_stronger_noise_and_stays_outside():
    options = {"noise": 2.0, "project": False, "step_size": 0.1}
    points, inputs, sign = take_step(torch.Generator().manual_seed(1), **options)
    noise = 0.2 * (2 * torch.rand(inputs.shape, generator=torch.Generator().manual_seed(1)) - 1)
    start = (inputs + noise).clamp(0, 1)
    assert torch.allclose(points, (start + 0.1 * sign).clamp(0, 1), atol=1e-6)
    assert (points - inputs).abs().max() > 0.2


def test_the_gradient_of_the_single_step_is_taken_at_an_image():
    model, batch, seen = Weighted(), toy_batch(), []
    model.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].detach()))
    options = FgsmAtOptions(eps=0.4, noise=2.0)
    single_step(model, batch, lambda outputs, batch: outputs, options, torch.Generator().manual_seed(1))
    assert seen[0].min() == 0 and seen[0].max() == 1


@pytest.mark.parametrize("name", ["fgsm_at", "n_fgsm", "input_gradient"])
def test_the_attack_that_selects_has_steps_of_its_own(name, monkeypatch):
    recipe, seen = RECIPES[name][0], []

    def watched(task, options):
        seen.append(options)
        return validation_attack(task, options)

    monkeypatch.setattr(recipe, "validation_attack", watched)
    learn(name, epochs=1)
    assert seen[0].eps == EPS
    assert seen[0].step_length(seen[0].validation_steps) == pytest.approx(2.5 * EPS / 3)


def test_an_epoch_after_catastrophic_overfitting_is_not_kept():
    """From the ninth epoch on, the loss asks for what such a collapse ends in: clean images right, PGD images wrong."""
    data, options = toy_dataset(), FgsmAtOptions(**QUICK | INNER | {"flip": False, "epochs": 16, "lr": 2e-2})
    task, model, batches = task_for(data.spec), toy_model(), 0

    def batch_loss(model, batch, generator):
        nonlocal batches
        batches += 1
        label = batch.targets["label"]
        stepped = single_step(model, batch, task.training_loss, options, generator)
        if batches <= 8 * 4:
            return F.cross_entropy(model(stepped), label)
        return F.cross_entropy(model(batch.inputs), label) + F.cross_entropy(model(stepped), 1 - label)

    attack = validation_attack(task, options)
    training = fit(model, data, options, seed=0, device="cpu", progress=None, batch_loss=batch_loss, attack=attack)
    robust = [row["val_robust"] for row in training.curve]
    assert robust[-1] < max(robust) - 0.2
    assert training.curve[-1]["val_clean"] > robust[-1] + 0.5, training.curve
    assert training.selected_epoch <= 8
    assert robust[training.selected_epoch - 1] == max(robust)
    kept = attacked(model, data, "val", steps=3)
    assert score(model, data, "val", kept) == pytest.approx(max(robust), abs=0.05)


def test_the_penalty_is_the_squared_input_gradient_and_reaches_the_weights():
    model, inputs = Weighted(), toy_batch().inputs
    losses = penalised_loss(model, inputs, lambda outputs: outputs.pow(2), 3.0)
    outputs = model(inputs)
    squares = (2 * outputs).pow(2) * model.weight.pow(2).sum()
    assert torch.allclose(losses, outputs.pow(2) + 3 * squares, rtol=1e-4)
    (found,) = torch.autograd.grad(losses.sum(), model.weight)
    (expected,) = torch.autograd.grad((outputs.pow(2) + 3 * squares).sum(), model.weight)
    assert torch.allclose(found, expected, rtol=1e-3, atol=1e-2)


def test_the_penalty_shortens_input_gradients():
    lengths = []
    for penalty in (0.0, 10.0):
        model, data, _ = learn("input_gradient", penalty=penalty, epochs=8)
        batch = data.splits["test"].all()
        inputs = batch.inputs.requires_grad_(True)
        loss = F.cross_entropy(model(inputs), batch.targets["label"], reduction="sum")
        lengths.append(float(torch.autograd.grad(loss, inputs)[0].flatten(1).norm(dim=1).mean()))
    assert lengths[1] < 0.7 * lengths[0]


def test_gaussian_training_sees_noise_and_inference_does_not(monkeypatch):
    seen = []
    model = toy_model()
    model.register_forward_pre_hook(lambda module, args: seen.append((module.training, args[0].detach())))
    data = toy_dataset()
    options = {**QUICK, "flip": False, "shift": 0, "sigma": 0.1, "epochs": 1}
    gaussian.train(model, data, options, seed=0, device="cpu")
    images = torch.from_numpy(data.splits["train"].images)
    drawn = torch.cat([inputs for training, inputs in seen if training])
    sizes = torch.cdist(drawn.flatten(1), images.flatten(1)).amin(1) / 8
    assert 0.3 < (sizes > 0.01).float().mean() < 0.7
    assert sizes[sizes > 0.01].mean() == pytest.approx(0.1, abs=0.01)
    inputs = seen[0][1]
    assert torch.equal(model(inputs), model(inputs))
    assert [training for training, _ in seen].count(True) == 4


def test_each_branch_has_statistics_of_its_own():
    layer = dual_norm.DualBatchNorm2d(nn.BatchNorm2d(2), "adversarial").train()
    inputs = torch.randn(8, 2, 3, 3) + 5
    with dual_norm.branch(layer, "clean"):
        layer(inputs)
    assert torch.equal(layer.adversarial.running_mean, torch.zeros(2))
    assert torch.allclose(layer.clean.running_mean, 0.1 * inputs.mean((0, 2, 3)))
    assert layer.used == "adversarial"
    layer(inputs)
    assert layer.adversarial.num_batches_tracked == layer.clean.num_batches_tracked == 1


def test_every_normalisation_of_the_network_is_doubled_and_the_chosen_one_is_used():
    spec = toy_dataset().spec
    with seeded(0):
        model = dual_norm.build(spec, width=4)
        clean = dual_norm.build(spec, width=4, inference="clean").eval()
    plain = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    doubled = [m for m in model.modules() if isinstance(m, dual_norm.DualBatchNorm2d)]
    assert len(plain) == 2 * len(doubled) == 2 * 20
    inputs = toy_batch().inputs
    with dual_norm.branch(model, "clean"):
        model(inputs)
    clean.load_state_dict(model.eval().state_dict())
    with dual_norm.branch(model, "clean"):
        expected = model(inputs)
    assert torch.equal(clean(inputs), expected)
    assert not torch.equal(model(inputs), expected)
    with pytest.raises(InvalidEntryError, match="one of adversarial, clean, got 'mixed'"):
        dual_norm.build(spec, inference="mixed")


def test_dual_training_moves_both_branches_and_attacks_through_the_adversarial_one():
    model = learn("dual_norm_at", epochs=1)[0]
    assert model[1].adversarial.num_batches_tracked == model[1].clean.num_batches_tracked == 4
    assert not torch.equal(model[1].adversarial.running_mean, model[1].clean.running_mean)
    with pytest.raises(InvalidEntryError, match="dual batch normalisation"):
        dual_norm_at.train(toy_model(), toy_dataset(), QUICK, seed=0, device="cpu")


@pytest.mark.parametrize(
    ("recipe", "options", "words"),
    [
        (mart, {"beta": -1.0}, "beta must be 0 or more"),
        (fgsm_at, {"steps": 3}, "take defenses.recipes.pgd_at:train"),
        (fgsm_at, {"norm": "L2"}, "norm Linf"),
        (input_gradient, {"penalty": -1.0}, "penalty must be 0 or more"),
        (gaussian, {"sigma": 25}, r"input units \[0, 1\], got 25"),
        (gaussian, {"clean_share": 2}, r"share in \[0, 1\], got 2"),
    ],
)
def test_impossible_options_are_refused(recipe, options, words):
    with pytest.raises(InvalidEntryError, match=words):
        recipe.train(toy_model(), toy_dataset(), options, seed=0, device="cpu")


@pytest.mark.parametrize("dataset", [toy_dataset("segmentation"), toy_dataset(multi_label=True)])
def test_mart_refuses_what_has_no_class_probabilities(dataset):
    with pytest.raises(InvalidEntryError, match="MART compares class probabilities of one label"):
        mart.train(toy_model(), dataset, QUICK, seed=0, device="cpu")
