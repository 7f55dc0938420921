"""Which cells a selection comes to, in which order, and which cannot run and why. Pure: it reads no file."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from benchmark.cells import EvaluationCell, Skip, TrainingCell, key_digest
from benchmark.obstacles import (
    Machine,
    Obstacle,
    base_chain,
    dataset_obstacle,
    defense_obstacle,
    needs_weights,
    protocol_obstacle,
    suit_obstacle,
    weights_obstacle,
)
from benchmark.selection import Registries, Selection, source_revision
from registry import TWIN, AttackProtocol, DatasetSpec, DefenseEntry, Need
from registry.errors import InvalidEntryError, UnknownEntryError
from registry.revisions import ENGINE_REVISION


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """The work of one run, a directed acyclic graph: every training stands after those it needs."""

    trainings: tuple[TrainingCell, ...]
    """Checkpoints, bases first."""
    evaluations: tuple[EvaluationCell, ...]
    """Records."""
    skips: tuple[Skip, ...]
    """What is left out, and why."""


def plan(selection: Selection, machine: Machine, registries: Registries) -> Plan:
    """Returns the cells of a selection on a machine, with reasons for what is left out.

    Args:
        selection: Entries, seeds and number of samples.
        machine: Which data are here, and whether large inputs may run.
        registries: Where bases, twins and tasks are looked up.
    """
    draft = _Draft(selection=selection, registries=registries)
    draft.skips.extend(
        Skip(reason=f"the suite {selection.title} names an {text}", remedy="see: python -m benchmark doctor")
        for text in selection.unknown
    )
    for spec in selection.datasets:
        if obstacle := dataset_obstacle(spec, machine):
            draft.skip(obstacle, dataset=spec.name)
            continue
        protocols = []
        for protocol in selection.protocols:
            if obstacle := protocol_obstacle(protocol, spec):
                draft.skip(obstacle, dataset=spec.name, protocol=protocol.name)
            else:
                protocols.append(protocol)
        for entry in selection.defenses:
            draft.add_defense(entry, spec, protocols)
    return Plan(
        trainings=tuple(draft.trainings.values()),
        evaluations=tuple(draft.evaluations),
        skips=tuple(dict.fromkeys(draft.skips)),
    )


def trainings_of(entry: DefenseEntry, spec: DatasetSpec, seed: int, registries: Registries) -> tuple[TrainingCell, ...]:
    """Returns the trainings that a defense's weights come from: its bases first, its own last.

    Raises:
        UnknownEntryError: A base is no entry of the registry.
        InvalidEntryError: The bases wrap each other in a circle.
    """
    chain = base_chain(entry, registries.defenses)
    task_revision = registries.tasks[spec.task].revision
    cells: list[TrainingCell] = []
    for depth in reversed(range(len(chain))):
        trained = chain[depth]
        if trained.recipe is None:
            continue
        identity = {
            "dataset": spec.name,
            "defense": [part.name for part in chain[depth:]],
            "revisions": [spec.revision, task_revision, *(part.revision for part in chain[depth:])],
            "seed": seed,
        }
        cells.append(
            TrainingCell(
                key=f"{spec.name}/{trained.name}-s{seed}-{key_digest(identity)}",
                defense=trained.name,
                dataset=spec.name,
                seed=seed,
                after=(cells[-1].key,) if cells else (),
            )
        )
    return tuple(cells)


@dataclass(kw_only=True)
class _Draft:
    """A plan under construction."""

    selection: Selection
    registries: Registries
    trainings: dict[str, TrainingCell] = field(default_factory=dict)
    evaluations: list[EvaluationCell] = field(default_factory=list)
    skips: list[Skip] = field(default_factory=list)

    def skip(self, obstacle: Obstacle, **names: str) -> None:
        self.skips.append(Skip(reason=obstacle.reason, remedy=obstacle.remedy, **names))

    def add_defense(self, entry: DefenseEntry, spec: DatasetSpec, protocols: Iterable[AttackProtocol]) -> None:
        """Adds the cells of one defense on one data set, or the reason why there are none."""
        names = {"dataset": spec.name, "defense": entry.name}
        try:
            chain = base_chain(entry, self.registries.defenses)
        except (UnknownEntryError, InvalidEntryError) as error:
            self.skip(Obstacle(reason=f"its base: {error}", remedy="correct `base` in the entry"), **names)
            return
        if obstacle := defense_obstacle(chain, spec):
            self.skip(obstacle, **names)
            return
        usable = []
        for protocol in protocols:
            if obstacle := suit_obstacle(protocol, entry) or self._twin_obstacle(entry, spec, protocol):
                self.skip(obstacle, **names, protocol=protocol.name)
            else:
                usable.append(protocol)
        revisions = self._revisions(chain, spec)
        for seed in self.selection.seeds:
            obstacles = (weights_obstacle(part, spec, seed) for part in chain if needs_weights(part))
            if obstacle := next(filter(None, obstacles), None):
                self.skip(obstacle, **names)
                continue
            for protocol in usable:
                self._add_evaluation(chain, spec, protocol, seed, revisions)

    def _add_evaluation(
        self,
        chain: tuple[DefenseEntry, ...],
        spec: DatasetSpec,
        protocol: AttackProtocol,
        seed: int,
        revisions: dict[str, int],
    ) -> None:
        entry = chain[0]
        own = trainings_of(entry, spec, seed, self.registries)
        twin: tuple[TrainingCell, ...] = ()
        revisions = {**revisions, "protocol": protocol.revision}
        if _needs_twin(entry, protocol):
            twin_entry = self.registries.defenses[TWIN]
            twin = trainings_of(twin_entry, spec, seed, self.registries)
            revisions["twin"] = twin_entry.revision
        for cell in (*own, *twin):
            self.trainings.setdefault(cell.key, cell)
        n_samples = min(self.selection.n_samples or spec.splits["test"], spec.splits["test"])
        identity = {
            "dataset": spec.name,
            "task": spec.task,
            "defense": [part.name for part in chain],
            "protocol": protocol.name,
            "revisions": revisions,
            "training_seed": seed,
            "split": "test",
            "n_samples": n_samples,
            "attack_seed": 0,
        }
        self.evaluations.append(
            EvaluationCell(
                key=f"{spec.name}/{entry.name}/{protocol.name}-s{seed}-{key_digest(identity)}",
                defense=entry.name,
                dataset=spec.name,
                protocol=protocol.name,
                training=own[-1].key if own else None,
                training_seed=seed,
                n_samples=n_samples,
                revisions=revisions,
                needs=tuple(dict.fromkeys(cell.key for cell in (*own, *twin))),
            )
        )

    def _revisions(self, chain: tuple[DefenseEntry, ...], spec: DatasetSpec) -> dict[str, int]:
        bases = {f"base:{part.name}": part.revision for part in chain[1:]}
        bases |= source_revision(chain, self.registries.sources)
        return {
            "dataset": spec.revision,
            "task": self.registries.tasks[spec.task].revision,
            "defense": chain[0].revision,
            **bases,
            "engine": ENGINE_REVISION,
        }

    def _twin_obstacle(self, entry: DefenseEntry, spec: DatasetSpec, protocol: AttackProtocol) -> Obstacle | None:
        if not _needs_twin(entry, protocol):
            return None
        if TWIN not in self.registries.defenses:
            return Obstacle(
                reason=f"the protocol attacks through the undefended twin, and no defense is called {TWIN}",
                remedy="see: python -m benchmark doctor",
            )
        obstacle = defense_obstacle((self.registries.defenses[TWIN],), spec)
        if obstacle is None:
            return None
        return Obstacle(
            reason=f"the protocol attacks through the undefended twin, which is {obstacle.reason}",
            remedy=obstacle.remedy,
        )


def _needs_twin(entry: DefenseEntry, protocol: AttackProtocol) -> bool:
    return Need.TWIN in protocol.needs and entry.name != TWIN
