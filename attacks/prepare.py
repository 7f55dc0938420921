"""A faster copy of a model for the search: normalisation folded, channels-last, bfloat16. It never judges."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, fx, nn
from torch.fx.experimental.optimization import fuse

from attacks.hardware import knows_bfloat16

_log = logging.getLogger(__name__)

TOLERANCE = 1e-3
"""Largest difference of a float32 copy's logits, relative to their spread, that is still the same model."""
COSINE = 0.99
"""Smallest cosine, over all examples, between the gradients of the model and of its float32 copy."""
LOW_TOLERANCE = 0.02
"""The same for a bfloat16 copy; its gradients are compared, too."""
LOW_COSINE = 0.95
"""Smallest median cosine between the gradients of the model and of its bfloat16 copy."""


class _Tracer(fx.Tracer):
    """Keeps declared stages whole, so that their stand-ins for BPDA are found in the copy, too."""

    def is_leaf_module(self, module: nn.Module, qualified_name: str) -> bool:
        return hasattr(module, "bpda_twin") or super().is_leaf_module(module, qualified_name)


class _FullPrecision(nn.Module):
    """A module that computes in float32 within a region of lower precision."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, inputs: Tensor) -> Tensor:
        with torch.autocast(inputs.device.type, enabled=False):
            return self.inner(inputs.to(torch.float32))


class _LowPrecision(nn.Module):
    """A module whose convolutions and products are computed in bfloat16."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, inputs: Tensor) -> Tensor:
        with torch.autocast(inputs.device.type, dtype=torch.bfloat16):
            return self.inner(inputs).to(torch.float32)


def is_low_precision(model: nn.Module) -> bool:
    """Returns whether a model is a copy that computes in bfloat16."""
    return isinstance(model, _LowPrecision)


Drawing = Callable[[], AbstractContextManager[object]]
"""Returns a context in which a stochastic model draws the same numbers each time."""


def prepare(
    model: nn.Module, example: Tensor, *, low_precision: bool = True, drawing: Drawing = nullcontext
) -> nn.Module | None:
    """Returns a faster copy of a model, or None where there is none with the same outputs.

    The first and the last layer stay in float32: bfloat16 would round the perturbation away, and the margin.

    Args:
        model: Module in eval mode that returns one tensor.
        example: Some inputs, (N, ...), on which the copy must agree with the model.
        low_precision: Try bfloat16, too; it is kept where logits and gradients agree well enough.
        drawing: What a stochastic model is compared in.
    """
    fast = _folded(model, example, drawing)
    if fast is None or not low_precision or not knows_bfloat16(example.device):
        return fast
    low = _lowered(fast)
    difference = _difference(model, low, example, drawing)
    cosine = float(_gradient_cosines(model, low, example, drawing).median())
    if difference <= LOW_TOLERANCE and cosine >= LOW_COSINE:
        return low
    _log.info("bfloat16 differs by %.2g of the logits' spread, gradients have cosine %.2f", difference, cosine)
    return fast


def _folded(model: nn.Module, example: Tensor, drawing: Drawing) -> fx.GraphModule | None:
    try:
        traced = fx.GraphModule(copy.deepcopy(model), _Tracer().trace(model))
        fast = fuse(traced, no_trace=True).eval().to(memory_format=torch.channels_last).requires_grad_(False)
        difference = _difference(model, fast, example, drawing)
        cosine = float(_gradient_cosines(model, fast, example, drawing).min())
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # tracing fails in many ways on models with control flow; the model itself serves
        _log.info("no faster copy of %s: %s", type(model).__name__, error)
        return None
    if not (difference <= TOLERANCE and cosine >= COSINE):  # NaN, too
        # a backward of the model's own (`torch.autograd.Function`) is traced through, and lost
        text = "the faster copy of %s differs by %.2g of the logits' spread, its gradients have cosines down to %.2f"
        _log.info(text, type(model).__name__, difference, cosine)
        return None
    return fast


def _lowered(fast: fx.GraphModule) -> nn.Module:
    """Returns a copy in bfloat16 whose first and last layers and declared stages stay in float32."""
    copied = copy.deepcopy(fast)
    used = [node.target for node in copied.graph.nodes if node.op == "call_module"]
    layers = [name for name in used if isinstance(copied.get_submodule(name), (nn.Conv2d, nn.Linear))]
    stages = [name for name in used if hasattr(copied.get_submodule(name), "bpda_twin")]
    kept = {*layers[:1], *layers[-1:], *stages}
    for name in kept:
        copied.set_submodule(name, _FullPrecision(copied.get_submodule(name)))
    for name in {*layers} - kept:  # once, not in every pass
        copied.get_submodule(name).to(torch.bfloat16)
    return _LowPrecision(copied).eval()


def _difference(model: nn.Module, other: nn.Module, example: Tensor, drawing: Drawing) -> float:
    """Returns the largest difference of two models' logits, relative to their spread."""
    with torch.no_grad():
        with drawing():
            expected = model(example)
        with drawing():
            found = other(example)
    spread = (expected.max() - expected.min()).clamp(min=1e-6)
    return float((expected - found).abs().max() / spread)


def _gradient_cosines(model: nn.Module, other: nn.Module, example: Tensor, drawing: Drawing) -> Tensor:
    """Returns the cosines (N,) of two models' gradients of the logits' spread; 1 where both are zero."""
    first, second = _gradient(model, example, drawing), _gradient(other, example, drawing)
    cosine = nn.functional.cosine_similarity(first, second, dim=1)
    both_zero = (first == 0).all(1) & (second == 0).all(1)
    return torch.where(both_zero, 1.0, cosine)


def _gradient(model: nn.Module, example: Tensor, drawing: Drawing) -> Tensor:
    inputs = example.detach().clone().requires_grad_()
    with torch.enable_grad(), drawing():
        outputs = model(inputs)
        if not outputs.requires_grad:
            return torch.zeros_like(example).flatten(1)
        spread = (outputs - outputs.mean(1, keepdim=True)).abs().flatten(1).sum(1)
        return torch.autograd.grad(spread.sum(), inputs)[0].flatten(1)
