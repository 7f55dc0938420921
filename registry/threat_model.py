"""What an attacker may do: norm, support, scope, knowledge, goal - and how far: the perturbation budget."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction

from registry.errors import InvalidEntryError


class Norm(StrEnum):
    """How the size of a perturbation is measured."""

    LINF = "Linf"
    """Largest change of any value, in input units [0, 1]."""
    L2 = "L2"
    """Euclidean length of the change, in input units [0, 1]."""
    L1 = "L1"
    """Sum of absolute changes, in input units [0, 1]."""
    L0 = "L0"
    """Number of changed pixels; all channels of a pixel count once."""
    SEVERITY = "severity"
    """Severity 1 to 5 of a corruption; not a distance."""


class ThreatKind(StrEnum):
    """The family of input changes a protocol explores."""

    CLEAN = "clean"
    """No change at all: the identity."""
    BALL = "ball"
    """Any change within a norm ball around the input."""
    CORRUPTION = "corruption"
    """A named, non-adversarial change such as Poisson noise."""
    REPLACEMENT = "replacement"
    """One modality replaced by another patient's."""


class Scope(StrEnum):
    """How a budget is shared by several modalities."""

    JOINT = "joint"
    """One ball over all modalities together."""
    EACH = "each"
    """Every modality has a ball of its own."""


class Knowledge(StrEnum):
    """What the attacker sees of the model."""

    WHITE_BOX = "white-box"
    SCORE_BASED = "score-based"
    DECISION_BASED = "decision-based"
    TRANSFER = "transfer"


class Goal(StrEnum):
    """What counts as success."""

    UNTARGETED = "untargeted"
    TARGETED = "targeted"


EVERYTHING = "everything"
OUTSIDE_MASK = "outside-mask"
INSIDE_MASK = "inside-mask"


@dataclass(frozen=True, kw_only=True, slots=True)
class ThreatModel:
    """The rules of an attack, apart from its size.

    Worst cases are taken within one threat model and one budget only.
    """

    kind: ThreatKind = ThreatKind.BALL
    """Family of input changes."""
    norm: Norm = Norm.LINF
    """Norm in which budgets of this threat model are given."""
    scope: Scope = Scope.EACH
    """Whether several modalities share one ball; a single modality makes no difference."""
    support: str = EVERYTHING
    """Where changes are allowed: everything, modality:K, outside-mask or inside-mask."""
    knowledge: Knowledge = Knowledge.WHITE_BOX
    """The most that any member of the protocol sees of the model."""
    goal: Goal = Goal.UNTARGETED
    """Untargeted (any wrong answer) or targeted."""

    def __post_init__(self) -> None:
        named = self.support in (EVERYTHING, OUTSIDE_MASK, INSIDE_MASK)
        modality = self.support.removeprefix("modality:")
        if not named and not (self.support.startswith("modality:") and modality.isdigit()):
            raise InvalidEntryError(
                f"support must be everything, modality:K, outside-mask or inside-mask, got {self.support!r}"
            )
        if (self.norm is Norm.SEVERITY) != (self.kind is ThreatKind.CORRUPTION):
            raise InvalidEntryError(
                f"norm severity belongs to kind corruption alone, got norm {self.norm} with kind {self.kind}"
            )

    @property
    def label(self) -> str:
        """Short text for people, e.g. "Linf, white-box"."""
        if self.kind is ThreatKind.CLEAN:
            return "clean"
        parts = [str(self.norm)]
        if self.support != EVERYTHING:
            parts.append(self.support)
        parts.append(str(self.knowledge))
        if self.goal is Goal.TARGETED:
            parts.append("targeted")
        return ", ".join(parts)

    def card(self) -> dict[str, str]:
        """Returns the JSON form that records carry."""
        return {name: str(getattr(self, name)) for name in self.__slots__}


@dataclass(frozen=True, kw_only=True, slots=True)
class Budget:
    """How far an attacker may go: one `eps`, or one for each modality.

    Raises:
        InvalidEntryError: A value is not possible in its norm, e.g. eps 8 for Linf on images in [0, 1].
    """

    norm: Norm
    """Norm of `eps`."""
    eps: float | tuple[float, ...]
    """Radius in input units [0, 1] (Linf, L2, L1), pixels (L0) or severity; a tuple gives one per modality."""

    def __post_init__(self) -> None:
        if not self.values:
            raise InvalidEntryError("eps must be one value or one per modality, got an empty tuple")
        for value in self.values:
            _check_eps(self.norm, value)

    @property
    def values(self) -> tuple[float, ...]:
        """The radii as a tuple: one, or one per modality."""
        return self.eps if isinstance(self.eps, tuple) else (self.eps,)

    @property
    def size(self) -> float:
        """The largest radius; budgets of a protocol ascend in it."""
        return max(self.values)

    @property
    def label(self) -> str:
        """Text such as "Linf 4/255", "L2 0.5", "L0 3 px", "severity 2" or "Linf (4/255, 0)"."""
        texts = [format_eps(self.norm, value) for value in self.values]
        radius = texts[0] if len(texts) == 1 else f"({', '.join(texts)})"
        return f"{self.norm} {radius}"

    def holds(self, other: Budget) -> bool:
        """Returns whether every ball of another budget lies in that of this one: same norm, no larger eps anywhere."""
        if self.norm is not other.norm:
            return False
        if len(self.values) == len(other.values):
            return all(small <= large for small, large in zip(other.values, self.values, strict=True))
        return max(other.values) <= min(self.values)

    def card(self) -> dict[str, object]:
        """Returns the JSON form that records carry."""
        eps = list(self.eps) if isinstance(self.eps, tuple) else self.eps
        return {"norm": str(self.norm), "eps": eps}


def linf(eps: float) -> Budget:
    """Returns a Linf budget; eps in input units, e.g. 4 / 255."""
    return Budget(norm=Norm.LINF, eps=eps)


def format_eps(norm: Norm | str, eps: float) -> str:
    """Returns eps as people write it: "4/255" for Linf where that is exact, "3 px" for L0."""
    if norm == Norm.L0:
        return f"{eps:g} px"
    if norm == Norm.LINF and eps > 0:
        levels = eps * 255
        if math.isclose(levels, round(levels), abs_tol=1e-6) and eps < 1:
            return f"{round(levels)}/255"
        fraction = Fraction(levels).limit_denominator(8)
        if eps < 1 and math.isclose(float(fraction), levels, abs_tol=1e-6):
            return f"{float(fraction):g}/255"
    return f"{eps:g}"


def _check_eps(norm: Norm, eps: float) -> None:
    if not isinstance(eps, (int, float)) or isinstance(eps, bool) or not math.isfinite(eps) or eps < 0:
        raise InvalidEntryError(f"{norm} eps must be a finite number of 0 or more, got {eps!r}")
    if norm is Norm.LINF and eps > 1:
        raise InvalidEntryError(f"Linf eps is in input units [0, 1], got {eps:g}; write {eps:g} / 255, not {eps:g}")
    if norm is Norm.L0 and eps != int(eps):
        raise InvalidEntryError(f"L0 eps counts pixels, got {eps:g}; write a whole number")
    if norm is Norm.SEVERITY and eps not in (0, 1, 2, 3, 4, 5):
        raise InvalidEntryError(f"a corruption's severity is 1 to 5, got {eps:g}")
