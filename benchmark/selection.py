"""What a user asks for: a suite, narrowed or replaced by the options of the command line, as registry entries."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path

from benchmark.cells import key_digest
from registry import (
    DATASETS,
    DEFENSES,
    PROTOCOLS,
    ROOT,
    TASKS,
    AttackProtocol,
    DatasetSpec,
    DefenseEntry,
    Registry,
    Suite,
    TaskSpec,
)
from registry.errors import UnknownEntryError, UserError
from registry.sources import entry_sha256


@dataclass(frozen=True, kw_only=True, slots=True)
class Registries:
    """The registries that names are looked up in; tests hand in their own."""

    tasks: Registry[TaskSpec] = TASKS
    """Tasks."""
    datasets: Registry[DatasetSpec] = DATASETS
    """Data sets."""
    defenses: Registry[DefenseEntry] = DEFENSES
    """Defenses."""
    protocols: Registry[AttackProtocol] = PROTOCOLS
    """Protocols."""
    sources: Mapping[str, str] = field(default_factory=dict)
    """Checksum of the code of each defense from outside the repository: when it changes, so do its cells."""


def foreign_sources() -> dict[str, str]:
    """Returns the checksum of the code of every defense whose file lies outside the repository's defenses, by name."""
    files = {entry.name: Path(DEFENSES.origin(entry.name).rpartition(":")[0]) for entry in DEFENSES}
    own = ROOT / "defenses"
    return {name: entry_sha256(file) for name, file in files.items() if not file.resolve().is_relative_to(own)}


def source_revision(chain: Iterable[DefenseEntry], sources: Mapping[str, str]) -> dict[str, int]:
    """Returns a number for the code of a defense and its bases from outside the repository; nothing for others.

    An edited file is another defense.
    """
    foreign = [sources[part.name] for part in chain if part.name in sources]
    return {"source": int(key_digest({"sources": foreign}), 16)} if foreign else {}


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """The options of `run` that change a suite; None or empty leaves the suite's own."""

    task: str | None = None
    """Keeps the data sets of this task only."""
    datasets: tuple[str, ...] = ()
    """Shell patterns instead of the suite's."""
    defenses: tuple[str, ...] = ()
    """Shell patterns instead of the suite's."""
    protocols: tuple[str, ...] = ()
    """Shell patterns instead of the suite's."""
    n_samples: int | None = None
    """Number of test samples of each data set."""
    seeds: tuple[int, ...] | None = None
    """Training seeds."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Selection:
    """The entries one run combines."""

    title: str
    """Name of the suite, for messages."""
    datasets: tuple[DatasetSpec, ...]
    """Data sets."""
    defenses: tuple[DefenseEntry, ...]
    """Defenses."""
    protocols: tuple[AttackProtocol, ...]
    """Protocols."""
    n_samples: int | None = None
    """Number of test samples of each data set; None for all."""
    seeds: tuple[int, ...] = (0,)
    """Training seeds."""
    unknown: tuple[str, ...] = ()
    """Texts on names of the suite that no entry has, e.g. because its file is broken."""


def select(suite: Suite, choice: Choice, registries: Registries) -> Selection:
    """Returns the entries that a suite and the user's options name.

    Raises:
        UnknownEntryError: A pattern or task given by the user matches nothing; near matches are in the text.
        UserError: No data set of the selection has the task.
        InvalidEntryError: A number of samples under 1, or a negative seed.
    """
    given = {"n_samples": choice.n_samples, "seeds": choice.seeds}
    suite = replace(suite, **{name: value for name, value in given.items() if value is not None})
    unknown: list[str] = []
    datasets = _matching(registries.datasets, choice.datasets, suite.datasets, unknown)
    if choice.task is not None:
        task = registries.tasks[choice.task].name
        names = ", ".join(spec.name for spec in datasets)
        datasets = tuple(spec for spec in datasets if spec.task == task)
        if not datasets:
            raise UserError(
                f"--task {task}: none of the selected data sets ({names}) has it; name some with --dataset, "
                "see: python -m benchmark list datasets"
            )
    return Selection(
        title=suite.name,
        datasets=datasets,
        defenses=_without(
            _matching(registries.defenses, choice.defenses, suite.defenses, unknown),
            () if choice.defenses else suite.without,
        ),
        protocols=_matching(registries.protocols, choice.protocols, suite.protocols, unknown),
        n_samples=suite.n_samples,
        seeds=tuple(dict.fromkeys(suite.seeds)),
        unknown=tuple(unknown),
    )


def _without(entries: tuple[DefenseEntry, ...], patterns: Iterable[str]) -> tuple[DefenseEntry, ...]:
    return tuple(entry for entry in entries if not any(fnmatchcase(entry.name, pattern) for pattern in patterns))


def _matching(registry: Registry, asked: Iterable[str], of_suite: Iterable[str], unknown: list[str]) -> tuple:
    """Returns the entries the user asked for, or else the suite's; names missing from the suite are noted only."""
    if asked:
        return registry.select(asked)
    known: list[str] = []
    for pattern in of_suite:
        try:
            known.extend(entry.name for entry in registry.select((pattern,)))
        except UnknownEntryError as error:
            unknown.append(str(error))
    return registry.select(dict.fromkeys(known)) if known else ()
