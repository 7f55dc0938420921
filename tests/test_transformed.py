"""Admix and DeCoWA: momentum against torchattacks, gradients against autograd, the warp against SciPy."""

import pytest
import torch
import torchattacks
from scipy.interpolate import RBFInterpolator
from torch import Tensor
from torch.nn import functional as F

from attacks.admix import Admix
from attacks.ball import Ball
from attacks.decowa import DeCoWA, warp
from attacks.draws import KeyedRandom
from attacks.stepped import Rows
from attacks.victim import Answer
from datasets.batch import Batch
from registry import Member, Norm
from tests.toys import attack, batch_for, cnn, images, linear, protocol_of, robust_gap, shuffled

EPS = 0.05
MODEL = cnn(3).requires_grad_(False)
BATCH = batch_for(MODEL, images(12, shape=(1, 8, 8)))
PLAIN = {
    "admix": Member(name="admix", attack="attacks.admix:Admix", options={"scales": 1, "mixtures": 1, "eta": 0.0}),
    "decowa": Member(name="decowa", attack="attacks.decowa:DeCoWA", options={"warps": 1, "shift": 0.0, "rho": 0.0}),
}


def rows_for(batch: Batch, norm=Norm.LINF) -> Rows:
    zeros = torch.zeros(len(batch), dtype=torch.int64)
    return Rows(
        batch=batch,
        ball=Ball(norm=norm, originals=batch.inputs, eps=torch.full((1, 1, 1, 1), EPS)),
        begin=batch.inputs.clone(),
        restart=zeros.clone(),
        sample=torch.arange(len(batch)),
        step=zeros.clone(),
        done=zeros.bool(),
    )


def loss_of(points: Tensor) -> Tensor:
    return F.cross_entropy(MODEL(points), BATCH.targets["label"], reduction="none")


def play(stepped, answers: int) -> tuple[Rows, list[Tensor]]:
    """Lets an attack run for some answers on the small network; returns its rows and what it asked."""
    rows, rng, asked = rows_for(BATCH), KeyedRandom(seed=3), []
    if hasattr(stepped, "see"):
        stepped.see(BATCH)
    stepped.start(rows, rng)
    for _ in range(answers):
        query = stepped.ask(rows, rng)
        assert query.free
        asked.append(query.points.clamp(0, 1))
        points = asked[-1].clone().requires_grad_()
        loss = loss_of(points)
        (slope,) = torch.autograd.grad(loss.sum(), points)
        rows.step = rows.step + 1
        stepped.tell(rows, query, Answer(loss.detach(), torch.ones(len(BATCH)), slope))
    return rows, asked


@pytest.mark.parametrize("name", PLAIN)
def test_without_a_transformation_it_is_the_momentum_method_of_torchattacks(name):
    published = torchattacks.MIFGSM(MODEL, eps=EPS, alpha=EPS / 5, steps=5, decay=1.0)
    adversarials = published(BATCH.inputs, BATCH.targets["label"])
    options = {**PLAIN[name].options, "steps": 5}
    stepped = (Admix if name == "admix" else DeCoWA)(**options)
    _, asked = play(stepped, stepped.steps)
    different = ((asked[-1] - adversarials).abs() > 1e-5).float().mean()
    assert different < 0.01  # signs of gradients near zero
    assert (asked[-1] != BATCH.inputs).float().mean() > 0.9


@pytest.mark.parametrize("name", PLAIN)
def test_a_replay_proposes_the_last_point_alone(name):
    options = {"steps": 3, "scales": 2, "mixtures": 1} if name == "admix" else {"steps": 3, "warps": 1}
    stepped = (Admix if name == "admix" else DeCoWA)(**options, last_only=True)
    rows, rng, counted = rows_for(BATCH), KeyedRandom(seed=3), []
    if name == "admix":
        stepped.see(BATCH)
    stepped.start(rows, rng)
    while not rows.done.all():
        query = stepped.ask(rows, rng)
        counted.append(query.counts)
        rows.step = rows.step + 1
        stepped.tell(
            rows, query, Answer(torch.zeros(len(BATCH)), torch.ones(len(BATCH)), torch.ones_like(query.points))
        )
    assert len(counted) == 9 and counted[-1].all() and not torch.cat(counted[:-1]).any()
    assert torch.equal(query.points, rows.memory["point"])


def test_admix_mixes_in_images_of_another_class_at_every_scale():
    _, asked = play(Admix(steps=2, scales=3, mixtures=2, eta=0.2), 6)
    for place, copy in enumerate(asked):
        scale = 0.5 ** (place % 3)
        other = (copy / scale - BATCH.inputs) / 0.2
        distance = (other[:, None] - BATCH.inputs[None]).abs().flatten(2).amax(2)
        assert (distance.amin(1) < 1e-4).all()
        found = distance.argmin(1)
        assert (BATCH.targets["label"][found] != BATCH.targets["label"]).all()
    same = [torch.allclose(asked[0], scale * asked[place]) for place, scale in ((1, 2), (2, 4), (3, 1))]
    assert same == [True, True, False]  # one image for three scales, then another one


