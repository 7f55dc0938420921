"""What a model costs: counted by hand on layers small enough for it."""

from __future__ import annotations

import torch
from torch import nn

from benchmark.measure import model_cost, peak_memory_mb


def test_a_linear_layer_by_hand():
    cost = model_cost(nn.Linear(16, 3).eval(), torch.rand(2, 16))
    assert cost.parameters == 16 * 3 + 3
    assert cost.flops == 2 * 16 * 3  # two operations for each multiply-add
    assert cost.latency_ms_1 > 0 and cost.latency_ms_64 > 0


def test_a_convolution_by_hand():
    cost = model_cost(nn.Conv2d(2, 4, 3, padding=1).eval(), torch.rand(1, 2, 8, 8))
    assert cost.flops == 2 * (2 * 3 * 3) * 4 * 64


def test_what_cannot_be_counted_is_none():
    class Numpy(nn.Module):
        def forward(self, inputs):
            return torch.from_numpy(inputs.detach().numpy() * 2)

    assert model_cost(Numpy(), torch.rand(1, 4)).flops is None


def test_memory_of_this_process_is_that_of_python_with_torch():
    assert 50 < peak_memory_mb("cpu") < 1e6
