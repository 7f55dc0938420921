"""The contract of a protocol: members for every kind of cell, each with an attack and an objective that exist."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

from attacks.objectives import objective_for
from benchmark.validation.check import Check, Unmet, check
from datasets.tasks.base import Task, task_for
from registry import DATASETS, TASKS, AttackProtocol, CellFacts, Member, Need, Randomness, ThreatKind, resolve


def protocol_checks(protocol: AttackProtocol) -> list[Check]:
    """Returns every verdict on a protocol."""
    return [
        check("its tasks exist", lambda: [TASKS[task] for task in protocol.tasks] and None),
        check("a protocol that ranks names its reference", _reference, protocol),
        *(check(f"{task}: members build for every kind of cell", _members, protocol, task) for task in protocol.tasks),
    ]


def _reference(protocol: AttackProtocol) -> str:
    if protocol.ranks and protocol.reference is None:
        raise Unmet("give the publication the protocol rests on")
    return protocol.reference.url if protocol.reference else "does not rank"


def _members(protocol: AttackProtocol, task: str) -> str:
    seen: dict[str, Member] = {}
    cells = 0
    for facts in _kinds(task):
        for budget in protocol.budgets:
            cells += 1
            ensemble = protocol.ensemble(facts, budget)
            if not ensemble:
                raise Unmet(f"no member attacks {facts} at {budget.label}; every cell needs one")
            for member in ensemble:
                _admit(protocol, facts, member)
                seen.setdefault(member.name, member)
    if protocol.threat_model.kind is ThreatKind.CLEAN:
        return "clean, nobody attacks"
    model_task = _task(task)
    for member in seen.values():
        attack = resolve(member.attack)(**member.options)
        if not hasattr(attack, "run") and not all(hasattr(attack, name) for name in ("start", "ask", "tell")):
            raise Unmet(f"{member.name}: an attack has run(), or start(), ask() and tell(); {type(attack)} has not")
        if model_task is not None:
            objective_for(model_task, member.objective)
    return f"{', '.join(seen)}; {cells} kinds of cells"


def _admit(protocol: AttackProtocol, facts: CellFacts, member: Member) -> None:
    """Raises Unmet where a member needs what the protocol does not ask for, or the cell does not have."""
    if member.source == Need.TWIN and Need.TWIN not in protocol.needs:
        raise Unmet(f"{member.name} attacks through {member.source!r}: add it to `needs` of the protocol")
    if member.source == Need.TWIN and not facts.has_twin:
        raise Unmet(f"{member.name} attacks through the twin in a cell without one; look at facts.has_twin")
    if member.source == Need.BARE and not facts.has_bare:
        raise Unmet(f"{member.name} attacks through a bare network in a cell without one; look at facts.has_bare")
    if member.source == Need.MECHANISM and not facts.has_mechanism:
        raise Unmet(f"{member.name} attacks features in a cell without any; look at facts.has_mechanism")


def _kinds(task: str) -> Iterator[CellFacts]:
    """Yields facts of every kind of cell that a task has."""
    classes = (2, 3, 4, 11)
    for n, randomness, stages, twin in product(classes, Randomness, ((), ("Stage",)), (True, False)):
        yield CellFacts(task=task, n_classes=n, randomness=randomness, stages=stages, has_twin=twin)
    for randomness, parts in product(Randomness, (True, False)):
        yield CellFacts(task=task, n_classes=2, randomness=randomness, has_bare=parts, has_mechanism=not parts)
    if task == "classification":
        yield CellFacts(task=task, n_classes=14, multi_label=True)


def _task(task: str) -> Task | None:
    """Returns the arithmetic of a task, by the data set of it with the most classes."""
    fitting = [spec for spec in DATASETS if spec.task == task and not spec.multi_label]
    return task_for(max(fitting, key=lambda spec: spec.n_classes)) if fitting else None