def test_an_admix_step_follows_the_gradient_of_the_mean_loss_of_its_copies():
    """Reference: autograd through scaling, mixing and clipping, of images that the copies themselves reveal."""
    rows, asked = play(Admix(steps=2, scales=3, mixtures=2, eta=0.9), 6)
    others = [(asked[place] * 2 ** (place % 3) - BATCH.inputs) / 0.9 for place in (1, 4)]  # scale 1/2: never clipped
    points = BATCH.inputs.clone().requires_grad_()
    copies = [(0.5**i * (points + 0.9 * other)).clamp(0, 1) for other in others for i in range(3)]
    assert any((copy == 1).any() for copy in copies)
    (slope,) = torch.autograd.grad(sum(loss_of(copy).sum() for copy in copies), points)
    moved = (BATCH.inputs + EPS / 2 * slope.sign()).clamp(0, 1)
    assert ((rows.memory["point"] - moved).abs() > 1e-6).float().mean() < 0.01


def test_a_decowa_step_follows_the_gradient_through_its_warps():
    """Reference: autograd through the model and the warp; shifts move against the gradient of the loss."""
    stepped = DeCoWA(steps=2, warps=2, shift=0.6, rho=3.0)
    rng, keys = KeyedRandom(seed=3), BATCH.sample_ids
    total = torch.zeros_like(BATCH.inputs)
    expected = []
    for place in (0, 2):
        shifts = (rng.uniform(rng.keys(keys, 0, place), (1, 2)) - 0.5) * 0.6
        shifts.requires_grad_()
        expected.append(warp(BATCH.inputs, shifts.detach()))
        (bend,) = torch.autograd.grad(loss_of(warp(BATCH.inputs, shifts)).sum(), shifts)
        shifts = shifts.detach() - 3.0 * bend
        points = BATCH.inputs.clone().requires_grad_()
        copy = warp(points, shifts)
        expected.append(copy.detach())
        total += torch.autograd.grad(loss_of(copy).sum(), points)[0]
    rows, asked = play(stepped, 4)
    for found, copy in zip(asked, expected, strict=True):
        assert torch.allclose(found, copy, atol=1e-5)
    moved = BATCH.inputs + EPS / 2 * total.sign()
    assert ((rows.memory["point"] - moved).abs() > 1e-6).float().mean() < 0.01


def test_bending_makes_a_warp_gentler():
    stepped = DeCoWA(steps=1, warps=8, shift=1.0, rho=0.1)
    _, asked = play(stepped, 16)
    raw = torch.stack([loss_of(copy) for copy in asked[0::2]]).mean()
    bent = torch.stack([loss_of(copy) for copy in asked[1::2]]).mean()
    assert bent < raw


def test_the_warp_is_a_thin_plate_spline():
    """SciPy's spline through nine control points, the middle one shifted, says where each pixel is read."""
    height, width, shift = 6, 5, torch.tensor([0.3, -0.2])
    control = torch.cartesian_prod(torch.tensor([-1.0, 0, 1]), torch.tensor([-1.0, 0, 1]))
    leads = control.clone()
    leads[4] += shift
    spline = RBFInterpolator(control.numpy(), leads.numpy(), kernel="thin_plate_spline", degree=1)
    x = (torch.arange(width) * 2 + 1) / width - 1
    y = (torch.arange(height) * 2 + 1) / height - 1
    pixels = torch.stack(torch.meshgrid(x, y, indexing="xy"), -1)
    places = torch.from_numpy(spline(pixels.reshape(-1, 2).numpy())).reshape(1, height, width, 2)
    ramps = torch.stack([pixels[..., 0], pixels[..., 1]])[None].double()  # each pixel holds its own place
    expected = F.grid_sample(ramps, places, align_corners=False)
    assert torch.allclose(warp(ramps, shift.double().reshape(1, 1, 2)), expected, atol=1e-6)


def test_the_warp_has_the_gradients_of_finite_differences():
    inputs = images(2, shape=(2, 5, 4)).double().requires_grad_()
    shifts = torch.tensor([[[0.31, -0.17]], [[-0.23, 0.11]]]).double().requires_grad_()
    assert torch.autograd.gradcheck(warp, (inputs, shifts))


def test_several_modalities_are_warped_alike():
    inputs = images(3, shape=(2, 1, 6, 6))
    shifts = torch.full((3, 1, 2), 0.4)
    both = warp(inputs, shifts)
    assert torch.allclose(both[:, 1], warp(inputs[:, 1], shifts))


def test_admix_reaches_the_exact_robust_accuracy_of_a_linear_model():
    model = linear(2)
    batch = batch_for(model, images(120))
    member = Member(name="admix", attack="attacks.admix:Admix", options={"steps": 3, "scales": 2, "mixtures": 2})
    for eps in (0.02, 0.04):
        gap = robust_gap(model, batch, eps)
        result = attack(model, batch, protocol_of(member, eps=(eps,)), slots=32).budgets[0]
        sure = gap.abs() > 1e-4
        assert 10 < int((gap > 0).sum()) < 110
        assert torch.equal((result.scores > 0.5)[sure], (gap > 0)[sure])


@pytest.mark.parametrize("member", PLAIN)
def test_the_order_changes_nothing(member):
    options = {"steps": 3, **({"mixtures": 2} if member == "admix" else {"warps": 2})}
    attacks = {"admix": "attacks.admix:Admix", "decowa": "attacks.decowa:DeCoWA"}
    protocol = protocol_of(Member(name=member, attack=attacks[member], options=options), eps=(0.01,))
    plain = attack(MODEL, BATCH, protocol, slots=8).budgets[0]
    mixed, places = shuffled(BATCH, 5)
    again = attack(MODEL, mixed, protocol, slots=8).budgets[0]
    assert torch.equal(again.scores[places], plain.scores)
    assert torch.allclose(again.points[places], plain.points)
    assert 0 < plain.scores.sum() < len(BATCH)
