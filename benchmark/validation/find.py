"""Which entries a name or a file stands for."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any

from registry import DATASETS, DEFENSES, PROTOCOLS, Registry, load_entries
from registry.errors import InvalidEntryError, UnknownEntryError

REGISTRIES: tuple[Registry, ...] = (DEFENSES, DATASETS, PROTOCOLS)
"""Where entries that can be validated live."""


def entries_named(asked: str) -> list[tuple[Registry, Any]]:
    """Returns the entries of a name, or all that a file registers, each with its registry.

    Raises:
        InvalidEntryError: The file cannot be loaded, or registers nothing.
        UnknownEntryError: No entry has the name; near matches are in the text.
        UserError: A path that is no Python file.
    """
    path = Path(asked).expanduser()
    if path.suffix == ".py" or path.exists():
        return _entries_of(path.resolve())
    load_entries()
    found = [(registry, registry[asked]) for registry in REGISTRIES if asked in registry]
    if found:
        return found
    known = {name.lower(): name for registry in REGISTRIES for name in registry.names()}
    near = [known[match] for match in difflib.get_close_matches(asked.lower(), known, n=3, cutoff=0.5)]
    hint = f"did you mean {' or '.join(near)}?" if near else "name a defense, data set, protocol or entry file"
    raise UnknownEntryError(f"unknown entry {asked!r}; {hint}")


def _entries_of(path: Path) -> list[tuple[Registry, Any]]:
    for broken in load_entries([path]):
        if Path(broken.file) == path:
            raise InvalidEntryError(f"{path} cannot be loaded: {broken.error}")
    found = [
        (registry, entry)
        for registry in REGISTRIES
        for entry in registry
        if Path(registry.origin(entry.name).rpartition(":")[0]).resolve() == path
    ]
    if not found:
        raise InvalidEntryError(f"{path} adds no entry; call DEFENSES.add(DefenseEntry(...)) at its top level")
    return found
