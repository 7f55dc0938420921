"""Layouts and precisions that a device computes fast, and right."""

import pytest
import torch
from torch import nn

from attacks.hardware import training_layout


def network(*widths):
    return nn.Sequential(*(nn.Conv2d(a, b, 3) for a, b in zip((1, *widths), widths, strict=False)))


@pytest.mark.parametrize("widths", [(5, 8), (8, 12), (8, 16, 2)])
def test_channels_that_do_not_fill_a_vector_are_trained_in_the_plain_layout_on_a_cpu(widths):
    assert training_layout(network(*widths), "cpu") is torch.contiguous_format
    assert training_layout(network(*widths), "cuda:0") is torch.channels_last


def test_full_vectors_are_trained_channels_last():
    assert training_layout(network(8, 16, 32), "cpu") is torch.channels_last
