"""Slopes that are not finite: they cost neither the rest of a gradient nor the mean of many draws."""

import pytest
import torch
import torch.utils.checkpoint
from torch import nn

from attacks.objectives import objective_for
from attacks.queries import Draws
from attacks.slopes import finite_slopes
from attacks.victim import ModelVictim
from datasets.tasks.classification import Classification
from registry import Randomness
from registry.errors import ModelContractError
from tests.toys import batch_for, images, linear

SHAPE = (1, 4, 4)
MARGIN = objective_for(Classification(3), "margin")


def gradient(model, batch, count, randomness=Randomness.SAMPLE):
    victim = ModelVictim(model, Classification(3), slots=8, randomness=randomness)
    draws = Draws(torch.zeros_like(batch.sample_ids), count)
    answer = victim.answer(batch, MARGIN, torch.zeros(len(batch)), gradient=True, draws=draws)
    return answer.gradient, victim.spent


def test_an_infinite_slope_keeps_its_direction_and_nan_says_nothing():
    slopes = torch.tensor([[1.0, -3.0, torch.inf], [torch.nan, -torch.inf, 0.5], [0.0, 0.0, 0.0], [2.0, 0.0, 1.0]])
    found, usable = finite_slopes(slopes)
    assert found.tolist() == [[1, -3, 3], [0, -1, 0.5], [0, 0, 0], [2, 0, 1]]
    assert usable.tolist() == [False, False, False, True]
    finite = slopes[2:]
    assert finite_slopes(finite)[0] is finite


class Dropped(nn.Module):
    """A root of a square of pixels that are dropped at random: there its slope is 0 / 0 unless it is guarded."""

    def __init__(self, guard: float) -> None:
        super().__init__()
        self.net, self.guard = linear(3, shape=SHAPE), guard

    def forward(self, inputs):
        kept = inputs * (torch.rand_like(inputs) > 0.3)
        return self.net((kept.square() + self.guard).sqrt())


@pytest.mark.parametrize("count", [1, 4, 16, 64])
def test_a_draw_with_nan_costs_the_mean_of_many_nothing(count):
    batch = batch_for(linear(3, shape=SHAPE), images(6, shape=SHAPE))
    guarded, _ = gradient(Dropped(1e-12).eval(), batch, count)
    found, spent = gradient(Dropped(0.0).eval(), batch, count)
    assert torch.allclose(found, guarded, atol=1e-4)
    assert 0 < spent.no_gradient <= spent.backwards == 6 * count


class Checkpointed(nn.Module):
    """Noise inside a part that is computed again in the backward pass."""

    def __init__(self) -> None:
        super().__init__()
        self.net = linear(3, shape=SHAPE)

    def _noisy(self, inputs):
        return self.net(inputs * torch.randn_like(inputs))

    def forward(self, inputs):
        return torch.utils.checkpoint.checkpoint(self._noisy, inputs, use_reentrant=False)


def test_noise_that_is_drawn_again_in_the_backward_pass_is_refused():
    batch = batch_for(linear(3, shape=SHAPE), images(6, shape=SHAPE))
    with pytest.raises(ModelContractError, match="do not checkpoint parts that draw"):
        gradient(Checkpointed().eval(), batch, 1)
    found, _ = gradient(Checkpointed().eval(), batch, 1, Randomness.MODEL)
    assert found.abs().sum() > 0
