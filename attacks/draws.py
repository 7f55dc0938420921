"""Random numbers keyed by (seed, sample, draw), so that no verdict depends on the batch a sample is in.

A counter-based generator: each number is a hash of its key and of its place in the tensor. Source: SplitMix64,
Steele, Lea, Flood 2014, doi 10.1145/2660193.2660195; Box-Muller for normal numbers.
"""

from __future__ import annotations

import importlib.util
import logging
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from registry.errors import ModelContractError

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
    if importlib.util.find_spec("triton") is None:
        return None
    try:
        from attacks.fused_draws import fused_draws
    except Exception as error:  # a Triton of another version, or one that finds no driver
        _logger.warning("random numbers are drawn without Triton, more slowly: %s", error)
        return None
    return tried(fused_draws, device)


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


class KeyedNoise(TorchDispatchMode):
    """While active, random operators of a model draw from the rows' keys instead of torch's generator.

    Args:
        keys: int64 (N,), one for each row of the batch that the model sees.

    Raises:
        ModelContractError: The model draws a tensor without the batch as its leading axis; such a defense has
            `randomness="model"`.
    """

    def __init__(self, keys: Tensor) -> None:
        super().__init__()
        self._keys = keys
        self.draws = 0
        """How many tensors the model has drawn."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        replacement = _REPLACEMENTS.get(func.overloadpacket)
        if replacement is None and torch.Tag.nondeterministic_seeded in func.tags:
            raise ModelContractError(
                f"a defense with randomness='sample' drew numbers with {func}, which cannot be keyed by sample; "
                "draw with rand, randn, normal, bernoulli or dropout, or declare randomness='model'"
            )
        return replacement(self, *args, **kwargs) if replacement else func(*args, **kwargs)

    def uniform(self, like: Tensor) -> Tensor:
        """Returns uniform numbers for the next random call, in the shape and dtype of `like`."""
        return self._draw(KeyedRandom.uniform, like)

    def normal(self, like: Tensor) -> Tensor:
        """Returns normal numbers for the next random call, in the shape and dtype of `like`."""
        return self._draw(KeyedRandom.normal, like)

    def _draw(self, draw, like: Tensor) -> Tensor:
        if like.ndim == 0 or like.shape[0] != len(self._keys):
            raise ModelContractError(
                f"a defense with randomness='sample' draws noise with the batch ({len(self._keys)} rows) as its "
                f"leading axis, got a draw of shape {tuple(like.shape)}; declare randomness='model'"
            )
        self.draws += 1
        return draw(self._keys, like.shape[1:], self.draws).to(like.dtype)


@contextmanager
def global_draws(key: int, device: torch.device) -> Iterator[None]:
    """While active, torch's generators of the CPU and of a device draw from a key; after it they are as before."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(key & 0x7FFFFFFF)
        yield


def _fill_uniform(mode: KeyedNoise, tensor: Tensor, low: float = 0.0, high: float = 1.0, *, generator=None) -> Tensor:
    return tensor.copy_(mode.uniform(tensor) * (high - low) + low)


def _fill_normal(mode: KeyedNoise, tensor: Tensor, mean: float = 0.0, std: float = 1.0, *, generator=None) -> Tensor:
    noise = mode.normal(tensor)
    return tensor.copy_(noise if (mean, std) == (0.0, 1.0) else noise * std + mean)


def _fill_bernoulli(mode: KeyedNoise, tensor: Tensor, p: Tensor | float = 0.5, *, generator=None) -> Tensor:
    return tensor.copy_((mode.uniform(tensor) < p).to(tensor.dtype))


def _bernoulli(mode: KeyedNoise, p: Tensor, *extra, generator=None) -> Tensor:
    chance = extra[0] if extra else p
    return (mode.uniform(p) < chance).to(p.dtype)


def _like(fill):
    def draw(mode: KeyedNoise, like: Tensor, *, dtype=None, device=None, memory_format=None, **_) -> Tensor:
        return fill(mode, torch.empty_like(like, dtype=dtype, device=device))

    return draw


def _sized(fill):
    def draw(mode: KeyedNoise, size, *, dtype=None, device=None, **_) -> Tensor:
        return fill(mode, torch.empty(size, dtype=dtype, device=device))

    return draw


def _native_dropout(mode: KeyedNoise, inputs: Tensor, p: float, train: bool | None) -> tuple[Tensor, Tensor]:
    if not train or p == 0:
        return inputs.clone(), torch.ones_like(inputs, dtype=torch.bool)
    kept = mode.uniform(inputs) >= p
    return inputs * kept / (1 - p), kept


def _sized_normal(
    mode: KeyedNoise, mean, std=1.0, size=None, *, generator=None, dtype=None, device=None, **_
) -> Tensor:
    if isinstance(mean, Tensor) or isinstance(std, Tensor):
        like = mean if isinstance(mean, Tensor) else std
        return mode.normal(like) * std + mean
    return _fill_normal(mode, torch.empty(size, dtype=dtype, device=device), mean, std)


_aten = torch.ops.aten
_REPLACEMENTS = {
    _aten.uniform_: _fill_uniform,
    _aten.normal_: _fill_normal,
    _aten.bernoulli_: _fill_bernoulli,
    _aten.bernoulli: _bernoulli,
    _aten.rand_like: _like(_fill_uniform),
    _aten.randn_like: _like(_fill_normal),
    _aten.rand: _sized(_fill_uniform),
    _aten.randn: _sized(_fill_normal),
    _aten.normal: _sized_normal,
    _aten.native_dropout: _native_dropout,
}
"""Random operators by overload packet; integer draws (`randint`, `randperm`) do not occur in per-sample noise."""
