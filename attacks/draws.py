"""Random numbers keyed by (seed, sample, draw), so that no verdict depends on the batch a sample is in.

A counter-based generator: each number is a hash of its key and of its place in the tensor. Source: SplitMix64,
Steele, Lea, Flood 2014, doi 10.1145/2660193.2660195; Box-Muller for normal numbers.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from attacks.hardware import triton_kernel

_logger = logging.getLogger(__name__)

_GOLDEN = -7046029254386353131  # 0x9E3779B97F4A7C15 as signed 64-bit
_MIX_1 = -4658895280553007687  # 0xBF58476D1CE4E5B9
_MIX_2 = -7723592293110705685  # 0x94D049BB133111EB

ROUNDING = 1e-5
"""By how much normal numbers of a GPU's kernel may differ from those of torch's passes."""

_PART = 1 << 16
"""Values that a CPU computes at a time: more leave its cache, and the passes over them take 2 to 3 times as long."""


Kernel = Callable[..., Tensor]
"""`kernel(keys, count, ordinal, normal=...)`: float32 (N, count), see `attacks.fused_draws.fused_draws`."""


def _shift_right(values: Tensor, bits: int) -> Tensor:
    """Logical right shift of int64, whose own shift copies the sign."""
    return (values >> bits) & ((1 << (64 - bits)) - 1)


def _mix(values: Tensor) -> Tensor:
    """The finaliser of SplitMix64 on int64 tensors (arithmetic wraps around)."""
    values = (values ^ _shift_right(values, 30)) * _MIX_1
    values = (values ^ _shift_right(values, 27)) * _MIX_2
    return values ^ _shift_right(values, 31)


@dataclass(frozen=True, kw_only=True)
class KeyedRandom:
    """A source of random numbers in which every row has a key of its own.

    Args:
        seed: Seed of the attack or of the defense's noise.
        stream: Number that keeps two uses of one seed apart.
    """

    seed: int
    stream: int = 0

    def keys(self, sample_ids: Tensor, *counters: Tensor | int) -> Tensor:
        """Returns one int64 key for each row, from its sample id and any further counters (each (N,) or a number)."""
        key = _mix(torch.full_like(sample_ids, self.seed * 2 + 1) * _GOLDEN + self.stream)
        for counter in (sample_ids, *counters):
            key = _mix(key + torch.as_tensor(counter, device=key.device) * _GOLDEN + 1)
        return key

    @staticmethod
    def bits(keys: Tensor, shape: Sequence[int], ordinal: int = 0) -> Tensor:
        """Returns int64 hashes of shape (N, *shape); `ordinal` keeps several calls with one key apart."""
        count = math.prod(shape)
        places = torch.arange(1, count + 1, device=keys.device) * _GOLDEN
        row_keys = _mix(keys + keys.new_tensor(ordinal + 1) * _MIX_1)
        return _mix(row_keys[:, None] + places).reshape(len(keys), *shape)

    @classmethod
    def uniform(cls, keys: Tensor, shape: Sequence[int], ordinal: int = 0) -> Tensor:
        """Returns float32 in [0, 1) of shape (N, *shape)."""
        return _drawn(keys, shape, ordinal, normal=False)

    @classmethod
    def normal(cls, keys: Tensor, shape: Sequence[int], ordinal: int = 0) -> Tensor:
        """Returns standard normal float32 of shape (N, *shape)."""
        return _drawn(keys, shape, ordinal, normal=True)


def _drawn(keys: Tensor, shape: Sequence[int], ordinal: int, *, normal: bool) -> Tensor:
    """Returns float32 numbers of shape (N, *shape), by one kernel of a GPU that has one, else by passes of torch."""
    count, kernel = math.prod(shape), _kernel_of(keys.device) if keys.is_cuda else None
    if kernel is not None:
        return kernel(keys, count, ordinal, normal=normal).reshape(len(keys), *shape)
    return _by_passes(keys, count, ordinal, normal=normal).reshape(len(keys), *shape)


def _by_passes(keys: Tensor, count: int, ordinal: int, *, normal: bool) -> Tensor:
    finish = _normal if normal else _uniform
    return _in_parts(lambda part: finish(KeyedRandom.bits(part, (count,), ordinal)), keys, count)


@cache
def _kernel_of(device: torch.device) -> Kernel | None:
    """Returns the kernel that draws on a GPU; None without Triton, or where it fails its trial there."""
    kernel = triton_kernel("attacks.fused_draws:fused_draws")
    return None if kernel is None else tried(kernel, device)


def tried(kernel: Kernel, device: torch.device) -> Kernel | None:
    """Returns a kernel that draws on a device what the passes of torch draw there, and None in place of any other.

    Args:
        kernel: As `attacks.fused_draws.fused_draws`. It may raise whatever a compiler raises.
        device: Where to try it.
    """
    keys = KeyedRandom(seed=3).keys(torch.arange(5, device=device))
    try:
        gaps = [
            float((kernel(keys, 1500, 2, normal=normal) - _by_passes(keys, 1500, 2, normal=normal)).abs().max())
            for normal in (False, True)
        ]
    except Exception as error:
        _logger.warning("random numbers are drawn without Triton's kernel, more slowly: %s", error)
        return None
    if gaps[0] == 0 and gaps[1] < ROUNDING:
        return kernel
    _logger.warning("Triton's kernel draws other numbers than torch on %s (by up to %g); not used", device, max(gaps))
    return None


def _in_parts(draw: Callable[[Tensor], Tensor], keys: Tensor, count: int) -> Tensor:
    """Returns what `draw` makes of the keys, `count` values each; a CPU does `_PART` values at a time."""
    rows = max(1, _PART // max(1, count))
    if keys.device.type != "cpu" or len(keys) <= rows:
        return draw(keys)
    return torch.cat([draw(part) for part in keys.split(rows)])


def _uniform(hashes: Tensor) -> Tensor:
    return _shift_right(hashes, 40).to(torch.float32) * 2.0**-24


def _normal(hashes: Tensor) -> Tensor:
    radius = ((_shift_right(hashes, 40).to(torch.float32) + 0.5) * 2.0**-24).log().mul_(-2).sqrt_()
    angle = (hashes & 0xFFFFFF).to(torch.float32) * (2 * math.pi * 2.0**-24)
    return radius * angle.cos_()
