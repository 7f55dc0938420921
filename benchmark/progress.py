"""What a person sees while cells run: cells, samples within the cell, and an estimate of the time left."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import TextIO

from tqdm import tqdm

from benchmark.cells import TrainingCell
from benchmark.estimate import Cell, Costs, TimeLeft, format_duration

LINE_EVERY = 30.0
"""Seconds between two lines about one cell where standard error is no terminal."""
_BAR = "{desc}: {percentage:3.0f}% |{bar:20}| {elapsed}{postfix}"


class Progress:
    """Shows a bar on a terminal, plain lines elsewhere, nothing when quiet.

    Args:
        cells: What is to be done.
        costs: Measured wall times; it learns from the cells that end here.
        quiet: Shows nothing but messages.
        stream: Where to write.
    """

    def __init__(self, cells: Sequence[Cell], costs: Costs, *, quiet: bool, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._left = {cell.key: cell for cell in cells}
        self._total = len(self._left)
        self._costs = costs
        self._lines = not quiet and not self._stream.isatty()
        self._bar = None
        if not quiet and not self._lines and self._total:
            self._bar = tqdm(total=self._total, bar_format=_BAR, file=self._stream, leave=False, dynamic_ncols=True)
        self._current: Cell | None = None
        self._begun = self._last_line = time.monotonic()
        self._first: tuple[float, float] | None = None

    @property
    def ended(self) -> int:
        """Number of cells that have ended."""
        return self._total - len(self._left)

    def begin(self, cell: Cell) -> None:
        """Says that work on a cell starts."""
        self._current = cell
        self._begun = self._last_line = time.monotonic()
        self._first = None
        self._draw(0.0, "")
        if self._lines:
            self._print(f"{self._count()} {title(cell)} ... (left: {self._time_left(0.0)})")

    def inside(self, fraction: float, text: str) -> None:
        """Says how far the current cell is.

        Args:
            fraction: Done share of the cell, 0 to 1.
            text: What it is at, e.g. "apgd-ce, 64 of 156 samples".
        """
        now = time.monotonic()
        self._first = self._first or (now, fraction)
        self._draw(fraction, text)
        if self._lines and now - self._last_line >= LINE_EVERY:
            self._last_line = now
            self._print(f"{self._count()} {fraction:4.0%} {text} (left: {self._time_left(fraction)})")

    def add(self, cells: Sequence[Cell]) -> None:
        """Adds cells that turned out to need work."""
        self._left |= {cell.key: cell for cell in cells}
        self._total += len(cells)

    def end(self, cell: Cell, outcome: str, seconds: float | None = None) -> None:
        """Says how a cell ended and learns what it cost; "failed" and the like teach nothing.

        Args:
            cell: The cell.
            outcome: "done", or another word.
            seconds: What it took with its interruptions; by default since it began here.
        """
        seconds = time.monotonic() - self._begun if seconds is None else seconds
        if outcome == "done":
            self._costs.learn(cell, seconds)
        self._left.pop(cell.key, None)
        self._current = None
        self._draw(0.0, "")
        if self._lines:
            self._print(f"{self._count()} {title(cell)}: {outcome} in {format_duration(seconds)}")

    def drop(self, cell: Cell) -> None:
        """Takes a cell out that turned out to need no work."""
        self._left.pop(cell.key, None)
        self._draw(0.0, "")

    def say(self, text: str) -> None:
        """Shows one line, whatever else is shown."""
        if self._bar is not None:
            self._bar.write(text, file=self._stream)
        else:
            self._print(text)

    def close(self) -> None:
        """Removes the bar."""
        if self._bar is not None:
            self._bar.close()

    def _draw(self, fraction: float, text: str) -> None:
        if self._bar is None:
            return
        self._bar.set_description_str(f"{self._count()} {title(self._current)}" if self._current else self._count())
        self._bar.n = min(self.ended + fraction, self._total)
        parts = [text, f"left: {self._time_left(fraction)}"]
        self._bar.set_postfix_str(", ".join(part for part in parts if part), refresh=False)
        self._bar.update(0)
        if not fraction:
            self._bar.refresh()

    def _time_left(self, fraction: float) -> str:
        """Returns the estimate; the current cell's own speed counts once a tenth of it is done before our eyes.

        What it had done before an interruption says nothing about its speed: that counts from the first fraction told.
        Nor does it once all attacks have run: what soundness takes depends on what it finds.
        """
        others = self._costs.left(cell for key, cell in self._left.items() if cell is not self._current)
        if self._current is None:
            return str(others)
        spent = time.monotonic() - self._begun
        expected = self._costs.seconds(self._current)
        since, before = self._first or (self._begun, 0.0)
        seen = fraction - before
        if seen >= 0.1 and fraction < 1:
            rest, unknown = (time.monotonic() - since) * (1 - fraction) / seen, 0
        elif expected is not None:
            rest, unknown = max(expected - spent, 0.0), 0
        else:
            rest, unknown = 0.0, 1
        return str(TimeLeft(seconds=others.seconds + rest, unknown=others.unknown + unknown))

    def _count(self) -> str:
        return f"[{self.ended}/{self._total}]"

    def _print(self, text: str) -> None:
        print(text, file=self._stream, flush=True)


def title(cell: Cell) -> str:
    """Returns a cell in words, e.g. "train JPEG on breastmnist, seed 0"."""
    if isinstance(cell, TrainingCell):
        return f"train {cell.defense} on {cell.dataset}, seed {cell.seed}"
    return f"{cell.defense} on {cell.dataset} under {cell.protocol}, seed {cell.training_seed}"
