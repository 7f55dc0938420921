"""Follows tensors through a computation on a CPU as if the inputs lay on a GPU, and finds where devices would meet."""

from __future__ import annotations

import traceback

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

_RANDOM = (torch.rand, torch.randn, torch.randint, torch.randperm)
_TAKEN = (torch.tensor, torch.as_tensor)
FACTORIES = frozenset(
    (torch.zeros, torch.ones, torch.full, torch.empty, torch.arange, torch.linspace, torch.eye, *_TAKEN, *_RANDOM)
)
TO_HOST = frozenset((Tensor.cpu, Tensor.numpy, Tensor.tolist, Tensor.item))
NEED_HOST = frozenset((Tensor.numpy, Tensor.__array__))
INDEXING = frozenset((Tensor.__getitem__, Tensor.__setitem__))
"""A tensor on a GPU may be indexed by one on the CPU, not the other way round."""


class DeviceTracker(TorchFunctionMode):
    """While active, tensors made without a device are the host's, those given to `on_device` a device's.

    What is computed from a device's tensors is the device's. A factory that is told a device is taken to be told that
    of its inputs. `mismatches` holds the places where a device's tensor met one of the host that is no scalar.
    """

    def __init__(self) -> None:
        super().__init__()
        self.mismatches: list[str] = []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        values = _tensors((args, *kwargs.values()) if kwargs else args)
        places = {_place(value) for value in values if value.ndim > 0}
        self._compare(func, args, places)
        result = func(*args, **kwargs)
        if func in (*TO_HOST, Tensor.to) and args and result is args[0]:  # a copy between devices is another tensor
            result = result.detach()
        for value in _tensors((result,)):
            _put(value, self._where(func, args, kwargs, values))
        return result

    def _compare(self, func, args, places) -> None:
        if func in NEED_HOST:
            meet = _place(args[0]) == "device"
        elif func in INDEXING and _place(args[0]) == "device":
            meet = len(args) > 2 and _is_host(args[2])
        else:
            meet = {"host", "device"} <= places and func not in (Tensor.to, Tensor.type_as)
        if not meet:
            return
        frames = traceback.extract_stack()
        where = next(f for f in reversed(frames) if f.filename != __file__ and "site-packages" not in f.filename)
        self.mismatches.append(f"{where.filename}:{where.lineno} {getattr(func, '__name__', func)}: {where.line}")

    @staticmethod
    def _where(func, args, kwargs, values) -> str | None:
        if func in TO_HOST:
            return "host"
        if func is Tensor.to or kwargs.get("device") is not None:
            moved = func is not Tensor.to or _names_device(args[1:], kwargs)
            return "device" if moved else _place(args[0])
        if func in FACTORIES and not any(_place(value) == "device" for value in values):
            return "host"
        places = {_place(value) for value in values}
        return "device" if "device" in places else "host" if places == {"host"} else None


def _tensors(values) -> list[Tensor]:
    """Returns the tensors among values, also in tuples and lists."""
    found: list[Tensor] = []
    for value in values:
        if isinstance(value, Tensor):
            found.append(value)
        elif isinstance(value, (tuple, list)):
            found += _tensors(value)
    return found


def _names_device(args, kwargs) -> bool:
    named = [*args, *kwargs.values()]
    return any(isinstance(a, (torch.device, str)) or (isinstance(a, Tensor) and _place(a) == "device") for a in named)


def _place(value: Tensor) -> str | None:
    known = getattr(value, "_tracked_place", None)  # a copied parameter has lost its mark
    return "device" if known is None and isinstance(value, nn.Parameter) else known


def _is_host(value) -> bool:
    return isinstance(value, Tensor) and value.ndim > 0 and _place(value) == "host"


def _put(value: Tensor, place: str | None) -> None:
    if place is not None:
        value._tracked_place = place


def on_device(value):
    """Marks a tensor, or all parameters and buffers of a module, as a device's; returns it."""
    tensors = [value] if isinstance(value, Tensor) else [*value.parameters(), *value.buffers()]
    for tensor in tensors:
        _put(tensor, "device")
    return value
