"""Mixed precision in training: forward passes in bfloat16, weights, losses and normalisation statistics in float32."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from attacks.hardware import knows_bfloat16


@contextmanager
def mixed_precision(model: nn.Module, device: str, *, wanted: bool) -> Iterator[None]:
    """Lets every call of a model within the block compute in bfloat16 and return float32.

    It does nothing where the hardware has no instructions for bfloat16. Each call has an autocast region of its own:
    a region keeps its copies of the weights, which would be outdated where a recipe moves weights between two calls.

    Args:
        model: Module that is called; calls of its parts stay as they are.
        device: Torch device.
        wanted: False for nothing.
    """
    kind = torch.device(device)
    if not wanted or not knows_bfloat16(kind):
        yield
        return
    regions: list[torch.autocast] = []

    def enter(module: nn.Module, args: tuple) -> None:
        regions.append(torch.autocast(kind.type, torch.bfloat16))
        regions[-1].__enter__()

    def leave(module: nn.Module, args: tuple, outputs: object) -> object:
        regions.pop().__exit__(None, None, None)
        return tree_map(_to_float32, outputs)

    hooks = (model.register_forward_pre_hook(enter), model.register_forward_hook(leave, always_call=True))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _to_float32(value: object) -> object:
    return value.to(torch.float32) if isinstance(value, Tensor) and value.dtype == torch.bfloat16 else value
