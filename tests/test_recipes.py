"""Training: determinism, the inner attack, selection on `val` alone, augmentation, and options."""

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from datasets.batch import Batch, Dataset, Split
from datasets.tasks import task_for
from defenses.recipes import pgd_at, standard, trades, training
from defenses.recipes.augmentation import augment
from defenses.recipes.inner_pgd import inner_pgd, uniform_start
from defenses.recipes.modes import eval_mode, train_mode
from defenses.recipes.options import InnerOptions, TrainingOptions, read_options
from defenses.seeding import seeded
from registry import DatasetSpec
from registry.errors import InvalidEntryError

EPS = 0.06
QUICK = {"epochs": 4, "batch_size": 16, "lr": 5e-3, "shift": 1}
LONGER = {"epochs": 16, "lr": 2e-2}
RECIPES = {
    "standard": (standard.train, QUICK),
    "pgd_at": (pgd_at.train, {**QUICK, "eps": EPS, "steps": 2, "validation_steps": 3}),
    "trades": (trades.train, {**QUICK, "eps": EPS, "steps": 2, "validation_steps": 3}),
}


def toy_dataset(task="classification", multi_label=False):
    """Noise with a bright square left or right of the middle; the label says which, the mask where."""
    splits = {}
    for seed, (name, n) in enumerate({"train": 64, "val": 24, "test": 24}.items()):
        rng = np.random.default_rng(seed)
        images = rng.uniform(0.3, 0.5, (n, 1, 8, 8)).astype(np.float32)
        label = rng.integers(0, 2, n)
        mask = np.zeros((n, 8, 8), np.uint8)
        for row, top, right in zip(range(n), rng.integers(0, 5, n), label, strict=True):
            mask[row, top : top + 3, 4 * right : 4 * right + 3] = 1
        images[:, 0] += 0.2 * mask
        targets = {"mask": mask} if task == "segmentation" else {"label": label}
        splits[name] = Split(images=images, targets=targets)
    spec = DatasetSpec(
        name="toy",
        title="Toy",
        task=task,
        input_shape=(1, 8, 8),
        class_names=("left", "right"),
        splits={name: len(split) for name, split in splits.items()},
        license="none",
        citation="none",
        reader="toy:read",
        multi_label=multi_label,
    )
    return Dataset(spec=spec, splits=splits, sha256="0" * 64)


def toy_model(task="classification"):
    with seeded(7):
        head = [nn.Conv2d(8, 2, 1)] if task == "segmentation" else [nn.Flatten(), nn.Linear(8 * 64, 2)]
        return nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.1), *head)


def run(recipe, *, task="classification", seed=0, progress=None, **changes):
    train, options = RECIPES[recipe]
    model, data = toy_model(task), toy_dataset(task)
    options = {**options, "flip": task == "segmentation", **changes}
    return model, data, train(model, data, options, seed=seed, device="cpu", progress=progress)


def weights(model):
    return torch.cat([tensor.flatten().float() for tensor in model.state_dict().values()])


@torch.no_grad()
def score(model, data, split, inputs=None):
    task, batch = task_for(data.spec), data.splits[split].all()
    outputs = model(batch.inputs if inputs is None else inputs)
    return float(task.score(task.decode(outputs, batch), batch).mean())


def attacked(model, data, split, steps=20):
    task, batch = task_for(data.spec), data.splits[split].all()
    return inner_pgd(
        model,
        batch.inputs,
        batch.inputs,
        lambda outputs: task.training_loss(outputs, batch),
        InnerOptions(eps=EPS),
        steps,
    )


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_same_seed_gives_the_same_weights_and_another_seed_others(recipe):
    first, second, other = (run(recipe, seed=seed)[0] for seed in (0, 0, 1))
    assert torch.equal(weights(first), weights(second))
    assert not torch.equal(weights(first), weights(other))


