"""What an attack protocol is: a threat model, ascending budgets, and the members that a cell's facts call for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from registry.defense import DefenseEntry, Family, Paper, Randomness
from registry.errors import InvalidEntryError
from registry.lazy import Reference, reference_name, resolve
from registry.threat_model import Budget, ThreatKind, ThreatModel, linf


class Need(StrEnum):
    """A surrogate that a protocol attacks through, beside the victim."""

    TWIN = "twin"
    """The undefended model of the same data set and seed."""
    BARE = "bare"
    """The model without its declared pre-processing or purifier."""
    FROZEN_DRAW = "frozen_draw"
    """The victim with one draw of its noise held fixed."""
    MECHANISM = "mechanism"
    """The features that the defense lives on, e.g. a purifier's latent code; it has no scores of its own."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CellFacts:
    """What an ensemble needs to know of a cell to choose its members."""

    task: str
    """Name of the task."""
    n_classes: int
    """Number of classes."""
    multi_label: bool = False
    """Several labels may hold at once."""
    randomness: Randomness = Randomness.NONE
    """Where the defense draws random numbers."""
    stages: tuple[str, ...] = ()
    """Declared pre-processing stages, each with a differentiable stand-in for BPDA."""
    hidden_stages: tuple[str, ...] = ()
    """Those of them whose own gradient is not the true one, so that their stand-in is the first way to a gradient."""
    has_twin: bool = True
    """Whether an undefended twin other than the victim itself exists."""
    has_bare: bool = False
    """Whether the model shows its network without the defense in front of it, see `defenses.stages`."""
    has_mechanism: bool = False
    """Whether the model shows the features that the defense lives on, see `defenses.stages`."""
    n_modalities: int = 1
    """Number of modalities."""
    ranked_budget: Budget = field(default_factory=lambda: linf(4 / 255))
    """Budget that ranks, the protocol's own or the data set's; ensembles spend most there."""

    @property
    def graded(self) -> bool:
        """Whether a score may lie between 0 and 1, so that nothing is broken for good: all but one label an image."""
        return self.multi_label or self.task not in ("classification", "multimodal")


