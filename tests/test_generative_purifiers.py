"""Generative purifiers: equations against hand-worked values, gradients, draws, and what they show to attackers."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from attacks.draws import KeyedRandom
from attacks.keyed_noise import KeyedNoise
from attacks.objectives import objective_for
from attacks.queries import Draws
from attacks.victim import ModelVictim
from datasets.tasks import task_for
from defenses.purifiers import defense_gan, dgmp, diffpure, hgd, magnet
from defenses.purifiers.attention import DualAttention
from defenses.purifiers.critic import Adversary, Critic
from defenses.purifiers.defense_gan import InversionPurifier
from defenses.purifiers.diffpure import DiffusionPurifier, signal_shares
from defenses.purifiers.purified import mean_psnr, psnr
from defenses.purifiers.unet import ImageUNet, sinusoids
from defenses.purifiers.vae import Encoder, Generator, LatentPurifier, sizes_of, widths_of
from defenses.recipes import dgmp as dgmp_recipe
from defenses.recipes import diffusion
from defenses.recipes.generator import divergence
from defenses.recipes.hgd import guided_loss
from defenses.recipes.hgd import train as train_hgd
from defenses.recipes.reformer import train as train_reformer
from defenses.seeding import seeded
from defenses.stages import declared_stages, hidden_stages, shown
from registry import Randomness
from registry.errors import InvalidEntryError
from tests.test_recipes import toy_dataset

QUICK = {"epochs": 2, "batch_size": 32, "shift": 0, "flip": False}
SPEC = toy_dataset().spec
BUILDS = {
    "dgmp": dgmp.build,
    "magnet": magnet.build,
    "defense_gan": lambda spec, base: defense_gan.build(spec, base=base, restarts=2, steps=2),
    "diffpure": lambda spec, base: diffpure.build(spec, base=base, widths=(4, 8), until=20, steps=3),
    "hgd": lambda spec, base: hgd.build(spec, base=base, widths=(4, 8)),
}
STOCHASTIC = {"dgmp", "defense_gan", "diffpure"}


def net():
    with seeded(3):
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 2))


def built(name):
    with seeded(5):
        return BUILDS[name](SPEC, base=net()).eval()


def images(n=4, size=8, channels=1):
    return torch.rand(n, channels, size, size, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", BUILDS)
def test_a_purifier_keeps_shape_and_range_and_shows_its_parts(name):
    model, inputs = built(name), images()
    purified = model.transform(inputs)
    assert purified.shape == inputs.shape
    assert 0 <= purified.min() <= purified.max() <= 1
    assert declared_stages(model) == ("transform",)
    assert hidden_stages(model) == ()
    assert torch.equal(model.transform.bpda_twin(inputs), inputs)
    assert torch.equal(shown(model, "bare")(inputs), model.net(inputs))


@pytest.mark.parametrize("name", BUILDS)
def test_attackers_may_aim_at_restored_images_or_at_the_latent_code(name):
    model, inputs, keys = built(name), images(), KeyedRandom(seed=1).keys(torch.arange(4))
    with torch.no_grad(), KeyedNoise(keys):
        found = shown(model, "mechanism")(inputs)
    with torch.no_grad(), KeyedNoise(keys):
        expected = model.transform.mean(inputs) if name == "dgmp" else model.restored(inputs).flatten(1)
    assert torch.equal(found, expected)


@pytest.mark.parametrize("name", sorted(STOCHASTIC - {"dgmp"}))
def test_an_aim_at_restored_draws_is_averaged_over_them(name):
    """One query of several draws: the mean of the objectives and of the gradients of each draw alone."""
    model, batch, task = built(name), toy_dataset().splits["test"].take(np.arange(3)), task_for(SPEC)
    part = shown(model, "mechanism")
    victim = ModelVictim(part, task, slots=4, randomness=Randomness.SAMPLE, seed=0)
    objective, progress = objective_for(task, "feature-distance"), torch.zeros(3)
    batch = objective.aim(victim.outputs(batch), batch, progress)

    def answer(first, count):
        draws = Draws(first=torch.full((3,), first), count=count)
        return victim.answer(batch, objective, progress, gradient=True, draws=draws)

    together, alone = answer(1, 2), (answer(1, 1), answer(2, 1))
    assert not torch.allclose(alone[0].objective, alone[1].objective)
    expected = [torch.stack([getattr(one, field) for one in alone]).mean(0) for field in ("objective", "gradient")]
    assert torch.allclose(together.objective, expected[0], rtol=1e-3)
    assert torch.allclose(together.gradient, expected[1], rtol=1e-2, atol=1e-4)


@pytest.mark.parametrize("name", BUILDS)
def test_the_gradient_is_the_true_one(name):
    """Along the gradient, a central difference in double precision agrees with it; the draws are keyed."""
    model, inputs = built(name).double(), images(3).double()
    keys = KeyedRandom(seed=1).keys(torch.arange(3))

    def value(points):
        with KeyedNoise(keys):
            return model(points)[:, 0].sum()

    moved = inputs.clone().requires_grad_(True)
    (gradient,) = torch.autograd.grad(value(moved), moved)
    direction = gradient / gradient.norm()
    step = 1e-5
    with torch.no_grad():
        found = (value(inputs + step * direction) - value(inputs - step * direction)) / (2 * step)
    assert float(found) == pytest.approx(float(gradient.norm()), rel=1e-3)


@pytest.mark.parametrize("name", BUILDS)
def test_draws_differ_only_where_they_are_declared(name):
    model, inputs = built(name), images()
    with torch.no_grad():
        assert torch.equal(model(inputs), model(inputs)) == (name not in STOCHASTIC)
        with KeyedNoise(KeyedRandom(seed=1).keys(torch.arange(4))):
            together = model(inputs)
        with KeyedNoise(KeyedRandom(seed=1).keys(torch.tensor([2]))):
            alone = model(inputs[2:3])
    assert torch.allclose(together[2:3], alone, atol=1e-4)


def test_sizes_are_halved_and_rounded_up_and_widths_end_at_the_widest():
    assert sizes_of(28, 28) == [(28, 28), (14, 14), (7, 7), (4, 4)]
    assert sizes_of(4, 5) == [(4, 5), (2, 3)]
    assert widths_of(4) == [32, 64, 128, 128]
    assert widths_of(3, widest=64) == [32, 64, 64]
    assert Generator((3, 30, 21), 8, widest=32)(torch.zeros(2, 8)).shape == (2, 3, 30, 21)


def test_attention_adds_the_weights_of_channel_and_place():
    unit = DualAttention(2).eval()
    for parameter in unit.parameters():
        nn.init.zeros_(parameter)
    features = torch.randn(3, 2, 5, 5)
    assert torch.allclose(unit(features), features)  # both weights are sigmoid(0) = 1/2


def test_the_code_is_mean_plus_deviation_times_noise():
    purifier = LatentPurifier(Encoder((1, 8, 8), 3), Generator((1, 8, 8), 3)).eval()
    nn.init.zeros_(purifier.encoder.head.weight)
    purifier.encoder.head.bias.data = torch.tensor([0.5, -0.5, 0.0, *[math.log(4.0)] * 3])
    seen = []
    purifier.generator.register_forward_hook(lambda module, args, output: seen.append(args[0]))
    with seeded(0):
        purifier(images(4000))
    assert torch.allclose(seen[0].mean(0), torch.tensor([0.5, -0.5, 0.0]), atol=0.15)
    assert torch.allclose(seen[0].std(0), torch.full((3,), 2.0), atol=0.1)
    assert torch.allclose(purifier.mean(images(2)), torch.tensor([[0.5, -0.5, 0.0]] * 2))


def test_divergence_of_two_normal_distributions():
    mean, log_variance = torch.tensor([[0.0, 0.0], [2.0, 0.0]]), torch.tensor([[0.0, 0.0], [0.0, math.log(4.0)]])
    expected = torch.tensor([0.0, 0.5 * (4 + 1 - 1 - 0) + 0.5 * (4 - math.log(4.0) - 1)])
    assert torch.allclose(divergence(mean, log_variance), expected)


def test_the_critic_learns_to_tell_and_its_slope_is_penalised():
    with seeded(0):
        critic = Critic((1, 8, 8), n_classes=2)
        adversary = Adversary(critic, lr=2e-3, penalty=10)
        real, generated = images(16) * 0.2 + 0.8, images(16) * 0.2
        for _ in range(15):
            adversary.learn(real, generated, torch.zeros(16, dtype=torch.int64))
        assert critic(real)[0].mean() > critic(generated)[0].mean() + 0.1
        assert critic(real)[1].argmax(1).eq(0).all()
        assert not any(parameter.requires_grad for parameter in critic.parameters())
    flat = Adversary(critic, lr=1e-3, penalty=1)
    for parameter in critic.parameters():
        nn.init.zeros_(parameter)
    assert float(flat.slope_penalty(real, generated).detach()) == pytest.approx(1.0)  # slope 0 everywhere: (0 - 1) ** 2


def test_inversion_finds_the_code_of_a_linear_generator():
    class Line(nn.Module):
        latent = 1

        def forward(self, codes):
            return codes[:, :, None, None].expand(-1, 1, 2, 2)

    purifier = InversionPurifier(Line(), restarts=3, steps=60, step_size=0.05, momentum=0.0)
    inputs = torch.stack([torch.full((1, 2, 2), 0.3), torch.full((1, 2, 2), 0.9)])
    with torch.no_grad():
        assert torch.allclose(purifier(inputs), inputs, atol=1e-4)


def test_inversion_keeps_the_closest_start():
    class Steps(nn.Module):
        latent = 1

        def forward(self, codes):
            return (codes.detach() + 0 * codes)[:, :, None, None]  # no slope: starts stay where they are

    purifier = InversionPurifier(Steps(), restarts=50, steps=1, step_size=0.1)
    with torch.no_grad(), seeded(0):
        assert float((purifier(torch.full((4, 1, 1, 1), 0.5)) - 0.5).abs().max()) < 0.2


def test_shares_of_the_signal_fall_as_published():
    shares = signal_shares()
    assert shares[0] == 1
    assert float(shares[1]) == pytest.approx(1 - 1e-4)
    assert float(shares[1000]) == pytest.approx(4.04e-5, rel=0.01)


def test_reverse_steps_with_the_true_noise_return_the_image():
    purifier = DiffusionPurifier(1, (4, 8), until=75, steps=10)
    assert purifier.times[0] == 75
    assert purifier.times[-1] == 0
    inputs, noise = images(), torch.randn(images().shape)

    class Knows(nn.Module):
        def forward(self, points, time):
            share = purifier.shares[time.long()][:, None, None, None]
            return (points - share.sqrt() * (2 * inputs - 1)) / (1 - share).sqrt()

    purifier.unet = Knows()
    assert torch.allclose(purifier(inputs), inputs, atol=1e-4)
    mixed = purifier.diffuse(2 * inputs - 1, torch.full((4,), 75), noise)
    share = float(purifier.shares[75])
    assert torch.allclose(mixed, math.sqrt(share) * (2 * inputs - 1) + math.sqrt(1 - share) * noise, atol=1e-6)
    with pytest.raises(InvalidEntryError, match="steps"):
        DiffusionPurifier(1, (4, 8), until=5, steps=10)


def test_the_u_net_keeps_odd_shapes_and_heeds_the_time():
    unet = ImageUNet(3, (4, 8, 8), timed=True).eval()
    inputs = images(2, size=9, channels=3)
    early, late = unet(inputs, torch.zeros(2)), unet(inputs, torch.full((2,), 50.0))
    assert early.shape == inputs.shape
    assert not torch.allclose(early, late)
    assert torch.allclose(sinusoids(torch.zeros(1))[0], torch.cat([torch.zeros(32), torch.ones(32)]))


def test_psnr_of_known_errors():
    originals = torch.zeros(2, 1, 4, 4)
    restored = torch.stack([torch.full((1, 4, 4), 0.1), torch.zeros(1, 4, 4)])
    assert torch.allclose(psnr(restored, originals), torch.tensor([20.0, 100.0]))
    assert mean_psnr(nn.Identity(), toy_dataset().splits["val"], "cpu") == pytest.approx(100.0)


def test_a_guided_loss_is_zero_where_logits_are_kept():
    model = built("hgd")
    nn.init.zeros_(model.transform.unet.head[-1].weight)
    nn.init.zeros_(model.transform.unet.head[-1].bias)
    assert float(guided_loss(model, images(), images()).detach()) == 0
    assert float(guided_loss(model, images().flip(0), images()).detach()) > 0


def trained(name, train, **options):
    model, data = built(name), toy_dataset()
    before = [parameter.clone() for parameter in model.net.parameters()]
    training = train(model, data, {**QUICK, **options}, seed=0, device="cpu")
    assert all(torch.equal(a, b) for a, b in zip(before, model.net.parameters(), strict=True))
    assert training.curve[-1]["val_psnr"] > 0 and "stage" not in training.curve[-1]
    assert all(row["train_loss"] for row in training.curve)
    return model, training


def test_dgmp_freezes_the_generator_after_its_own_stage():
    model, training = trained("dgmp", dgmp_recipe.train)
    assert not any(parameter.requires_grad for parameter in model.transform.generator.parameters())
    assert training.options["noise"] == 0.1
    stages = [(row.get("stage"), row["epoch"]) for row in training.curve]
    epochs = range(1, QUICK["epochs"] + 1)
    both = [(stage, epoch) for stage in ("generator", "encoder") for epoch in epochs]
    assert stages == [*both[:-1], (None, QUICK["epochs"])]
    assert "val_clean" in training.curve[QUICK["epochs"] - 1], "the generator was validated at its end"
    again, _ = trained("dgmp", dgmp_recipe.train)
    pairs = zip(model.state_dict().values(), again.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    with pytest.raises(InvalidEntryError, match="noise"):
        dgmp_recipe.train(model, toy_dataset(), {"noise": -1.0}, seed=0, device="cpu")


def test_a_reformer_and_a_denoiser_learn_and_a_diffusion_model_denoises():
    with seeded(0):
        _, longer = trained("magnet", train_reformer, epochs=25, lr=1e-2)
        assert [row["epoch"] for row in longer.curve] == list(range(1, 26))
        assert {row["stage"] for row in longer.curve[:-1]} == {"purifier"}
        assert longer.curve[-1]["val_psnr"] > mean_psnr(built("magnet").transform, toy_dataset().splits["val"], "cpu")
        trained("hgd", train_hgd, steps=1)
        trained("diffpure", diffusion.train)