@pytest.mark.parametrize("recipe", RECIPES)
def test_training_restores_the_global_generator_and_ends_in_eval_mode(recipe):
    before = torch.get_rng_state()
    model, _, _ = run(recipe)
    assert torch.equal(torch.get_rng_state(), before)
    assert not any(module.training for module in model.modules())
    assert all(parameter.grad is None or parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize("task", ["classification", "segmentation"])
def test_standard_training_learns(task):
    model, data, training = run("standard", task=task, **LONGER)
    assert score(model, data, "test") > 0.85
    assert training.curve[-1]["train_loss"] < 0.7 * training.curve[0]["train_loss"]


@pytest.mark.parametrize("task", ["classification", "segmentation"])
def test_adversarial_training_is_more_robust_than_standard_training(task):
    plain, data, _ = run("standard", task=task, **LONGER)
    robust, _, _ = run("pgd_at", task=task, **LONGER)
    assert score(robust, data, "test", attacked(robust, data, "test")) > 0.05 + score(
        plain, data, "test", attacked(plain, data, "test")
    )


def test_the_kept_epoch_is_the_one_with_the_best_validation_score():
    model, data, training = run("standard", lr=0.05)
    best = max(row["val_clean"] for row in training.curve)
    chosen = next(row for row in training.curve if row["epoch"] == training.selected_epoch)
    assert chosen["val_clean"] == best
    assert score(model, data, "val") == pytest.approx(best, abs=1e-5)


def test_adversarial_training_selects_on_the_robust_validation_score():
    model, data, training = run("pgd_at", lr=0.05)
    best = max(row["val_robust"] for row in training.curve)
    assert best == next(row["val_robust"] for row in training.curve if row["epoch"] == training.selected_epoch)
    assert best == pytest.approx(score(model, data, "val", attacked(model, data, "val", steps=3)), abs=0.05)


def test_the_test_split_is_never_read():
    data = toy_dataset()
    without = dataclasses.replace(data, splits={name: data.splits[name] for name in ("train", "val")})
    standard.train(toy_model(), without, QUICK, seed=0, device="cpu")


def test_progress_rises_to_one_and_epochs_may_skip_validation():
    seen = []
    _, _, training = run("standard", progress=lambda fraction, text: seen.append((fraction, text)), validate_every=3)
    fractions = [fraction for fraction, _ in seen]
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1.0
    assert len(seen) == 4 * 4
    assert "epoch 4/4" in seen[-1][1]
    assert [row["epoch"] for row in training.curve] == [1, 2, 3, 4]
    assert all(row["train_loss"] for row in training.curve)
    assert [row["epoch"] for row in training.curve if "val_clean" in row] == [3, 4]
    assert training.options["batch_size"] == 16
    assert training.seconds > 0


def test_the_inner_attack_stays_in_the_ball_and_raises_the_loss():
    model, data, _ = run("standard")
    task, batch = task_for(data.spec), data.splits["test"].all()
    batch = batch.with_inputs((batch.inputs * 3 - 1).clamp(0, 1))  # some values at the bounds
    model.train()
    model[1].eval()
    start = uniform_start(batch.inputs, 2 * EPS, torch.Generator().manual_seed(0))
    buffers = [buffer.clone() for buffer in model.buffers()]
    adversarials = inner_pgd(
        model, batch.inputs, start, lambda o: task.training_loss(o, batch), InnerOptions(eps=EPS), 5
    )
    assert (adversarials - batch.inputs).abs().max() <= EPS + 1e-6
    assert adversarials.min() >= 0
    assert adversarials.max() <= 1
    assert not adversarials.requires_grad
    assert model.training
    assert not model[1].training
    assert all(torch.equal(*pair) for pair in zip(buffers, model.buffers(), strict=True))
    model.eval()
    with torch.no_grad():
        clean, worst = (task.training_loss(model(x), batch) for x in (batch.inputs, adversarials))
    assert (worst > clean).float().mean() > 0.9


def test_one_step_of_the_inner_attack_is_the_sign_of_the_gradient():
    weight = torch.tensor([1.0, -2.0, 0.5, -0.1]).reshape(1, 1, 2, 2)
    inputs = torch.full((1, 1, 2, 2), 0.5)
    options = InnerOptions(eps=0.1, step_size=0.04)
    moved = inner_pgd(nn.Identity(), inputs, inputs, lambda outputs: (outputs * weight).sum((1, 2, 3)), options, 1)
    assert torch.allclose(moved - inputs, 0.04 * weight.sign())
    moved = inner_pgd(nn.Identity(), inputs, inputs, lambda outputs: (outputs * weight).sum((1, 2, 3)), options, 9)
    assert torch.allclose(moved - inputs, 0.1 * weight.sign())


def test_inner_gradients_in_bfloat16_find_nearly_the_same_adversarials():
    model, data, _ = run("standard")
    task, batch = task_for(data.spec), data.splits["test"].all()
    found = [
        inner_pgd(model, batch.inputs, batch.inputs, lambda o: task.training_loss(o, batch), options, 1)
        for options in (InnerOptions(eps=EPS), InnerOptions(eps=EPS, bfloat16=True))
    ]
    assert found[1].dtype == torch.float32
    assert (found[0] == found[1]).float().mean() > 0.9


def test_trades_without_its_regulariser_is_standard_training_on_clean_images():
    model, data, training = run("trades", beta=0.0)
    assert training.options["beta"] == 0.0
    assert score(model, data, "test") > 0.85


def test_the_loss_of_trades_is_the_clean_one_and_beta_times_the_divergence_at_the_inner_attacks_points(monkeypatch):
    kept, model, data = {}, toy_model().eval(), toy_dataset()
    model[-1].weight.data.mul_(30)  # else all probabilities are near one half
    monkeypatch.setattr(trades, "fit", lambda *a, batch_loss, **k: kept.update(loss=batch_loss))
    monkeypatch.setattr(trades, "inner_pgd", lambda model, inputs, *rest: (inputs + 0.3).clamp(0, 1))
    trades.train(model, data, {"beta": 6.0, "eps": EPS}, seed=0, device="cpu")
    batch = data.splits["train"].take(torch.arange(8))
    logits, moved = model(batch.inputs), model((batch.inputs + 0.3).clamp(0, 1))
    clean, other = logits.softmax(1), moved.softmax(1)
    divergence = (clean * (clean / other).log()).sum(1).mean()  # of the clean probabilities from the others
    expected = F.cross_entropy(logits, batch.targets["label"]) + 6 * divergence
    assert divergence > 1e-4
    assert kept["loss"](model, batch, torch.Generator()).item() == pytest.approx(expected.item(), rel=1e-5)


def test_trades_refuses_what_has_no_class_probabilities():
    for data in (toy_dataset("segmentation"), toy_dataset(multi_label=True)):
        with pytest.raises(InvalidEntryError, match="class probabilities of one label"):
            trades.train(toy_model(), data, QUICK, seed=0, device="cpu")


def test_frozen_parts_stay_in_eval_mode_while_the_rest_trains():
    frozen, trained = toy_model().requires_grad_(False), toy_model()
    model = nn.ModuleList([frozen, trained])
    train_mode(model)
    assert model.training
    assert not frozen.training
    assert not frozen[1].training
    assert trained[1].training
    with eval_mode(model):
        assert not any(module.training for module in model.modules())
    assert trained[1].training
    assert not frozen[1].training


def test_augmentation_moves_masks_with_their_images():
    mask = torch.zeros(64, 6, 7, dtype=torch.int64)
    mask[:, 1:3, 2:4] = 1
    batch = Batch(
        sample_ids=torch.arange(64), inputs=mask[:, None].float().expand(-1, 2, -1, -1), targets={"mask": mask}
    )
    moved = augment(batch, flip=True, shift=2, generator=torch.Generator().manual_seed(0))
    assert torch.equal(moved.inputs[:, 0], moved.targets["mask"].float())
    assert torch.equal(moved.inputs[:, 0], moved.inputs[:, 1])
    assert len({tuple(image.flatten().tolist()) for image in moved.targets["mask"]}) > 10
    assert moved.targets["mask"].dtype == torch.int64


def test_augmentation_mirrors_about_half_of_the_samples_and_can_be_off():
    inputs = torch.arange(4.0).expand(1000, 1, 3, 4)
    batch = Batch(sample_ids=torch.arange(1000), inputs=inputs, targets={"label": torch.zeros(1000, dtype=torch.int64)})
    generator = torch.Generator().manual_seed(0)
    assert torch.equal(augment(batch, flip=False, shift=0, generator=generator).inputs, inputs)
    mirrored = (augment(batch, flip=True, shift=0, generator=generator).inputs[:, 0, 0, 0] == 3).float().mean()
    assert 0.45 < mirrored < 0.55


def test_images_whose_classes_are_sides_of_the_body_are_never_mirrored(monkeypatch):
    seen = []
    monkeypatch.setattr(training, "augment", lambda batch, *, flip, **options: seen.append(flip) or batch)
    for mirrors in (True, False):
        data = toy_dataset()
        sided = dataclasses.replace(data, spec=dataclasses.replace(data.spec, mirrors=mirrors))
        card = standard.train(toy_model(), sided, {"epochs": 1}, seed=0, device="cpu", progress=None)
        assert card.options["flip"] is mirrors
    assert set(seen[: len(seen) // 2]) == {True}
    assert set(seen[len(seen) // 2 :]) == {False}


def test_augmentation_refuses_targets_it_would_leave_behind():
    batch = Batch(sample_ids=torch.arange(2), inputs=torch.rand(2, 1, 4, 4), targets={"points": torch.rand(2, 3, 2)})
    with pytest.raises(InvalidEntryError, match="got targets points; set the recipe's options flip=False"):
        augment(batch, flip=True, shift=0, generator=torch.Generator())


@pytest.mark.parametrize(
    ("kind", "options", "words"),
    [
        (TrainingOptions, {"epoch": 3}, "did you mean epochs"),
        (TrainingOptions, {"epochs": 0}, "1 or more, got 0"),
        (TrainingOptions, {"lr": -1.0}, "lr > 0"),
        (pgd_at.PgdAtOptions, {"eps": 4}, "write 4 / 255"),
        (pgd_at.PgdAtOptions, {"beta": 6.0}, "unknown training option 'beta'"),
        (trades.TradesOptions, {"beta": -1.0}, "beta must be 0 or more"),
    ],
)
def test_impossible_options_are_refused(kind, options, words):
    with pytest.raises(InvalidEntryError, match=words):
        read_options(kind, options)


def test_the_inner_attack_also_knows_euclidean_balls():
    inputs = torch.rand(3, 1, 4, 4, generator=torch.Generator().manual_seed(0)) * 0.2 + 0.4
    weight = torch.randn(1, 1, 4, 4, generator=torch.Generator().manual_seed(1))
    options = InnerOptions(norm="L2", eps=0.3)
    moved = inner_pgd(
        nn.Identity(), inputs, inputs, lambda outputs: (outputs * weight).sum((1, 2, 3)), options, options.steps
    )
    expected = inputs + 0.3 * weight / weight.norm()
    assert torch.allclose(moved, expected, atol=1e-5)
    with pytest.raises(InvalidEntryError, match="norm is Linf or L2, got 'L1'"):
        InnerOptions(norm="L1")
    assert InnerOptions(norm="L2", eps=2.0).eps == 2.0
