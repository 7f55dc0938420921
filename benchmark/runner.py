"""Walks a plan: trains what is absent, evaluates what is missing, writes one record per cell, nothing else."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import pandas as pd

from benchmark.cells import EvaluationCell, TrainingCell
from benchmark.estimate import Cell, Costs
from benchmark.failures import failure_of, in_one_line
from benchmark.plan import Plan
from benchmark.progress import Progress, title
from benchmark.states import CellState, evaluations_to_do, state_of, states_of, trainings_to_do
from results.adversarials import Adversarials
from results.record import EvaluationRecord, Failure, RecordStatus
from results.store import RecordStore

WAIT = 2.0
"""Seconds between two looks at cells that another process holds."""

Inside = Callable[[float, str], None]
"""Told the finished share of a cell, 0 to 1, and what is done at the moment."""


class Work(Protocol):
    """The heavy part of a run, apart from the walk."""

    def train(self, cell: TrainingCell, inside: Inside) -> object:
        """Trains one cell and leaves its weights where `is_trained` finds them."""

    def evaluate(
        self, cell: EvaluationCell, inside: Inside
    ) -> tuple[EvaluationRecord, pd.DataFrame, Adversarials | None]:
        """Returns the record of one cell, its per-sample facts and its certificates."""

    def failed_record(self, cell: EvaluationCell, failure: Failure) -> EvaluationRecord:
        """Returns the record that says why a cell failed."""

    def is_trained(self, cell: TrainingCell) -> bool:
        """Returns whether the weights are present."""

    def weights_of(self, cell: EvaluationCell) -> str | None:
        """Returns the checksum of the weights that are present, or None."""


@dataclass(kw_only=True)
class Outcome:
    """How the cells of a run ended."""

    done: list[str] = field(default_factory=list)
    """Keys of the evaluations finished by this run."""
    reused: list[str] = field(default_factory=list)
    """Keys of those that were finished before, or by another process meanwhile."""
    failed: dict[str, str] = field(default_factory=dict)
    """What went wrong, in one line, by the key of a training or an evaluation."""
    failed_before: list[str] = field(default_factory=list)
    """Keys of those that failed in an earlier run and were left alone."""

    @property
    def exit_code(self) -> int:
        """1 where a cell failed, now or before; else 0."""
        return 1 if self.failed or self.failed_before else 0


class Run:
    """One run over a plan and a results folder.

    Args:
        plan: What to do.
        store: Where records go; several runs may share its folder.
        work: Trains and evaluates.
        costs: Measured wall times, for the estimate of the time left.
        retry_failed: Repeats cells that failed in an earlier run.
        quiet: Shows no progress.
    """

    def __init__(
        self, plan: Plan, store: RecordStore, work: Work, costs: Costs, *, retry_failed: bool, quiet: bool
    ) -> None:
        self._plan, self._store, self._work = plan, store, work
        self._retry_failed = retry_failed
        self._broken: dict[str, Failure] = {}
        self.outcome = Outcome()
        states = states_of(plan, store, work.weights_of)
        self._states = states
        self._evaluations = evaluations_to_do(plan, states, retry_failed=retry_failed)
        self._trainings = trainings_to_do(plan, self._evaluations, work.is_trained)
        self._pending = {cell.key for cell in self._trainings}
        self.outcome.reused = [key for key, state in states.items() if state is CellState.DONE]
        if not retry_failed:
            self.outcome.failed_before = [key for key, state in states.items() if state is CellState.FAILED]
        self.progress = Progress((*self._trainings, *self._evaluations), costs, quiet=quiet)

    def walk(self) -> Outcome:
        """Works through the plan and returns how its cells ended.

        An error of a cell is kept in a failed record and the others go on. A cell that another process holds is
        left for the end. Ctrl-C leaves nothing half-written: `outcome` then holds what is finished.

        Raises:
            ResultsError: The results folder cannot be read or written.
        """
        try:
            self._each(self._trainings, self._train)
            self._each((*self._evaluations, *self._outdated()), self._evaluate)
        finally:
            self.progress.close()
        return self.outcome

    def _each(self, cells: Sequence[Cell], attempt: Callable[[Cell], bool]) -> None:
        """Attempts every cell, then those again that another process held, until none is left."""
        told = False
        while cells:
            held = [cell for cell in cells if not attempt(cell)]
            if held and len(held) == len(cells):
                if not told:
                    self.progress.say(f"waiting for another process to finish {len(held)} cell(s): {title(held[0])}")
                    told = True
                time.sleep(WAIT)
            cells = held

    def _outdated(self) -> tuple[EvaluationCell, ...]:
        """Returns the finished cells whose weights were absent, and are trained anew by this run."""
        trained = {cell.key for cell in self._trainings}
        reused = set(self.outcome.reused)
        cells = [cell for cell in self._plan.evaluations if cell.key in reused and not trained.isdisjoint(cell.needs)]
        outdated = tuple(
            cell for cell in cells if state_of(cell, self._store, self._work.weights_of) is CellState.STALE
        )
        self.outcome.reused = [key for key in self.outcome.reused if key not in {cell.key for cell in outdated}]
        self.progress.add(outdated)
        return outdated

    def _train(self, cell: TrainingCell) -> bool:
        """Trains one cell; returns False where another process holds it or its base."""
        held, broken = self._failed_need(cell.after)
        if held:
            return False
        if broken is not None:
            self._broken[cell.key] = broken
            self._pending.discard(cell.key)
            self.progress.drop(cell)
            return True
        if not self._pending.isdisjoint(cell.after):
            return False
        with self._store.claim(f"training/{cell.key}") as claim:
            if claim is None:
                return False
            self._pending.discard(cell.key)
            if self._work.is_trained(cell):  # by another process, meanwhile
                self.progress.drop(cell)
                return True
            self.progress.begin(cell)
            try:
                self._work.train(cell, self.progress.inside)
            except Exception as error:  # an entry's code may raise anything; the other cells go on
                self._broken[cell.key] = failure_of(error)
                self._note_failure(cell, self._broken[cell.key])
            else:
                self.progress.end(cell, "done")
        return True

    def _evaluate(self, cell: EvaluationCell) -> bool:
        """Evaluates one cell and writes its record; returns False where another process holds it."""
        with self._store.claim(cell.key) as claim:
            if claim is None:
                return False
            if self._ended_elsewhere(cell):
                self.progress.drop(cell)
                return True
            held, failure = self._failed_need(cell.needs)
            if held:
                return False
            self.progress.begin(cell)
            record, samples, adversarials = None, None, None
            if failure is None:
                try:
                    record, samples, adversarials = self._work.evaluate(cell, self.progress.inside)
                    failure = record.failure
                except Exception as error:  # an entry's code may raise anything; the other cells go on
                    failure = failure_of(error)
            if failure is not None and (record is None or record.status is RecordStatus.DONE):
                record, samples, adversarials = self._work.failed_record(cell, failure), None, None
            failure = self._write(cell, record, samples, adversarials) or failure
            if failure is not None:
                self._note_failure(cell, failure)
            else:
                self.outcome.done.append(cell.key)
                self.progress.end(cell, "done", seconds=record.cost and record.cost.seconds)
        return True

    def _write(
        self,
        cell: EvaluationCell,
        record: EvaluationRecord,
        samples: pd.DataFrame | None,
        adversarials: Adversarials | None,
    ) -> Failure | None:
        """Writes a record, or a failed one in place of what has no stored form; then returns why it has none.

        Raises:
            ResultsError: The results folder cannot be written.
        """
        try:
            self._store.write(record, samples, adversarials)
        except Exception as error:
            if isinstance(error, OSError) or isinstance(error.__cause__, OSError):  # the disk, not the record
                raise
            failure = failure_of(error)
            self._store.write(self._work.failed_record(cell, failure))
            return failure
        return None

    def _failed_need(self, needs: Collection[str]) -> tuple[bool, Failure | None]:
        """Returns whether another process trains what failed to train here and is needed, and why it failed.

        Weights that another process has trained since then will do.
        """
        for training in self._plan.trainings:
            if training.key not in needs or training.key not in self._broken:
                continue
            if self._work.is_trained(training):
                del self._broken[training.key]
                continue
            with self._store.claim(f"training/{training.key}") as claim:
                if claim is None:
                    return True, None
            return False, self._broken[training.key]
        return False, None

    def _ended_elsewhere(self, cell: EvaluationCell) -> bool:
        """Returns whether another process has ended this cell since the run began, and notes how."""
        state = state_of(cell, self._store, self._work.weights_of)
        if state is CellState.DONE:
            self.outcome.reused.append(cell.key)
            return True
        if state is CellState.FAILED and self._states[cell.key] is not CellState.FAILED:
            failure = self._store.read(cell.key).failure
            self.outcome.failed[cell.key] = in_one_line(failure)
            return True
        return False

    def _note_failure(self, cell: Cell, failure: Failure) -> None:
        self.outcome.failed[cell.key] = in_one_line(failure)
        self.progress.end(cell, "failed")
        self.progress.say(f"failed: {title(cell)}: {in_one_line(failure)}")
