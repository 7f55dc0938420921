"""A way back that is learned: through code inside `forward`, moved pixels and other shapes; honest models have none."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from attacks.soundness.fresh import Cell, run_fresh
from attacks.soundness.learned_twin import learned_prefix
from attacks.soundness.views import all_views, private
from tests.soundness_toys import SHAPE, Rounded, cell, examined, flat_linear
from tests.toys import NoisyInput, batch_for, cnn, images, linear

LINEAR = flat_linear()
HALF = linear(2, shape=(1, 8, 4), seed=3)


class Plain(nn.Module):
    """Changes its images by numpy in its own `forward`, where no stage can be found."""

    def __init__(self, layer: nn.Module, change, calls: int = 1) -> None:
        super().__init__()
        self.layer, self.change, self.calls = layer, change, calls

    def forward(self, inputs):
        changed = torch.from_numpy(self.change(inputs.detach().double().cpu().numpy()).copy()).to(inputs)
        return sum(self.layer((changed - 0.5) * (1 - 0.1 * call) + 0.5) for call in range(self.calls))


def turned(values):
    """Turns images by 90 degrees and rounds them to 17 levels."""
    return (values.swapaxes(-1, -2)[..., ::-1] * 16).round() / 16


def halved(values):
    """Returns means of two neighbours, rounded to 17 levels."""
    return ((values[..., ::2] + values[..., 1::2]) * 8).round() / 16


def slope(model, inputs):
    """Returns the gradient of the first logit's lead, (N, values)."""
    leaf = inputs.clone().requires_grad_()
    outputs = model(leaf)
    return torch.autograd.grad((outputs[:, 0] - outputs[:, 1]).sum(), leaf)[0].flatten(1)


@pytest.mark.parametrize(
    ("model", "smooth"),
    [
        (Plain(LINEAR, turned), lambda x: LINEAR(x.transpose(-1, -2).flip(-1))),
        (Plain(LINEAR, turned, calls=3), lambda x: LINEAR(x.transpose(-1, -2).flip(-1))),
        (Plain(HALF, halved), lambda x: HALF((x[..., ::2] + x[..., 1::2]) / 2)),
        (nn.Sequential(Rounded(), LINEAR), LINEAR),
    ],
    ids=["turned", "several calls", "another shape", "a stage"],
)
def test_the_learned_way_is_that_of_the_model_without_its_steps(model, smooth):
    batch = batch_for(model.eval(), images(16, shape=SHAPE))
    learned = learned_prefix(copy.deepcopy(model), batch)
    assert torch.equal(learned(batch.inputs), model(batch.inputs)), "outputs stay as they are"
    alike = torch.cosine_similarity(slope(learned, batch.inputs), slope(smooth, batch.inputs))
    assert alike.min() > 0.99, alike


def test_noise_is_the_same_on_both_sides_of_a_pair():
    torch.manual_seed(0)
    model = Plain(nn.Linear(64, 2), lambda values: (values.reshape(len(values), -1) * 16).round() / 16).eval()
    noisy = nn.Sequential(NoisyInput(nn.Identity(), sigma=0.1, drop=0.0), model).eval()
    learned = learned_prefix(noisy, batch_for(noisy, images(16, shape=SHAPE)))
    assert (learned.map_0 - torch.eye(64)).abs().max() < 0.3
    assert (learned.map_0.diagonal() > 0.7).all()


@pytest.mark.parametrize(
    "model",
    [
        cnn(2),
        LINEAR,
        nn.Sequential(nn.AvgPool2d(3, 1, 1), cnn(2)),
        nn.Sequential(nn.Conv2d(1, 1, 1), Rounded(), LINEAR),
    ],
    ids=["network", "linear", "mean first", "behind the first weights"],
)
def test_an_honest_way_is_left_as_it_is(model):
    assert learned_prefix(model.eval(), batch_for(model.eval(), images(8, shape=SHAPE))) is None


def test_rows_that_are_mixed_or_missing_have_none():
    repeated = Plain(LINEAR, lambda values: values.repeat(2, 0))
    assert learned_prefix(repeated, batch_for(Plain(LINEAR, turned), images(8, shape=SHAPE))) is None
    assert learned_prefix(nn.Flatten(), batch_for(LINEAR, images(8, shape=SHAPE))) is None


def test_attacks_through_it_break_what_others_cannot():
    model = Plain(LINEAR, turned).eval()
    batch = batch_for(model, images(32, shape=SHAPE))
    access, protocol, facts = cell(model, batch)
    views = {view.name: view for view in all_views(private(access), batch, own="exact")}
    where, broken = Cell(batch=batch, protocol=protocol, facts=facts, budget=facts.ranked_budget), {}
    for name, view in views.items():
        run = run_fresh(where, view.access, torch.arange(32), view.members(facts, ("margin",), 10, 1), salt=1)
        broken[name] = int(run.broken.sum())
    others = [count for name, count in broken.items() if name != "learned BPDA"]
    assert broken["learned BPDA"] > max(others) + 8, broken


def test_the_escalation_finds_it():
    found = examined(Plain(HALF, halved), n=24, members=())
    assert found.escalation.strongest.name == "learned BPDA"
    assert found.robust < float(found.before.budgets[0].scores.mean()) - 0.2
