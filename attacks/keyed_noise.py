"""What random operators of a model draw: numbers keyed by sample, those of a key for all, or none."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from attacks.draws import KeyedRandom
from registry.errors import ModelContractError


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

    def uniform(self, like: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        """Returns uniform numbers for the next random call, in the shape of `like`, and in its dtype by default."""
        return self._draw(KeyedRandom.uniform, like, dtype)

    def normal(self, like: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        """Returns normal numbers for the next random call, in the shape of `like`, and in its dtype by default."""
        return self._draw(KeyedRandom.normal, like, dtype)

    def _draw(self, draw, like: Tensor, dtype: torch.dtype | None) -> Tensor:
        if like.ndim == 0 or like.shape[0] != len(self._keys):
            raise ModelContractError(
                f"a defense with randomness='sample' draws noise with the batch ({len(self._keys)} rows) as its "
                f"leading axis, got a draw of shape {tuple(like.shape)}; declare randomness='model'"
            )
        self.draws += 1
        return draw(self._keys, like.shape[1:], self.draws).to(dtype or like.dtype)


class NoDraws(TorchDispatchMode):
    """While active, no random number may be drawn.

    For backward passes: what recomputes a part of the model there, such as gradient checkpointing, would draw other
    numbers than the forward pass did, and the gradient would belong to another draw than the score.

    Raises:
        ModelContractError: Something draws.
    """

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if torch.Tag.nondeterministic_seeded in func.tags:
            raise ModelContractError(
                f"a defense with randomness='sample' drew numbers with {func} in its backward pass, other ones than in "
                "its forward pass; do not checkpoint parts that draw, or declare randomness='model'"
            )
        return func(*args, **(kwargs or {}))


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
    return tensor.copy_(mode.uniform(tensor, torch.float32) < p)


def _bernoulli(mode: KeyedNoise, p: Tensor, *extra, generator=None) -> Tensor:
    chance = extra[0] if extra else p
    return (mode.uniform(p, torch.float32) < chance).to(p.dtype)


def _uniform_like(mode: KeyedNoise, like: Tensor, *, dtype=None, device=None, **_) -> Tensor:
    return mode.uniform(like, dtype).to(device or like.device)


def _normal_like(mode: KeyedNoise, like: Tensor, *, dtype=None, device=None, **_) -> Tensor:
    return mode.normal(like, dtype).to(device or like.device)


def _sized(fill):
    def draw(mode: KeyedNoise, size, *, dtype=None, device=None, **_) -> Tensor:
        return fill(mode, torch.empty(size, dtype=dtype, device=device))

    return draw


def _native_dropout(mode: KeyedNoise, inputs: Tensor, p: float, train: bool | None) -> tuple[Tensor, Tensor]:
    if not train or p == 0:
        return inputs.clone(), torch.ones_like(inputs, dtype=torch.bool)
    kept = mode.uniform(inputs, torch.float32) >= p
    return inputs * kept / (1 - p), kept


def _sized_normal(
    mode: KeyedNoise, mean, std=1.0, size=None, *, generator=None, dtype=None, device=None, **_
) -> Tensor:
    if isinstance(mean, Tensor) or isinstance(std, Tensor):
        return mode.normal(mean + std) * std + mean  # their sum has the shape of the result
    return _fill_normal(mode, torch.empty(size, dtype=dtype, device=device), mean, std)


_aten = torch.ops.aten
_REPLACEMENTS = {
    _aten.uniform_: _fill_uniform,
    _aten.normal_: _fill_normal,
    _aten.bernoulli_: _fill_bernoulli,
    _aten.bernoulli: _bernoulli,
    _aten.rand_like: _uniform_like,
    _aten.randn_like: _normal_like,
    _aten.rand: _sized(_fill_uniform),
    _aten.randn: _sized(_fill_normal),
    _aten.normal: _sized_normal,
    _aten.native_dropout: _native_dropout,
}
"""Random operators by overload packet; integer draws (`randint`, `randperm`) do not occur in per-sample noise."""
