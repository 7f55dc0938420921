"""How records of older layouts become records of the current one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from registry.errors import DamagedRecordError, NewerSchemaError
from results.record import SCHEMA

Document = dict[str, Any]
"""A record as it was parsed from JSON, of any layout."""
Upgrade = Callable[[Document], Document]
"""Pure function from the layout of one version to that of the next; it leaves "schema" alone."""

WHAT_TO_DO = "restore the file from git, or delete it and run the cell again"
"""How every complaint about a damaged file ends."""


def _without_adversarials(document: Document) -> Document:
    """Records of schema 1 kept no adversarials and told nothing of an escalation."""
    return {**document, "adversarials": None, "escalation": None}


def _without_losses(document: Document) -> Document:
    """Records of schema 2 kept no losses; members without any read as having none."""
    return document


UPGRADES: dict[int, Upgrade] = {1: _without_adversarials, 2: _without_losses}
"""The upgrade that starts from a version, by that version."""


def upgrade(document: Document, origin: str) -> Document:
    """Returns the record in the current layout.

    Args:
        document: Parsed JSON of a record.
        origin: Where it comes from, for error texts.

    Raises:
        NewerSchemaError: It was written by a newer version of the benchmark.
        DamagedRecordError: It names no version, or one that was never written.
    """
    version = document.get("schema")
    if not isinstance(version, int) or isinstance(version, bool):
        raise DamagedRecordError(f"{origin}: expected a whole number as schema, got {version!r}; {WHAT_TO_DO}")
    if version > SCHEMA:
        raise NewerSchemaError(
            f"{origin}: written by a newer version (schema {version}, this one reads up to {SCHEMA}); "
            "update the checkout"
        )
    while version < SCHEMA:
        if version not in UPGRADES:
            raise DamagedRecordError(f"{origin}: no record was ever written in schema {version}; {WHAT_TO_DO}")
        document = UPGRADES[version](document)
        version += 1
    return {**document, "schema": version}
