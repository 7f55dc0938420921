"""Short batches are filled up to where a row's outputs stop depending on how many are computed together."""

import subprocess
import sys

import pytest
import torch
from torch import nn

from attacks.steady import fewest_steady_rows
from attacks.victim import ModelVictim
from datasets.tasks.classification import Classification
from registry import ROOT, Randomness
from tests.toys import BatchDependent, NoisyInput, batch_for, images, linear


class SizeDependent(nn.Module):
    """Rounds as a kernel chosen by the batch size does."""

    def __init__(self, base, at):
        super().__init__()
        self.base, self.at = base, at

    def forward(self, inputs):
        return self.base(inputs) * (1 + 1e-6 * (len(inputs) >= self.at))


class PlaceDependent(nn.Module):
    """Rounds odd rows of small batches otherwise, as a blocked kernel may."""

    def __init__(self, base, below):
        super().__init__()
        self.base, self.below = base, below

    def forward(self, inputs):
        odd = (torch.arange(len(inputs)) % 2) * (len(inputs) < self.below)
        return self.base(inputs) * (1 + 1e-6 * odd)[:, None]


class Elementwise(nn.Module):
    """No kernel that could depend on the batch size."""

    def forward(self, inputs):
        return inputs.flatten(1)[:, :3] * 2


def victim(model, randomness=Randomness.NONE):
    return ModelVictim(model.eval(), Classification(3), slots=16, randomness=randomness)


BATCH = batch_for(linear(3), images(5))


def test_rows_that_depend_on_nothing_but_themselves_are_steady():
    assert fewest_steady_rows(victim(Elementwise()), BATCH) == 2
    assert fewest_steady_rows(victim(NoisyInput(Elementwise()), Randomness.SAMPLE), BATCH) == 2


@pytest.mark.parametrize(("at", "fewest"), [(3, 4), (4, 4), (8, 8), (9, 16), (16, 16)])
def test_short_batches_are_filled_up_to_where_the_kernel_changes(at, fewest):
    assert fewest_steady_rows(victim(SizeDependent(Elementwise(), at)), BATCH) == fewest


@pytest.mark.parametrize(("below", "fewest"), [(4, 4), (8, 8), (17, 16)])
def test_short_batches_are_filled_up_to_where_a_place_no_longer_matters(below, fewest, caplog):
    assert fewest_steady_rows(victim(PlaceDependent(Elementwise(), below)), BATCH) == fewest
    assert ("place in its batch" in caplog.text) == (below > 16)


def test_a_row_of_a_small_linear_layer_does_not_depend_on_its_place():
    """MKL's fast kernels do on CPUs with AVX-512; `attacks` asks for its strict ones before the first product.

    A layer of one output is a product with a vector, which no mode makes strict on every CPU: `fewest_steady_rows` sees
    what that does to a model.
    """
    code = (
        "import attacks, torch; torch.manual_seed(0); bad = 0\n"
        "for inputs in (32, 64, 128):\n"
        "    for outputs in (2, 3, 4):\n"
        "        layer = torch.nn.Linear(inputs, outputs)\n"
        "        for rows in range(2, 16):\n"
        "            found = layer(torch.rand(1, inputs).repeat(rows, 1))\n"
        "            bad += bool((found != found[:1]).any())\n"
        "print(bad)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "0"


def test_dependence_on_neighbours_is_seen():
    assert fewest_steady_rows(victim(BatchDependent(linear(3))), BATCH) == 16


def test_the_probe_leaves_no_state_behind():
    model = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(16), nn.Linear(16, 3))  # in training mode: it counts batches
    target = ModelVictim(model, Classification(3), slots=16)
    fewest_steady_rows(target, BATCH)
    assert int(model[1].num_batches_tracked) == 0
    assert not any(p.grad is not None for p in model.parameters())


def test_short_batches_are_computed_without_padding_where_asked():
    sizes = []

    class Watched(Elementwise):
        def forward(self, inputs):
            sizes.append(len(inputs))
            return super().forward(inputs)

    for fewest in (None, 3, 2):
        target = ModelVictim(Watched(), Classification(3), slots=4, fewest=fewest)
        assert target.outputs(BATCH).shape == (5, 3)
    assert sizes == [4, 4, 4, 3, 4, 2]
    assert torch.equal(target.outputs(BATCH), Elementwise()(BATCH.inputs))
