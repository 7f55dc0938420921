"""Why a data set, a defense or a protocol cannot be part of a run, and what to do about it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from datasets.locate import remedy
from registry import AttackProtocol, DatasetSpec, DefenseEntry, Registry
from registry.errors import InvalidEntryError

LARGE_INPUT = 128
"""Edge in pixels from which inputs are left to GPUs unless a CPU is asked for by name."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Machine:
    """The facts about this machine that a plan depends on."""

    datasets: frozenset[str]
    """Names of the data sets whose files are here."""
    large_inputs: bool
    """Whether inputs of 128 pixels and more may run: there is a CUDA device, or the CPU was asked for by name."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Obstacle:
    """A reason and its remedy."""

    reason: str
    """Why not."""
    remedy: str
    """What to do."""


def dataset_obstacle(spec: DatasetSpec, machine: Machine) -> Obstacle | None:
    """Returns why this machine cannot run a data set, or None."""
    if not spec.embedded and spec.name not in machine.datasets:
        return Obstacle(reason="its file is not in the data folder", remedy=remedy(spec))
    if max(spec.input_shape[-2:]) >= LARGE_INPUT and not machine.large_inputs:
        height, width = spec.input_shape[-2:]
        return Obstacle(
            reason=f"inputs of {height} x {width} pixels take very long without a CUDA device",
            remedy="run it on a machine with a GPU, or add --device cpu to insist",
        )
    return None


def base_chain(entry: DefenseEntry, defenses: Registry[DefenseEntry]) -> tuple[DefenseEntry, ...]:
    """Returns a defense and the bases it wraps, the innermost last.

    Raises:
        UnknownEntryError: A base is no entry of the registry.
        InvalidEntryError: The bases wrap each other in a circle.
    """
    chain = [entry]
    while chain[-1].base is not None:
        base = defenses[chain[-1].base]
        if base in chain:
            raise InvalidEntryError(f"defense {entry.name}: its bases form a circle at {base.name}")
        chain.append(base)
    return tuple(chain)


def defense_obstacle(chain: Sequence[DefenseEntry], spec: DatasetSpec) -> Obstacle | None:
    """Returns why a defense (with its bases, see `base_chain`) is not for a data set, or None."""
    for entry in chain:
        role = "" if entry is chain[0] else f"its base {entry.name} is "
        if spec.task not in entry.tasks:
            return Obstacle(
                reason=f"{role}made for {' and '.join(entry.tasks)}, not for {spec.task}",
                remedy=f"nothing to do, unless you want a defense made for {spec.task}",
            )
        if spec.multi_label and (entry.one_label or entry.detects or entry.oracle):
            return Obstacle(
                reason=f"{role}made for one class an image, and {spec.name} has several labels at once",
                remedy="nothing to do, unless you want a defense made for several labels",
            )
        if not any(fnmatchcase(spec.name, pattern) for pattern in entry.datasets):
            return Obstacle(
                reason=f"{role}declared for {', '.join(entry.datasets)} only",
                remedy=f"add {spec.name} to `datasets` of the entry if it fits",
            )
    return None


def weights_obstacle(entry: DefenseEntry, spec: DatasetSpec, seed: int) -> Obstacle | None:
    """Returns why an entry has no weights of its own for a data set and seed, or None; see `needs_weights`."""
    if entry.recipe is not None:
        return None
    released = sorted({(c.dataset, c.seed) for c in entry.checkpoints})
    if (spec.name, seed) in released:
        return None
    return Obstacle(
        reason=f"no weights for seed {seed}: the entry has no recipe, and released ones are for "
        + ", ".join(f"{name} seed {number}" for name, number in released),
        remedy="give the entry a recipe, or a checkpoint for this data set and seed",
    )


def needs_weights(entry: DefenseEntry) -> bool:
    """Returns whether an entry has weights of its own, beside those of its base."""
    return entry.recipe is not None or bool(entry.checkpoints)


def protocol_obstacle(protocol: AttackProtocol, spec: DatasetSpec) -> Obstacle | None:
    """Returns why a protocol does not fit a data set, or None."""
    if spec.task in protocol.tasks and protocol.one_label and spec.multi_label:
        return Obstacle(
            reason=f"the protocol's attacks need one class an image, and {spec.name} has several labels at once",
            remedy="nothing to do: the other protocols cover it",
        )
    if spec.task in protocol.tasks:
        return None
    return Obstacle(
        reason=f"the protocol covers {' and '.join(protocol.tasks)}, not {spec.task}",
        remedy=f"nothing to do, unless you want a protocol for {spec.task}",
    )


def suit_obstacle(protocol: AttackProtocol, entry: DefenseEntry) -> Obstacle | None:
    """Returns why a protocol is not made for a defense, or None."""
    if protocol.suits(entry):
        return None
    wanted = [*sorted(protocol.families), *(f"randomness {kind}" for kind in sorted(protocol.randomness))]
    return Obstacle(
        reason=f"the protocol is made for {', '.join(wanted)}; this defense is {entry.family}, "
        f"randomness {entry.randomness}",
        remedy="nothing to do: its own protocols cover it",
    )