@dataclass(frozen=True, kw_only=True, slots=True)
class Member:
    """One attack of an ensemble."""

    name: str
    """The field's name for it, e.g. "apgd-ce", "square", "transfer-apgd-margin"; unique within the protocol."""
    attack: Reference
    """Factory `attack(**options)` of a stepped or simple attack."""
    options: Mapping[str, object] = field(default_factory=dict)
    """Keyword arguments of the factory: steps, restarts, queries, ..."""
    objective: str = "cross-entropy"
    """What the attack ascends, by its name in `attacks.objectives`."""
    source: str = "victim"
    """Whose gradient it follows: "victim", "exact" (the victim searched in full precision) or a surrogate's need."""
    pooled: bool = False
    """Of a stochastic victim: ascend the objective of the draws' mean probability, not the draws' mean objective."""
    backward: str = "true"
    """"true" gradient; "bpda": declared stages are replaced by their stand-in on the backward pass; "straight": stages
    that clip pass gradients on as if they did not."""

    def __post_init__(self) -> None:
        if self.backward not in ("true", "bpda", "straight"):
            raise InvalidEntryError(f"member {self.name}: backward is true, bpda or straight, got {self.backward!r}")
        if self.source not in ("victim", "exact", *Need):
            raise InvalidEntryError(f"member {self.name}: source is victim, exact or a surrogate, got {self.source!r}")

    def card(self) -> dict[str, object]:
        """Returns the JSON form that records carry beside the member's name."""
        return {
            "attack": reference_name(self.attack),
            "options": dict(self.options),
            "objective": self.objective,
            "source": self.source,
            "backward": self.backward,
            "pooled": self.pooled,
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class AttackProtocol:
    """An attack protocol as the registry knows it."""

    name: str
    """Unique name, e.g. "standard", "clean", "reference:autoattack"."""
    title: str
    """One sentence for people."""
    threat_model: ThreatModel
    """The rules."""
    budgets: tuple[Budget, ...]
    """Ascending; all in the threat model's norm; empty for `clean`."""
    tasks: tuple[str, ...]
    """Tasks it exists for."""
    members: Reference
    """`members(facts: CellFacts, budget: Budget) -> tuple[Member, ...]`, in the order they run."""
    needs: frozenset[Need] = frozenset()
    """Surrogates that must be there beside the victim: the twin, which is trained; a model shows the others itself."""
    families: frozenset[Family] = frozenset()
    """Families of defenses it is made for; empty for all."""
    randomness: frozenset[Randomness] = frozenset()
    """Kinds of randomness it is made for; empty for all."""
    one_label: bool = False
    """Whether its attacks need one class for each image, so that several labels do not do."""
    ranks: bool = False
    """Whether its worst case may rank a row."""
    ranked_budget: Budget | None = None
    """Budget of full effort, where soundness is probed; None for the data set's, which is in Linf."""
    cascades: bool = True
    """Whether a score is the worst case over all points, members and smaller budgets. Otherwise every budget begins at
    the originals and each sample is scored at the last point its one member proposes, as papers and corruptions do."""
    reference: Paper | None = None
    """Publication."""
    revision: int = 1
    """Raised when the protocol's meaning changes."""

    def __post_init__(self) -> None:
        if self.threat_model.kind is ThreatKind.CLEAN:
            if self.budgets:
                raise InvalidEntryError(f"protocol {self.name}: a clean protocol has no budgets")
            return
        if not self.budgets:
            raise InvalidEntryError(f"protocol {self.name}: name at least one budget")
        if self.ranks and not self.cascades:
            raise InvalidEntryError(f"protocol {self.name}: only a worst case may rank, and it does not cascade")
        sizes = [budget.size for budget in self.budgets]
        if sizes != sorted(set(sizes)):
            raise InvalidEntryError(f"protocol {self.name}: budgets must ascend, got {sizes}")
        pairs = zip(self.budgets, self.budgets[1:], strict=False)
        outside = next((pair for pair in pairs if self.cascades and not pair[1].holds(pair[0])), None)
        if outside is not None:
            raise InvalidEntryError(
                f"protocol {self.name}: each budget must hold the one before it, whose candidates it begins with; "
                f"{outside[1].label} does not hold {outside[0].label}"
            )
        if self.ranked_budget is not None and self.ranked_budget not in self.budgets:
            raise InvalidEntryError(
                f"protocol {self.name}: it ranks {self.ranked_budget.label}, which is no budget of it"
            )
        strangers = {str(budget.norm) for budget in self.budgets} - {str(self.threat_model.norm)}
        if strangers:
            raise InvalidEntryError(
                f"protocol {self.name}: budgets are in {self.threat_model.norm}, got {', '.join(sorted(strangers))}"
            )

    def suits(self, entry: DefenseEntry) -> bool:
        """Returns whether the protocol is made for a defense."""
        fits = not self.families or entry.family in self.families
        return fits and (not self.randomness or entry.randomness in self.randomness)

    def ensemble(self, facts: CellFacts, budget: Budget) -> tuple[Member, ...]:
        """Returns the members that run in a cell with these facts at this budget."""
        members = tuple(resolve(self.members)(facts, budget))
        names = [member.name for member in members]
        if len(set(names)) != len(names):
            raise InvalidEntryError(f"protocol {self.name}: member names must differ, got {names}")
        if not self.cascades and len(names) != 1:
            raise InvalidEntryError(f"protocol {self.name}: without a cascade it has one member, got {names}")
        return members

    def card(self) -> dict[str, object]:
        """Returns the JSON form that records carry."""
        return {
            "name": self.name,
            "title": self.title,
            "threat_model": self.threat_model.card(),
            "budgets": [budget.card() for budget in self.budgets],
            "tasks": list(self.tasks),
            "members": reference_name(self.members),
            "needs": sorted(self.needs),
            "families": sorted(self.families),
            "randomness": sorted(self.randomness),
            "ranks": self.ranks,
            "ranked_budget": self.ranked_budget.card() if self.ranked_budget else None,
            "cascades": self.cascades,
            "reference": self.reference.card() if self.reference else None,
            "revision": self.revision,
        }
