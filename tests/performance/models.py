"""Committed models and test images that the measurements share, and where their figures are kept."""

from __future__ import annotations

import datetime
import os

import pytest
import torch

from attacks.engine import Outcome, run_protocol
from attacks.victim import Access
from benchmark.access import Subject, access_to, slots_for
from datasets.batch import Batch
from datasets.locate import data_root
from datasets.tasks.base import task_for
from defenses.build import defended_model
from registry import DATASETS, DEFENSES, AttackProtocol, Budget, CellFacts, Member, ThreatModel, load_entries
from registry.errors import CheckpointError, DataError
from results.measurements import Measurement, keep_measurement


def number(name: str, default: int) -> int:
    """Returns a size of a measurement from the environment, e.g. MEDROBUST_IMAGES."""
    return int(os.environ.get(f"MEDROBUST_{name}", default))


def report(what: str, subject: str, value: float, *, aim: str, reached: bool, detail: str) -> bool:
    """Prints a figure and returns whether its aim is reached.

    With MEDROBUST_KEEP=1 it is written to `results/measurements.json`, from which the methodology page is made.
    """
    print(f"\n{what}, {subject}: {value:.3g} (aim: {aim}); {detail}")
    if os.environ.get("MEDROBUST_KEEP") == "1":
        found = Measurement(
            what=what,
            subject=subject,
            value=float(f"{value:.3g}"),
            aim=aim,
            reached=reached,
            detail=detail,
            load=round(os.getloadavg()[0], 1),
            cores=os.cpu_count() or 1,
            device="cpu",
            torch=torch.__version__,
            date=datetime.date.today().isoformat(),
        )
        keep_measurement(found)
    return reached


def subject(defense: str, dataset: str, n: int) -> tuple[Subject, Batch]:
    """Returns a committed model and the first test images; skips where data or weights are absent."""
    load_entries()
    try:
        data = DATASETS[dataset].load(data_root(None))
        model, _ = defended_model(DEFENSES[defense], data.spec, 0, None)
    except (DataError, CheckpointError) as error:
        pytest.skip(str(error))
    batch = data.splits["test"].take(range(min(n, len(data.splits["test"]))))
    return Subject(model=model, task=task_for(data.spec), spec=data.spec), batch


def protocol(members, budgets: tuple[Budget, ...]) -> AttackProtocol:
    """Returns a protocol of the ensemble that `members(facts, budget)` gives."""
    return AttackProtocol(
        name="measured",
        title="Members under measurement",
        threat_model=ThreatModel(),
        budgets=budgets,
        tasks=("classification",),
        members=members,
    )


def fixed(*members: Member):
    """Returns an ensemble that is the same in every cell."""

    def ensemble(facts: CellFacts, budget: Budget) -> tuple[Member, ...]:
        return members

    return ensemble


def attacked(model: Subject, batch: Batch, rules: AttackProtocol, slots: int | None = None) -> tuple[Access, Outcome]:
    """Returns the access to a model and what the engine found."""
    access, facts = access_to(model, batch, rules, slots=slots or slots_for(batch.inputs), seed=0)
    return access, run_protocol(access, batch, rules, facts)


def right_at(model: Subject, batch: Batch, points: torch.Tensor) -> torch.Tensor:
    """Returns which samples the unprepared model still gets right."""
    with torch.no_grad():
        return torch.cat([model.model(part).argmax(1) for part in points.split(64)]) == batch.targets["label"]
