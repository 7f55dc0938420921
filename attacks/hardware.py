"""What a device computes fast, and what it computes wrong."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Callable

import torch
from torch import nn

from registry import resolve

_log = logging.getLogger(__name__)

VECTOR = 8
"""Channels that channels-last kernels of CPUs with AVX2 take together."""


def knows_bfloat16(device: torch.device) -> bool:
    """Returns whether a device computes in bfloat16 by instructions of its own; elsewhere it would be slower."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return (
        device.type == "cpu" and torch.ops.mkldnn._is_mkldnn_bf16_supported() and torch.cpu._is_avx512_bf16_supported()
    )


def training_layout(model: nn.Module, device: str) -> torch.memory_format:
    """Returns channels-last, unless some convolution has channels that do not fill the vectors of a CPU.

    With such channels oneDNN writes over the end of a buffer in the gradient of the weights (torch 2.14 on a CPU
    with AVX2 alone: "double free or corruption"). The channels of the images themselves do no harm.
    """
    if not device.startswith("cpu"):
        return torch.channels_last
    convolutions = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
    widths = [conv.out_channels for conv in convolutions] + [conv.in_channels for conv in convolutions[1:]]
    fits = all(width % VECTOR == 0 for width in widths)
    return torch.channels_last if fits else torch.contiguous_format


def triton_kernel(reference: str) -> Callable | None:
    """Returns the function behind "module:name", whose module needs Triton; None where Triton is absent or unusable."""
    if importlib.util.find_spec("triton") is None:
        return None
    try:
        return resolve(reference)
    except Exception as error:  # a Triton of another version, or one that finds no driver
        _log.warning("%s is not used, torch computes it more slowly: %s", reference, error)
        return None
