"""A plan for people: what is to be trained and evaluated, what is left out and why, and how long it may take."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from benchmark.cells import Skip
from benchmark.estimate import Costs
from benchmark.plan import Plan
from benchmark.progress import title
from benchmark.runner import Work
from benchmark.states import CellState, evaluations_to_do, states_of, trainings_to_do
from benchmark.table import format_table
from results.store import RecordStore


def describe(plan: Plan, store: RecordStore, work: Work, costs: Costs, *, retry_failed: bool) -> str:
    """Returns the text of `run --dry-run`."""
    states = states_of(plan, store, work.weights_of)
    evaluations = evaluations_to_do(plan, states, retry_failed=retry_failed)
    trainings = trainings_to_do(plan, evaluations, work.is_trained)
    parts = []
    if plan.trainings:
        absent = {cell.key for cell in trainings}
        rows = [("to do" if cell.key in absent else "not needed", title(cell)) for cell in plan.trainings]
        parts.append(f"Trainings: {len(absent)} of {len(plan.trainings)} to do\n{_rows(rows)}")
    rows = [(states[cell.key], f"n = {cell.n_samples}", cell.key) for cell in plan.evaluations]
    parts.append(f"Evaluations: {len(evaluations)} of {len(plan.evaluations)} to do\n{_rows(rows)}".rstrip())
    failed = sum(state is CellState.FAILED for state in states.values())
    if failed and not retry_failed:
        parts.append(f"{failed} failed in an earlier run and are left alone; add --retry-failed to repeat them")
    if plan.skips:
        parts.append("\n".join(skip_lines(plan.skips)))
    parts.append(f"Time: {costs.left((*trainings, *evaluations)) if evaluations else 'nothing to do'}")
    return "\n\n".join(parts)


def skip_lines(skips: Sequence[Skip]) -> list[str]:
    """Returns one line for each reason, with everything it holds for; a remedy common but for a name says NAME."""
    grouped: defaultdict[tuple[str, str], list[Skip]] = defaultdict(list)
    for skip in skips:
        remedy = skip.remedy.replace(skip.dataset, "NAME") if skip.dataset else skip.remedy
        grouped[skip.reason, remedy].append(skip)
    lines = []
    for (reason, remedy), group in grouped.items():
        names = ", ".join(skip.what for skip in group)
        lines.append(f"skipped: {names}: {reason}; {remedy if len(group) > 1 else group[0].remedy}")
    return lines


def _rows(rows: list[tuple[object, ...]]) -> str:
    return "\n".join("  " + line for line in format_table([""] * len(rows[0]), rows).split("\n")[1:]) if rows else ""
