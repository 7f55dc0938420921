"""Rows that do not depend on how many are computed together need no padding; the others keep it."""

import pytest
import torch
from torch import nn

from attacks.steady import rows_are_steady
from attacks.victim import ModelVictim
from datasets.tasks.classification import Classification
from registry import Randomness
from tests.toys import BatchDependent, NoisyInput, batch_for, images, linear


class SizeDependent(nn.Module):
    """Rounds as a kernel chosen by the batch size does."""

    def __init__(self, base, at):
        super().__init__()
        self.base, self.at = base, at

    def forward(self, inputs):
        return self.base(inputs) * (1 + 1e-6 * (len(inputs) >= self.at))


class Elementwise(nn.Module):
    """No kernel that could depend on the batch size."""

    def forward(self, inputs):
        return inputs.flatten(1)[:, :3] * 2


def victim(model, randomness=Randomness.NONE):
    return ModelVictim(model.eval(), Classification(3), slots=16, randomness=randomness)


BATCH = batch_for(linear(3), images(5))


def test_rows_that_depend_on_nothing_but_themselves_are_steady():
    assert rows_are_steady(victim(Elementwise()), BATCH)
    assert rows_are_steady(victim(NoisyInput(Elementwise()), Randomness.SAMPLE), BATCH)


@pytest.mark.parametrize("at", [3, 9, 16])
def test_a_kernel_chosen_by_the_batch_size_is_seen(at):
    assert not rows_are_steady(victim(SizeDependent(Elementwise(), at)), BATCH)


def test_dependence_on_neighbours_is_seen():
    assert not rows_are_steady(victim(BatchDependent(linear(3))), BATCH)


def test_the_probe_leaves_no_state_behind():
    model = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(16), nn.Linear(16, 3))  # in training mode: it counts batches
    target = ModelVictim(model, Classification(3), slots=16)
    rows_are_steady(target, BATCH)
    assert int(model[1].num_batches_tracked) == 0
    assert not any(p.grad is not None for p in model.parameters())


def test_short_batches_are_computed_without_padding_where_asked():
    sizes = []

    class Watched(Elementwise):
        def forward(self, inputs):
            sizes.append(len(inputs))
            return super().forward(inputs)

    for padded in (True, False):
        target = ModelVictim(Watched(), Classification(3), slots=4, padded=padded)
        assert target.outputs(BATCH).shape == (5, 3)
    assert sizes == [4, 4, 4, 2]  # one row alone has kernels of its own
    assert torch.equal(target.outputs(BATCH), Elementwise()(BATCH.inputs))
