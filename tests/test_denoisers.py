"""Trained denoisers: their noise, their networks, what a purified model shows, its loss, and its weights on disk."""

import math

import pytest
import torch
from torch import nn

from datasets.batch import Batch
from defenses.architectures.resnet import NarrowResNet18
from defenses.purifiers.autoencoder import DenoisingAutoencoder
from defenses.purifiers.dncnn import DnCNN
from defenses.purifiers.features import head_inputs
from defenses.purifiers.noise import gaussian_noise, impulse_noise
from defenses.purifiers.purified import Purified
from defenses.recipes import denoising
from defenses.stages import declared_stages, hidden_stages, shown
from registry.errors import InvalidEntryError
from tests.test_recipes import toy_dataset

PURIFIERS = [DenoisingAutoencoder(1, width=4), DnCNN(1, depth=4, width=4)]
QUICK = {"epochs": 24, "batch_size": 16, "lr": 1e-2, "weight_decay": 0.0, "shift": 0}


def draws(seed=0):
    return torch.Generator().manual_seed(seed)


def images(n=4, channels=1, edge=12, seed=0):
    return torch.rand(n, channels, edge, edge, generator=draws(seed)) * 0.5 + 0.25


def purified(seed=0):
    torch.manual_seed(seed)
    return Purified(DenoisingAutoencoder(1, width=4), NarrowResNet18(1, 2, width=4).requires_grad_(False)).eval()


def test_impulses_replace_whole_pixels_at_the_stated_density_and_half_of_them_are_black_or_white():
    clean = torch.full((400, 3, 16, 16), 0.5)
    noisy = impulse_noise(clean, low=0.1, high=0.3, clean_share=0.25, generator=draws())
    changed = (noisy != clean).any(1)
    density = changed.flatten(1).float().mean(1)
    touched = density > 0
    assert abs(float(touched.float().mean()) - 0.75) < 0.08
    assert abs(float(density[touched].mean()) - 0.2) < 0.01
    assert float(density.max()) < 0.42
    values = noisy.movedim(1, -1)[changed]
    extreme = ((values == 0).all(1) | (values == 1).all(1)).float().mean()
    assert abs(float(extreme) - 0.5) < 0.02
    assert float(noisy.min()) >= 0 and float(noisy.max()) <= 1


def test_no_density_is_no_noise_and_the_same_seed_is_the_same_noise():
    clean = images()
    assert torch.equal(impulse_noise(clean, low=0, high=0, clean_share=0, generator=draws()), clean)
    first, second = (impulse_noise(clean, low=0.2, high=0.2, clean_share=0, generator=draws(5)) for _ in range(2))
    assert torch.equal(first, second)
    assert not torch.equal(first, clean)


def test_gaussian_noise_has_the_stated_deviation():
    clean = torch.full((8, 1, 64, 64), 0.5)
    change = gaussian_noise(clean, low=0.1, high=0.1, generator=draws()) - clean
    assert torch.allclose(change.flatten(1).std(1), torch.tensor(0.1), atol=0.005)
    assert torch.equal(gaussian_noise(clean, low=0, high=0, generator=draws()), clean)


def test_an_untrained_autoencoder_is_the_identity_and_a_changed_one_is_not():
    inputs, purifier = images(edge=13), DenoisingAutoencoder(1, width=4).eval()
    assert torch.equal(purifier(inputs), inputs)
    nn.init.constant_(purifier.residual.bias, 0.25)
    assert torch.equal(purifier(inputs), inputs - 0.25)


def test_the_published_sizes():
    count = sum(parameter.numel() for parameter in DenoisingAutoencoder(3).parameters())
    assert 300_000 < count < 500_000
    layers = [module for module in DnCNN(1, depth=9).modules() if isinstance(module, nn.Conv2d)]
    assert len(layers) == 9
    with pytest.raises(InvalidEntryError, match="depth 2"):
        DnCNN(1, depth=2)


@pytest.mark.parametrize("purifier", PURIFIERS, ids=lambda purifier: type(purifier).__name__)
def test_the_gradient_is_the_true_one(purifier):
    purifier = purifier.double().eval()
    for parameter in purifier.parameters():
        nn.init.normal_(parameter, std=0.3, generator=draws(1))
    inputs = images(n=1, edge=8).double().requires_grad_()
    direction = torch.randn(inputs.shape, generator=draws(2), dtype=torch.float64)
    slope = torch.autograd.grad(purifier(inputs).square().sum(), inputs)[0]
    step = 1e-6
    with torch.no_grad():
        up, down = (purifier(inputs + s * step * direction).square().sum() for s in (1, -1))
    assert math.isclose(float((slope * direction).sum()), float((up - down) / (2 * step)), rel_tol=1e-4)
    purifier.float()


