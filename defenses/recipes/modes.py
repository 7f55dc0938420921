"""Switches modules between training and evaluation without losing which one was in which mode."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


def train_mode(model: nn.Module) -> None:
    """Puts a model in training mode, except the parts whose parameters are all frozen.

    A wrapped base that is not trained keeps its batch-norm statistics that way.
    """
    model.train()
    for module in model.modules():
        parameters = list(module.parameters())
        if parameters and not any(parameter.requires_grad for parameter in parameters):
            module.eval()


@contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """Puts a model in eval mode within the block and gives every module its own mode back after it."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


@contextmanager
def untouched_buffers(model: nn.Module) -> Iterator[None]:
    """Undoes after the block what it did to buffers: running statistics of batch normalisation stay as they were."""
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, before in buffers:
                buffer.copy_(before)
