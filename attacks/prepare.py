"""A faster copy of a model for the search: batch normalisation folded, channels-last. It never judges."""

from __future__ import annotations

import copy
import logging

import torch
from torch import Tensor, fx, nn
from torch.fx.experimental.optimization import fuse

_log = logging.getLogger(__name__)

TOLERANCE = 1e-3
"""Largest difference of the copy's logits, relative to their spread, that is still the same model."""


class _Tracer(fx.Tracer):
    """Keeps declared stages whole, so that their stand-ins for BPDA are found in the copy, too."""

    def is_leaf_module(self, module: nn.Module, qualified_name: str) -> bool:
        return hasattr(module, "bpda_twin") or super().is_leaf_module(module, qualified_name)


def prepare(model: nn.Module, example: Tensor) -> nn.Module | None:
    """Returns a faster copy of a deterministic model, or None where there is none with the same outputs.

    Args:
        model: Module in eval mode that returns one tensor.
        example: Some inputs, (N, ...), on which the copy must agree with the model.
    """
    try:
        traced = fx.GraphModule(copy.deepcopy(model), _Tracer().trace(model))
        fast = fuse(traced, no_trace=True).eval().to(memory_format=torch.channels_last)
        with torch.no_grad():
            expected, found = model(example), fast(example)
        spread = (expected.max() - expected.min()).clamp(min=1e-6)
        difference = float((expected - found).abs().max() / spread)
    except Exception as error:  # tracing fails in many ways on models with control flow; the model itself serves
        _log.info("no faster copy of %s: %s", type(model).__name__, error)
        return None
    if not difference <= TOLERANCE:  # NaN, too
        _log.info("the faster copy of %s differs by %.2g of the logits' spread", type(model).__name__, difference)
        return None
    return fast
