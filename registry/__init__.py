"""The vocabulary of the benchmark and the registries of its entries; standard library only, no torch."""

from registry.attack import AttackProtocol, CellFacts, Member, Need
from registry.core import Registry
from registry.dataset import SPLITS, DatasetSpec, HarmfulConfusion, Source
from registry.defense import TWIN, Checkpoint, Claim, DefenseEntry, Family, KnownBy, Paper, Randomness, Recipe, Truth
from registry.discovery import ROOT, BrokenEntry, load_entries
from registry.lazy import Reference, resolve
from registry.metric import DRAW_METRICS, RESTORATION, MetricSpec, TaskSpec, settling_limit
from registry.suite import Suite
from registry.tasks import BUILT_IN_TASKS
from registry.threat_model import (
    Budget,
    Goal,
    Knowledge,
    Norm,
    Scope,
    ThreatKind,
    ThreatModel,
    format_eps,
    linf,
)

TASKS: Registry[TaskSpec] = Registry("task", TaskSpec)
DATASETS: Registry[DatasetSpec] = Registry("dataset", DatasetSpec)
DEFENSES: Registry[DefenseEntry] = Registry("defense", DefenseEntry)
PROTOCOLS: Registry[AttackProtocol] = Registry("protocol", AttackProtocol)
SUITES: Registry[Suite] = Registry("suite", Suite)
ALL_REGISTRIES = (TASKS, DATASETS, DEFENSES, PROTOCOLS, SUITES)

for _task in BUILT_IN_TASKS:
    TASKS.add(_task)

__all__ = [
    "ALL_REGISTRIES",
    "DATASETS",
    "DEFENSES",
    "DRAW_METRICS",
    "PROTOCOLS",
    "RESTORATION",
    "ROOT",
    "SPLITS",
    "SUITES",
    "TASKS",
    "TWIN",
    "AttackProtocol",
    "BrokenEntry",
    "Budget",
    "CellFacts",
    "Checkpoint",
    "Claim",
    "DatasetSpec",
    "DefenseEntry",
    "Family",
    "Goal",
    "HarmfulConfusion",
    "Knowledge",
    "KnownBy",
    "Member",
    "MetricSpec",
    "Need",
    "Norm",
    "Paper",
    "Randomness",
    "Recipe",
    "Reference",
    "Registry",
    "Scope",
    "Source",
    "Suite",
    "TaskSpec",
    "ThreatKind",
    "ThreatModel",
    "Truth",
    "format_eps",
    "linf",
    "load_entries",
    "resolve",
    "settling_limit",
]
