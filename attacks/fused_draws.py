"""Keyed random numbers by one kernel of a GPU: torch passes over 64-bit integers some thirty times for them.

Imported where numbers are drawn on a GPU, since Triton comes with torch's CUDA builds for Linux alone.
"""

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from attacks import draws

_BLOCK = 1024

_GOLDEN = tl.constexpr(draws._GOLDEN)
_MIX_1 = tl.constexpr(draws._MIX_1)
_MIX_2 = tl.constexpr(draws._MIX_2)
_LOW_33 = tl.constexpr((1 << 33) - 1)  # what a logical shift of 64 bits leaves
_LOW_34 = tl.constexpr((1 << 34) - 1)
_LOW_37 = tl.constexpr((1 << 37) - 1)
_LOW_24 = tl.constexpr((1 << 24) - 1)
_UNIT = tl.constexpr(2.0**-24)
_ANGLE = tl.constexpr(2 * math.pi * 2.0**-24)


@triton.jit
def _mix(values):
    values = (values ^ ((values >> 30) & _LOW_34)) * _MIX_1
    values = (values ^ ((values >> 27) & _LOW_37)) * _MIX_2
    return values ^ ((values >> 31) & _LOW_33)


@triton.jit(do_not_specialize=["ordinal"])
def _fill(keys, out, count, ordinal, NORMAL: tl.constexpr, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    place = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    row_key = _mix(tl.load(keys + row) + (ordinal + 1).to(tl.int64) * _MIX_1)
    hashed = _mix(row_key + (place + 1).to(tl.int64) * _GOLDEN)
    values = ((hashed >> 40) & _LOW_24).to(tl.float32)
    if NORMAL:
        radius = tl.sqrt(tl.maximum(tl.log((values + 0.5) * _UNIT) * -2.0, 0.0))
        values = radius * tl.cos((hashed & _LOW_24).to(tl.float32) * _ANGLE)
    else:
        values = values * _UNIT
    tl.store(out + row * count + place, values, mask=place < count)


def fused_draws(keys: Tensor, count: int, ordinal: int, *, normal: bool) -> Tensor:
    """Returns float32 numbers of shape (N, count): uniform in [0, 1), or standard normal.

    Uniform ones are the bits that `attacks.draws` computes elsewhere; normal ones agree but for rounding.

    Args:
        keys: int64 (N,), on a GPU.
        count: Numbers of a row.
        ordinal: Keeps several calls with one key apart.
        normal: Which kind.
    """
    out = torch.empty(len(keys), count, dtype=torch.float32, device=keys.device)
    if out.numel():
        grid = (len(keys), triton.cdiv(count, _BLOCK))
        _fill[grid](keys.contiguous(), out, count, ordinal, NORMAL=normal, BLOCK=_BLOCK)
    return out
