"""What a defended model costs its user: parameters, operations, latency."""

from __future__ import annotations

import resource
import statistics
import sys
import time
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

LATENCY_RUNS = 15
"""Timed forward passes, of which the median counts."""


@dataclass(frozen=True, kw_only=True)
class ModelCost:
    """Cost of one forward pass."""

    parameters: int
    flops: int | None
    latency_ms_1: float
    latency_ms_64: float


def model_cost(model: nn.Module, inputs: Tensor) -> ModelCost:
    """Returns the cost of a model in eval mode.

    Args:
        model: On the device it is evaluated on.
        inputs: At least one input, (N, ...); rows are repeated to a batch of 64.
    """
    one = inputs[:1]
    many = inputs[torch.arange(64, device=inputs.device) % len(inputs)]
    return ModelCost(
        parameters=sum(p.numel() for p in model.parameters()),
        flops=_flops(model, one),
        latency_ms_1=_median_ms(model, one),
        latency_ms_64=_median_ms(model, many),
    )


def peak_memory_mb(device: str) -> float:
    """Returns the peak memory of the GPU's allocator, or else of this process, in MB."""
    if device.startswith("cuda"):
        return torch.cuda.max_memory_allocated(device) / 1e6
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1e6 if sys.platform == "darwin" else 1e3)


def _flops(model: nn.Module, one: Tensor) -> int | None:
    """Counts two operations for each multiply-add of one forward pass; None where it cannot be counted."""
    counter = FlopCounterMode(display=False)
    try:
        with torch.no_grad(), counter:
            model(one)
    except (RuntimeError, NotImplementedError):
        return None
    return counter.get_total_flops() or None


def _median_ms(model: nn.Module, inputs: Tensor) -> float:
    times = []
    with torch.no_grad():
        for run in range(LATENCY_RUNS + 2):
            started = time.perf_counter()
            model(inputs)
            if inputs.is_cuda:
                torch.cuda.synchronize()
            if run >= 2:  # the first ones warm up
                times.append((time.perf_counter() - started) * 1e3)
    return statistics.median(times)
