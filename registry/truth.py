"""What is known of a control: a defense whose true robust score is known, to examine the benchmark itself with."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class KnownBy(StrEnum):
    """How the true robust score of a control is known."""

    BASE = "base"
    """It decides as its base does, but for a few inputs at most, so its robust score is the base's."""
    CERTIFICATE = "certificate"
    """Its certificate holds for exactly the robust samples."""
    ATTACK = "attack"
    """The lowest score of any attack, one that knows the trick included: an upper bound."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Truth:
    """What is known of a defense's robust score beside the ranking protocol; it makes the defense a control.

    A control of the family `control-broken` must not be verified far above its truth; any other one is honest and must
    be verified.
    """

    known_by: KnownBy
    """Where the true number comes from."""
    statement: str
    """One sentence: what is true of it, and what an evaluation may fall for."""

    def card(self) -> dict[str, str]:
        """Returns the JSON form that records carry."""
        return {"known_by": str(self.known_by), "statement": self.statement}
