"""Names of implementations, so that an entry file imports nothing heavy: "package.module:attribute"."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from registry.errors import InvalidEntryError

Reference = str | Callable[..., Any]
"""A callable, or its name as "package.module:attribute", imported at first use."""


def resolve(reference: Reference) -> Callable[..., Any]:
    """Returns the callable that a reference names.

    Raises:
        InvalidEntryError: The text is not "module:attribute", or the module has no such attribute.
    """
    if callable(reference):
        return reference
    module_name, colon, attribute = reference.partition(":")
    if not colon or not attribute:
        raise InvalidEntryError(f"a reference is written 'package.module:attribute', got {reference!r}")
    module = importlib.import_module(module_name)
    try:
        return getattr(module, attribute)
    except AttributeError:
        raise InvalidEntryError(f"module {module_name} has no {attribute!r} (from reference {reference!r})") from None


def reference_name(reference: Reference) -> str:
    """Returns the text of a reference, for cards."""
    if isinstance(reference, str):
        return reference
    return f"{reference.__module__}:{reference.__qualname__}"
