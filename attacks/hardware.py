"""What a device computes fast, and what it computes wrong."""

from __future__ import annotations

import torch
from torch import nn

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
