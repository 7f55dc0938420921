"""Perturbed and averaged weights, mixed precision: what a training does to its model beside the loss."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from datasets.batch import Split
from defenses import checkpoints
from defenses.recipes import precision
from defenses.recipes.callbacks import Callback
from defenses.recipes.modes import untouched_buffers
from defenses.recipes.options import TrainingOptions, WeightOptions
from defenses.recipes.precision import mixed_precision
from defenses.recipes.training import fit
from defenses.recipes.weight_average import WeightAverage, averages
from defenses.recipes.weight_perturbation import WeightPerturbation
from defenses.train import train_defense
from registry import DEFENSES, load_entries
from registry.errors import InvalidEntryError
from tests.test_recipes import QUICK, run, toy_dataset, toy_model, weights


def test_each_weight_moves_along_its_gradient_by_gamma_times_its_length():
    model = nn.Linear(2, 1)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[3.0, 4.0]]))
        model.bias.fill_(1.0)
    seen = []

    def loss():
        seen.append((model.weight.detach().clone(), model.bias.detach().clone()))
        return model(torch.tensor([[0.0, 2.0]])).sum()

    perturbation = WeightPerturbation(0.1)
    value = perturbation.worst(model, loss)
    assert torch.allclose(seen[1][0], torch.tensor([[3.0, 4.5]]))  # |w| = 5, the gradient (0, 2) has direction (0, 1)
    assert torch.equal(seen[1][1], torch.ones(1))
    assert float(value.detach()) == pytest.approx(10.0)
    value.backward()
    perturbation.after_backward(model)
    assert torch.equal(model.weight, seen[0][0])
    assert torch.equal(model.weight.grad, torch.tensor([[0.0, 2.0]]))


def test_the_gradient_is_that_of_the_perturbed_weights_and_statistics_move_once():
    model, inputs = toy_model().train(), torch.rand(6, 1, 8, 8)
    model[3].p = 0.0
    before, twin = weights(model), copy.deepcopy(model)
    perturbation = WeightPerturbation(0.05)
    worst = perturbation.worst(model, lambda: model(inputs).pow(2).mean())
    assert worst > twin(inputs).pow(2).mean()
    worst.backward()
    perturbation.after_backward(model)
    assert int(model[1].num_batches_tracked) == 1
    parameters = torch.cat([parameter.flatten() for parameter in model.parameters()])
    assert torch.equal(parameters, torch.cat([parameter.flatten() for parameter in toy_model().parameters()]))
    assert not torch.equal(weights(model), before)


def test_no_gamma_no_perturbation():
    model, calls = nn.Linear(2, 1), []
    WeightPerturbation(0.0).worst(model, lambda: calls.append(1))
    assert calls == [1]
    assert averages(0.0) == ()


def test_buffers_are_given_back():
    model = toy_model().train()
    before = weights(model)
    with untouched_buffers(model):
        model(torch.rand(4, 1, 8, 8))
        assert not torch.equal(weights(model), before)
    assert torch.equal(weights(model), before)


def test_the_average_forgets_faster_at_first():
    model, average = nn.Linear(1, 1, bias=False), WeightAverage(0.5)
    values = []
    for value in (8.0, 2.0, 1.0, 4.0, 0.0, 3.0, 6.0, 1.0, 5.0, 7.0):
        model.weight.data.fill_(value)
        average.after_step(model)
        with average.validation(model):
            values.append(float(model.weight.detach()))
        assert float(model.weight.detach()) == value
    expected = [8.0]
    for step, value in enumerate((2.0, 1.0, 4.0, 0.0, 3.0, 6.0, 1.0, 5.0, 7.0), start=1):
        decay = min(0.5, (1 + step) / (10 + step))
        expected.append(decay * expected[-1] + (1 - decay) * value)
    assert values == pytest.approx(expected)


def test_an_average_goes_on_from_its_state():
    models = [toy_model().train() for _ in range(2)]
    first, second = WeightAverage(0.9), WeightAverage(0.9)
    models[0](torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(0)))
    for model in models:
        first.after_step(model)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    for average in (first, second):
        average.after_step(models[0])
    states = [average.state_dict() for average in (first, second)]
    assert states[0]["steps"] == states[1]["steps"] == 3
    assert all(torch.equal(states[0]["average"][name], states[1]["average"][name]) for name in states[0]["average"])
    assert states[0]["average"]["1.num_batches_tracked"] == 1


def test_a_training_keeps_the_averaged_weights():
    plain, averaged = run("pgd_at")[0], run("pgd_at", ema_decay=0.9)[0]
    assert not torch.equal(weights(plain), weights(averaged))
    assert not torch.equal(weights(plain), weights(run("pgd_at", awp_gamma=0.05)[0]))


def test_impossible_weight_options_are_refused():
    for options in ({"awp_gamma": -0.1}, {"ema_decay": 1.0}):
        with pytest.raises(InvalidEntryError, match="0 <= ema_decay < 1"):
            WeightOptions(**options)


def test_a_callback_is_told_the_moments_of_a_training():
    class Witness(Callback):
        def __init__(self):
            self.told = []

        def before_loss(self, share):
            self.told.append(share)

        def after_backward(self, model):
            self.told.append(all(parameter.grad is not None for parameter in model.parameters()))

        def after_step(self, model):
            self.told.append("step")

    witness = Witness()
    fit(
        toy_model(),
        toy_dataset(),
        TrainingOptions(**QUICK | {"epochs": 1}),
        seed=0,
        device="cpu",
        progress=None,
        batch_loss=lambda model, batch, generator: model(batch.inputs).pow(2).mean(),
        callbacks=(witness,),
    )
    assert witness.told == [item for share in (0.0, 0.25, 0.5, 0.75) for item in (share, True, "step")]


def test_mixed_precision_computes_calls_in_bfloat16_and_returns_float32(monkeypatch):
    monkeypatch.setattr(precision, "knows_bfloat16", lambda device: True)
    model, inputs = nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 3)), torch.rand(5, 64)
    inner = []
    model[0].register_forward_hook(lambda module, args, output: inner.append(output.dtype))
    exact = model(inputs)
    with mixed_precision(model, "cpu", wanted=True):
        low = model(inputs)
        with pytest.raises(RuntimeError):
            model(torch.rand(5, 7))
        assert not torch.is_autocast_enabled("cpu")
        first = model(inputs)
        with torch.no_grad():
            model[1].bias += 1.0
            model[0].weight.mul_(2.0)
        assert not torch.equal(model(inputs), first + 1.0)  # moved weights are seen
    assert inner[:2] == [torch.float32, torch.bfloat16]
    assert low.dtype == torch.float32
    assert 0 < (low - exact).abs().max() < 0.05
    assert not model._forward_hooks and not model._forward_pre_hooks
    low.sum().backward()
    assert all(parameter.grad.dtype == torch.float32 for parameter in model.parameters())


def test_mixed_precision_is_off_where_it_is_not_wanted_or_not_known(monkeypatch):
    model, inputs = nn.Linear(4, 2), torch.rand(3, 4)
    exact = model(inputs)
    for known, wanted in ((True, False), (False, True)):
        monkeypatch.setattr(precision, "knows_bfloat16", lambda device, known=known: known)
        with mixed_precision(model, "cpu", wanted=wanted):
            assert torch.equal(model(inputs), exact)


def test_a_training_in_mixed_precision_learns_nearly_the_same(monkeypatch):
    exact = run("standard")[2]
    monkeypatch.setattr(precision, "knows_bfloat16", lambda device: True)
    low = run("standard", mixed_precision=True)[2]
    assert low.options["mixed_precision"] is True
    assert low.curve != exact.curve
    assert low.curve[-1]["train_loss"] == pytest.approx(exact.curve[-1]["train_loss"], abs=0.05)


@pytest.mark.parametrize("name", ["TradesAWPEMA", "Han2021DualBN"])
def test_an_entry_trains_at_full_size(name, monkeypatch, tmp_path):
    monkeypatch.setattr(precision, "knows_bfloat16", lambda device: True)
    load_entries()
    small, rng = toy_dataset(), np.random.default_rng(0)
    splits = {
        split: Split(images=rng.random((2, 1, 128, 128), np.float32), targets={"label": np.array([0, 1])})
        for split in ("train", "val")
    }
    data = replace(small, spec=replace(small.spec, input_shape=(1, 128, 128)), splits=splits)
    changes = {"epochs": 1, "steps": 1, "validation_steps": 1, "bfloat16": False, "mixed_precision": True}
    recipe = DEFENSES[name].recipe
    entry = replace(DEFENSES[name], recipe=replace(recipe, options={**recipe.options, **changes}))
    path = train_defense(entry, data, 0, folder=tmp_path)
    assert checkpoints.read_card(path)["parameters"] > 11e6
    assert checkpoints.read_card(path)["options"]["mixed_precision"] is True
