"""A copy of a model from before its first answer, against which a later one shows what it has kept in mind."""

from __future__ import annotations

import copy
import inspect

import torch
from torch import nn


def untouched_copy(model: nn.Module) -> nn.Module | None:
    """Returns a copy that shares nothing with the model, or None where it cannot be copied.

    Modules and their attributes with a `__deepcopy__` of their own, which could share what it likes, are copied
    attribute by attribute, unless only their own way works. What lies outside of the model, as in a class or a global
    name, has no copy.

    Raises:
        torch.OutOfMemoryError: There is no room for a second model.
    """
    for begin in (_copies_of_the_wilful, lambda model: {}):
        try:
            return copy.deepcopy(model, begin(model))
        except torch.OutOfMemoryError:  # says nothing of the model
            raise
        except Exception:  # a model may hold anything: files, locks, tensors inside of a graph
            continue
    return None


def _copies_of_the_wilful(model: nn.Module) -> dict[int, object]:
    """Returns the memo with which a deep copy begins: plain copies of what brings a `__deepcopy__` of its own."""
    found = [thing for module in model.modules() for thing in (module, *vars(module).values()) if _is_wilful(thing)]
    memo: dict[int, object] = {id(thing): object.__new__(type(thing)) for thing in found}
    for thing in {id(thing): thing for thing in found}.values():
        vars(memo[id(thing)]).update(copy.deepcopy(vars(thing), memo))
    return memo


def _is_wilful(thing: object) -> bool:
    """Returns whether a class of neither Python's nor torch's says how its objects are copied."""
    method = getattr(type(thing), "__deepcopy__", None)
    named = inspect.isfunction(method) and hasattr(thing, "__dict__")
    return named and method.__module__.partition(".")[0] not in ("torch", "numpy", "collections")
