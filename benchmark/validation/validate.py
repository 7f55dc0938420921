"""Validates one entry of any kind."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmark.validation.card import card_checks
from benchmark.validation.check import Check
from registry import DatasetSpec, DefenseEntry, Registry


def validate_entry(registry: Registry, entry: Any, *, data: Path | None, say: Callable[[str], None]) -> list[Check]:
    """Returns the verdict on every clause of an entry's contract.

    Args:
        registry: Where the entry lives.
        entry: A defense, data set or protocol.
        data: The data folder, for data sets; None for the default one.
        say: Told what is tried at the moment.
    """
    checks = card_checks(registry, entry)
    if isinstance(entry, DefenseEntry):
        from benchmark.validation.defense import defense_checks

        return checks + defense_checks(entry, say)
    if isinstance(entry, DatasetSpec):
        from benchmark.validation.dataset import dataset_checks

        return checks + dataset_checks(entry, data)
    from benchmark.validation.protocol import protocol_checks

    return checks + protocol_checks(entry)
