"""A typed look-up of named entries that refuses duplicates and answers misspelt names with near matches."""

from __future__ import annotations

import difflib
import fnmatch
import json
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar
from urllib.parse import quote

from registry.errors import DuplicateEntryError, InvalidEntryError, UnknownEntryError


class Named(Protocol):
    """Anything with a name."""

    @property
    def name(self) -> str:
        """The unique name of the entry."""


T = TypeVar("T", bound=Named)

LONGEST_NAME = 64
"""Characters of a name as it stands in file names, percent-encoded: the lock of a cell carries three of them."""
SHOWN = 20
"""Names that an error lists at most."""
_NAME = re.compile(r"[^/.][^/]*")
_DEEPEST = 8  # levels of a card that are searched for what has no JSON form


class Registry(Generic[T]):
    """The entries of one kind, by name.

    Args:
        kind: Singular noun for messages, e.g. "defense".
        entry_type: Class that every entry must be an instance of.
    """

    def __init__(self, kind: str, entry_type: type[T]) -> None:
        self.kind = kind
        self.entry_type = entry_type
        """Class of its entries."""
        self._entries: dict[str, T] = {}
        self._origins: dict[str, str] = {}

    def add(self, entry: T) -> T:
        """Adds an entry and returns it.

        Raises:
            InvalidEntryError: The entry is of another type than this registry holds, no record can be filed under its
                name, or its card has no JSON form.
            DuplicateEntryError: An entry of this name (upper and lower case alike) is there already.
        """
        if not isinstance(entry, self.entry_type):
            raise InvalidEntryError(
                f"expected a {self.entry_type.__name__} as {self.kind} entry, got {type(entry).__name__}"
            )
        origin = _caller()
        _check_name(self.kind, entry.name)
        _check_card(self.kind, entry)
        for name in self._entries:
            if name.lower() == entry.name.lower():
                raise DuplicateEntryError(
                    f"{self.kind} {entry.name!r} ({origin}) is already defined as {name!r} "
                    f"({self._origins[name]}); give one of them another name"
                )
        self._entries[entry.name] = entry
        self._origins[entry.name] = origin
        return entry

    def remove(self, name: str) -> None:
        """Takes an entry out; used when the file that added it turns out to be broken."""
        self._entries.pop(name, None)
        self._origins.pop(name, None)

    def __getitem__(self, name: str) -> T:
        """Returns the entry of this name.

        Raises:
            UnknownEntryError: No entry has this name; near matches are in the text.
        """
        if name not in self._entries:
            raise UnknownEntryError(self._unknown(name))
        return self._entries[name]

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[T]:
        return iter(self._entries[name] for name in sorted(self._entries, key=str.lower))

    def __len__(self) -> int:
        return len(self._entries)

    def names(self) -> tuple[str, ...]:
        """Returns all names, sorted."""
        return tuple(entry.name for entry in self)

    def origin(self, name: str) -> str:
        """Returns "file:line" of the code that added the entry."""
        self[name]
        return self._origins[name]

    def select(self, patterns: Iterable[str]) -> tuple[T, ...]:
        """Returns the entries whose name matches any of the shell patterns, sorted by name.

        Raises:
            UnknownEntryError: A pattern matches nothing; near matches are in the text.
        """
        chosen: set[str] = set()
        for pattern in patterns:
            matches = fnmatch.filter(self._entries, pattern)
            if not matches:
                raise UnknownEntryError(self._unknown(pattern))
            chosen.update(matches)
        return tuple(entry for entry in self if entry.name in chosen)

    def _unknown(self, name: str) -> str:
        lowered = {known.lower(): known for known in self._entries}
        near = [lowered[match] for match in difflib.get_close_matches(name.lower(), lowered, n=3, cutoff=0.5)]
        if near:
            return f"unknown {self.kind} {name!r}; did you mean {' or '.join(near)}?"
        names = self.names()
        known = ", ".join(names[:SHOWN]) or "none"
        more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
        return f"unknown {self.kind} {name!r}; known: {known}{more}; an entry of your own: --entries FILE"


def _check_name(kind: str, name: object) -> None:
    """Raises InvalidEntryError where the name cannot be part of a record's key and of file names."""
    fits = isinstance(name, str) and name.isprintable() and _NAME.fullmatch(name)
    if not fits or len(quote(name, safe="")) > LONGEST_NAME:
        raise InvalidEntryError(
            f"the name of a {kind} is text of 1 to {LONGEST_NAME} characters (percent-encoded) without '/' and line "
            f"breaks that does not begin with '.', since records are filed under it; got {name!r}: give it another name"
        )


def _check_card(kind: str, entry: Any) -> None:
    """Raises InvalidEntryError where the entry has a card, and the card cannot be written as JSON."""
    if not hasattr(entry, "card"):
        return
    try:
        card = entry.card()
    except (AttributeError, TypeError, ValueError) as error:
        raise InvalidEntryError(
            f"{kind} {entry.name!r} has no card ({error}); name implementations as 'package.module:attribute', or give "
            "plain functions, and write options as mappings"
        ) from error
    if not _is_json(card):
        where, value = _culprit(card)
        raise InvalidEntryError(
            f"{kind} {entry.name!r}: its field {where} cannot be kept in records: expected text, finite numbers, lists "
            f"and mappings of these by text, got {value!r:.80}; write it as one of them"
        )


def _is_json(value: object) -> bool:
    try:
        json.dumps(value, allow_nan=False, ensure_ascii=False, sort_keys=True).encode()
    except (TypeError, ValueError, RecursionError):
        return False
    return True


def _culprit(card: Mapping[str, object]) -> tuple[str, object]:
    """Returns the innermost part of a card that has no JSON form: its field, as in "recipe.options.lr", and value."""
    path: list[str] = []
    value: object = card
    for _ in range(_DEEPEST):
        parts = dict(enumerate(value)) if isinstance(value, list | tuple) else value
        bad = [name for name, part in parts.items() if not _is_json(part)] if isinstance(parts, Mapping) else []
        if not bad:
            break
        path.append(str(bad[0]))
        value = parts[bad[0]]
    return ".".join(path), value


def _caller() -> str:
    """Returns "file:line" of the code that called `Registry.add`."""
    frame = sys._getframe(2)
    return f"{Path(frame.f_code.co_filename)}:{frame.f_lineno}"