def test_what_a_purified_model_shows():
    model, inputs = purified(), images()
    nn.init.normal_(model.transform.residual.weight, std=0.1, generator=draws(3))
    restored = model.restored(inputs)
    assert not torch.equal(restored, inputs)
    assert torch.equal(model(inputs), model.net(restored))
    assert torch.equal(shown(model, "bare")(inputs), model.net(inputs))
    assert torch.equal(shown(model, "mechanism")(inputs), restored.flatten(1))
    assert declared_stages(model) == ("transform",)
    assert hidden_stages(model) == ()
    assert torch.equal(model.transform.bpda_twin(inputs), inputs)


def test_features_are_what_the_head_sees():
    net, inputs = NarrowResNet18(1, 2, width=4).eval(), images().requires_grad_()
    features = head_inputs(net, inputs)
    assert torch.equal(net.head(features), net(inputs))
    assert torch.autograd.grad(features.sum(), inputs)[0].any()
    with pytest.raises(InvalidEntryError, match="no linear layer"):
        head_inputs(nn.Flatten(), inputs)


@pytest.mark.parametrize("weights", [{}, {"task_weight": 0.05, "feature_weight": 0.5}], ids=["pixels", "all"])
def test_training_takes_out_impulses_and_leaves_the_network_alone(weights):
    dataset, model = toy_dataset(), purified()
    before = {name: tensor.clone() for name, tensor in model.net.state_dict().items()}
    training = denoising.train(model, dataset, {**QUICK, "low": 0.2, "high": 0.4, **weights}, seed=0, device="cpu")
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.net.state_dict().items())
    losses = [row["train_loss"] for row in training.curve]
    assert losses[-1] < 0.9 * losses[0]
    clean = torch.from_numpy(dataset.splits["test"].images)
    noisy = impulse_noise(clean, low=0.3, high=0.3, clean_share=0, generator=draws(9))
    with torch.no_grad():
        after = (model.restored(noisy) - clean).abs().mean()
    assert float(after) < 0.9 * float((noisy - clean).abs().mean())


def test_the_weights_of_the_loss_are_used(monkeypatch):
    """With one step's loss in hand: pixels + task weight x task loss + feature weight x feature distance."""
    model, dataset, kept = purified(), toy_dataset(), {}
    monkeypatch.setattr(denoising, "fit", lambda *a, batch_loss, **k: kept.update(loss=batch_loss))
    batch = Batch(sample_ids=torch.arange(4), inputs=images(), targets={"label": torch.tensor([0, 1, 0, 1])})
    model.net.requires_grad_(False)

    @torch.no_grad()
    def loss(**weights):
        denoising.train(model, dataset, weights, seed=0, device="cpu")
        return float(kept["loss"](model, batch, draws(1)))

    noisy = impulse_noise(batch.inputs, low=0.001, high=0.05, clean_share=0.2, generator=draws(1))
    pixels = float((noisy - batch.inputs).abs().mean())  # the untrained purifier is the identity
    task = float(nn.functional.cross_entropy(model.net(noisy), batch.targets["label"]))
    features = float((head_inputs(model.net, noisy) - head_inputs(model.net, batch.inputs)).abs().mean())
    assert pixels > 0 and features > 0
    assert math.isclose(loss(), pixels, rel_tol=1e-5)
    assert math.isclose(loss(squared=True), float((noisy - batch.inputs).square().mean()), rel_tol=1e-5)
    assert math.isclose(loss(task_weight=2.0), pixels + 2 * task, rel_tol=1e-5)
    assert math.isclose(loss(feature_weight=3.0), pixels + 3 * features, rel_tol=1e-5)


@pytest.mark.parametrize(
    "options", [{"noise": "rain"}, {"low": 0.2, "high": 0.1}, {"high": 1.5}, {"clean_share": 2}, {"task_weight": -1}]
)
def test_impossible_options_are_refused(options):
    with pytest.raises(InvalidEntryError):
        denoising.DenoisingOptions(**options)


def test_a_network_that_would_be_trained_is_refused():
    model = purified()
    model.net.requires_grad_(True)
    with pytest.raises(InvalidEntryError, match="frozen"):
        denoising.train(model, toy_dataset(), {}, seed=0, device="cpu")
