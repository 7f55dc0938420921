"""How long cells take, learnt from finished ones; what was never measured stays unknown."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import median

from benchmark.cells import EvaluationCell, TrainingCell
from registry import DEFENSES, Randomness
from results.record import EvaluationRecord, RecordStatus

Cell = TrainingCell | EvaluationCell


@dataclass(frozen=True, kw_only=True, slots=True)
class TimeLeft:
    """An estimate for several cells."""

    seconds: float
    """Sum over the cells whose like was measured."""
    unknown: int
    """Number of cells whose like was never measured."""

    def __str__(self) -> str:
        if not self.unknown:
            return f"about {format_duration(self.seconds)}"
        cells = f"{self.unknown} cell{'s' if self.unknown > 1 else ''} of unknown length"
        return f"{format_duration(self.seconds)} and {cells}" if self.seconds else f"unknown ({cells})"


class Costs:
    """Measured wall times, by what was run.

    An evaluation is compared with the same defense, data set and protocol; or else with other defenses there that draw
    random numbers, or do not, as it does; or else with the passes that such ones took on any device, each as long as
    one of its own. A training is compared with the same defense on the same data set.
    """

    def __init__(self) -> None:
        self._per_sample: defaultdict[tuple[object, ...], list[float]] = defaultdict(list)
        self._passes: defaultdict[tuple[object, ...], list[float]] = defaultdict(list)
        self._per_pass: defaultdict[tuple[str, str], list[float]] = defaultdict(list)
        self._trainings: defaultdict[tuple[str, str], list[float]] = defaultdict(list)

    def learn_from(self, records: Iterable[EvaluationRecord], *, on_gpu: bool) -> None:
        """Adds the costs of finished records; of those made on another kind of device only how many passes they took.

        Cards without names are passed over.
        """
        for record in records:
            if record.status is not RecordStatus.DONE or record.cost is None or not record.n_planned:
                continue
            dataset, defense, protocol = (c.get("name") for c in (record.dataset, record.defense, record.protocol))
            if not all(isinstance(name, str) for name in (dataset, defense, protocol)):
                continue
            passes = record.cost.forwards + record.cost.backwards
            self._passes[dataset, protocol, _draws(defense)].append(passes / record.n_planned)
            if record.provenance.device.startswith("cpu") == on_gpu:
                continue
            if passes:
                self._per_pass[dataset, defense].append(record.cost.seconds / passes)
            self._add_evaluation(dataset, defense, protocol, record.cost.seconds / record.n_planned)
            if record.cost.training_seconds is not None and record.defense.get("recipe"):
                self._trainings[dataset, defense].append(record.cost.training_seconds)

    def learn(self, cell: Cell, seconds: float) -> None:
        """Adds the cost of a cell of this run."""
        if isinstance(cell, TrainingCell):
            self._trainings[cell.dataset, cell.defense].append(seconds)
        else:
            self._add_evaluation(cell.dataset, cell.defense, cell.protocol, seconds / cell.n_samples)

    def seconds(self, cell: Cell) -> float | None:
        """Returns the expected wall time of a cell, or None where nothing like it was measured."""
        if isinstance(cell, TrainingCell):
            known = self._trainings.get((cell.dataset, cell.defense))
            return median(known) if known else None
        kind = (cell.dataset, cell.protocol, _draws(cell.defense))
        for like in ((cell.dataset, cell.defense, cell.protocol), kind):
            if like in self._per_sample:
                return median(self._per_sample[like]) * cell.n_samples
        own = self._per_pass.get((cell.dataset, cell.defense))
        return median(own) * median(self._passes[kind]) * cell.n_samples if own and kind in self._passes else None

    def left(self, cells: Iterable[Cell]) -> TimeLeft:
        """Returns the estimate for several cells."""
        estimates = [self.seconds(cell) for cell in cells]
        known = [seconds for seconds in estimates if seconds is not None]
        return TimeLeft(seconds=sum(known), unknown=len(estimates) - len(known))

    def _add_evaluation(self, dataset: str, defense: str, protocol: str, per_sample: float) -> None:
        self._per_sample[dataset, defense, protocol].append(per_sample)
        self._per_sample[dataset, protocol, _draws(defense)].append(per_sample)


def _draws(defense: str) -> bool:
    """Returns whether a registered defense draws random numbers, which takes a hundred times the passes."""
    return defense in DEFENSES and DEFENSES[defense].randomness is not Randomness.NONE


def format_duration(seconds: float) -> str:
    """Returns a duration for people: "8 s", "12 min", "3.5 h"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
