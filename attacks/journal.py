"""Steps of a cell that have ended, so that an interrupted cell goes on where it stopped."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from torch import Tensor

Entry = Mapping[str, "Tensor | int | float | str | None"]
"""What a member found and spent; tensors are on the CPU."""


class Journal(Protocol):
    """Numbered steps of one cell: all its members, also those of probes and escalation, in the order they run.

    The draws of every step are keyed, so that a step that runs again ends as it did before: entries may be lost, and
    any that is left saves its time. It is recalled only where everything before it has ended as it had then. A model
    that keeps state between its calls, which is a flag, may still end otherwise.
    """

    recovered_seconds: float
    """What the recalled steps took when they ran."""

    def begin(self, slots: int) -> None:
        """Begins the cell, or begins it again, with physical batches of so many rows."""

    def next_step(self) -> int:
        """Returns the number of the step that begins."""

    def recall(self, step: int, began_with: str) -> Entry | None:
        """Returns what a step found before the cell was interrupted, or None where it must run.

        Args:
            step: Number of the step.
            began_with: Checksum of its member, its samples, and the worst case as it is before the step.
        """

    def keep(self, step: int, began_with: str, entry: Entry) -> None:
        """Keeps what a step found; where that cannot be written, the step has still ended."""
