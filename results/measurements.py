"""What the engine itself was measured at: figures of `tests/performance`, kept for the methodology page."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from registry import ROOT
from registry.errors import ResultsError
from results.atomic_file import write_atomically

MEASUREMENTS = ROOT / "results" / "measurements.json"
"""The committed figures."""


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """One figure of the engine, measured beside what it is compared with, in one run."""

    what: str
    """What was measured, e.g. "Times faster than pyautoattack"."""
    subject: str
    """Model, data, number of images and budget."""
    value: float
    """The figure; a ratio or a count."""
    aim: str
    """What was aimed at, e.g. "3 or more"."""
    reached: bool
    """Whether the figure is what was aimed at."""
    detail: str
    """The two sides of a ratio, counts, and whatever else a reader needs."""
    load: float
    """Average number of running processes over the minute before, on all cores."""
    cores: int
    """Cores of the machine."""
    device: str
    """Device that computed, e.g. "cpu"."""
    torch: str
    """Version of torch."""
    date: str
    """Day of the measurement, ISO 8601."""


def read_measurements(path: Path = MEASUREMENTS) -> tuple[Measurement, ...]:
    """Returns the figures of a file, in its order; none where there is no file.

    Raises:
        ResultsError: The file is no list of measurements.
    """
    if not path.is_file():
        return ()
    try:
        return tuple(Measurement(**fields) for fields in json.loads(path.read_text(encoding="utf-8")))
    except (TypeError, ValueError) as error:
        raise ResultsError(
            f"{path} should hold a list of measurements as `tests/performance` writes them: {error}; measure again"
        ) from error


def keep_measurement(found: Measurement, path: Path = MEASUREMENTS) -> None:
    """Writes a figure into a file, in place of an earlier one of the same subject; sorted by what and subject.

    Raises:
        ResultsError: The file cannot be read or written.
    """
    others = [item for item in read_measurements(path) if _key(item) != _key(found)]
    write_atomically(path, _text(sorted([*others, found], key=_key)).encode())


def _key(item: Measurement) -> tuple[str, str]:
    return item.what, item.subject


def _text(items: Sequence[Measurement]) -> str:
    return json.dumps([asdict(item) for item in items], indent=1, ensure_ascii=False) + "\n"
