"""What is left to do: which cells of a plan have a finished record that still holds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from enum import StrEnum

from benchmark.cells import EvaluationCell, TrainingCell
from benchmark.plan import Plan
from defenses.cards import outdated
from registry import DATASETS, DEFENSES
from registry.errors import DamagedRecordError
from results.record import Checkpoint, RecordStatus
from results.store import RecordStore


class CellState(StrEnum):
    """How far an evaluation cell is."""

    DONE = "done"
    """A finished record names the weights that are present, or none are and its own are those of the entry as it is."""
    FAILED = "failed"
    """An earlier run ended with an error."""
    STALE = "stale"
    """A finished record names other weights than the ones present, or weights that the entry no longer trains."""
    DAMAGED = "damaged"
    """A file is there that is no record; it is written anew."""
    MISSING = "to do"
    """No record."""


WeightsOf = Callable[[EvaluationCell], str | None]
"""Returns the sha256 of the weights that are present for a cell, or None where they are not (all) there."""


def state_of(cell: EvaluationCell, store: RecordStore, weights_of: WeightsOf) -> CellState:
    """Returns the state of one evaluation cell.

    Raises:
        NewerSchemaError: Its record was written by a newer version; it must not be overwritten.
    """
    try:
        record = store.read(cell.key)
    except DamagedRecordError:
        return CellState.DAMAGED
    if record is None:
        return CellState.MISSING
    if record.status is RecordStatus.FAILED:
        return CellState.FAILED
    if record.checkpoint is None:
        return CellState.DONE
    present = weights_of(cell)
    if present is None:
        return CellState.STALE if trained_otherwise(record.checkpoint, cell.dataset) else CellState.DONE
    return CellState.DONE if record.checkpoint.sha256 == present else CellState.STALE


def trained_otherwise(checkpoint: Checkpoint, dataset: str) -> str:
    """Returns in words how evaluated weights differ from those that their entry asks for today, or ""."""
    card = checkpoint.card
    name = card.get("defense")
    if name not in DEFENSES or dataset not in DATASETS:
        return ""
    return outdated(card, DEFENSES[name], DATASETS[dataset])


def states_of(plan: Plan, store: RecordStore, weights_of: WeightsOf) -> dict[str, CellState]:
    """Returns the state of every evaluation cell of a plan, by key."""
    return {cell.key: state_of(cell, store, weights_of) for cell in plan.evaluations}


def evaluations_to_do(plan: Plan, states: Mapping[str, CellState], *, retry_failed: bool) -> tuple[EvaluationCell, ...]:
    """Returns the evaluation cells that a run works on, in the order of the plan."""
    finished = {CellState.DONE} if retry_failed else {CellState.DONE, CellState.FAILED}
    return tuple(cell for cell in plan.evaluations if states[cell.key] not in finished)


def trainings_to_do(
    plan: Plan, evaluations: tuple[EvaluationCell, ...], is_trained: Callable[[TrainingCell], bool]
) -> tuple[TrainingCell, ...]:
    """Returns the trainings that these evaluations need and that are to be done, see `untrained`; bases first."""
    needed = {key for cell in evaluations for key in cell.needs}
    return untrained((cell for cell in plan.trainings if cell.key in needed), is_trained)


def untrained(cells: Iterable[TrainingCell], is_trained: Callable[[TrainingCell], bool]) -> tuple[TrainingCell, ...]:
    """Returns the trainings whose weights are absent or outdated, and those after one of them.

    While the weights of a base are absent, those around it cannot be compared with anything: whether they fit shows
    when the base is trained. So look again before each training, and leave out what fits after all.

    Args:
        cells: Bases first.
        is_trained: Whether weights are present and current, as far as can be told now.
    """
    found: dict[str, TrainingCell] = {}
    for cell in cells:
        if not is_trained(cell) or not found.keys().isdisjoint(cell.after):
            found[cell.key] = cell
    return tuple(found.values())
