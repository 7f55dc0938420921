"""DeepFool: the overshot distance of linear models, and side by side with an independent implementation."""

import pytest
import torch
import torchattacks

from attacks.deepfool import DeepFool
from registry import Member, Norm
from tests.minimal_norm import NORMS, closest, distances, norms_of
from tests.toys import attack, batch_for, cnn, images, linear, protocol_of, robust_gap

each_norm = pytest.mark.parametrize("norm", NORMS)


@each_norm
@pytest.mark.parametrize("overshoot", [0.02, 0.1])
def test_a_linear_model_is_left_in_one_step_by_the_overshoot(norm, overshoot):
    model = linear(2)
    batch = batch_for(model, images(10, low=0.4, high=0.6))
    found = closest(DeepFool(overshoot=overshoot), model, batch, norm, 1.0)
    assert torch.allclose(found, (1 + overshoot) * distances(model, batch, norm), rtol=1e-3)


@each_norm
def test_the_steps_respect_the_range(norm):
    """Where values sit at 0 and 1, a step that knew no bounds would lose what is clipped and need several more."""
    model = linear(2)
    batch = batch_for(model, images(10, low=0.0, high=1.0).round())
    exact = distances(model, batch, norm)
    found = closest(DeepFool(steps=2), model, batch, norm, 1.0)
    assert (found <= exact * 1.03).all()
    assert (found >= exact * (1 - 1e-4)).all()


@pytest.mark.parametrize("norm", [Norm.LINF, Norm.L2])
def test_robust_accuracy_of_a_linear_model_over_all_targets(norm):
    """With each wrong class aimed at, what is broken within eps is what the closed form says for eps / 1.02."""
    model = linear(4)
    batch = batch_for(model, images(24), wrong=2)
    eps = 0.02 if norm is Norm.LINF else 0.09
    member = Member(
        name="deepfool", attack="attacks.deepfool:DeepFool", options={"restarts": 3}, objective="targeted-margin"
    )
    budget = attack(model, batch, protocol_of(member, eps=(eps,), norm=norm)).budgets[0]
    assert (budget.members[0].errors, budget.members[0].violations) == (0, 0), budget.members[0].error
    gap = robust_gap(model, batch, eps / 1.02, norm)
    assert (gap.abs() > 1e-4).all()
    assert torch.equal(budget.scores, (gap > 0).float())
    assert 0.2 < budget.scores.mean() < 0.8
    assert budget.members[0].forwards <= 2 * 3 * 24


def test_the_aim_matters_where_the_most_likely_class_is_not_the_nearest():
    model = linear(6)
    batch = batch_for(model, images(20, low=0.4, high=0.6))
    exact = distances(model, batch, Norm.LINF)
    first = closest(DeepFool(), model, batch, Norm.LINF, 1.0, objective="targeted-margin")
    every = closest(DeepFool(restarts=5), model, batch, Norm.LINF, 1.0, objective="targeted-margin")
    assert (first > 1.05 * exact).any()
    assert torch.allclose(every, 1.02 * exact, rtol=2e-3)


def test_l2_side_by_side_with_torchattacks():
    """It lengthens every step, we lengthen the whole change; both leave a small network at the same distance."""
    model = cnn(2, seed=3)
    batch = batch_for(model, images(20, shape=(1, 8, 8), low=0.3, high=0.7))
    theirs = torchattacks.DeepFool(model, steps=50, overshoot=0.02)
    theirs.set_device("cpu")
    far = norms_of(theirs(batch.inputs, batch.targets["label"]) - batch.inputs, Norm.L2)
    ours = closest(DeepFool(), model, batch, Norm.L2, 1.0)
    near = far < 0.8  # away from the range, which theirs does not know
    assert near.sum() >= 10
    assert ((ours / far)[near].log().abs() < 0.05).float().mean() >= 0.8
    assert float((ours / far)[near].log().mean().abs()) < 0.02
