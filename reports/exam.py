"""What an exam of the benchmark on defenses of known truth comes to: outcomes, rows and counts."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatchcase

from registry import Budget, DefenseEntry
from reports.cards import DatasetFacts, DefenseFacts

TOLERANCE = 0.03
"""How far above its truth a verified number may lie, a fraction; and above 0, the lowest truth there is."""


class Outcome(StrEnum):
    """How the benchmark did on one control."""

    CAUGHT = "caught"
    """Broken, and said to be: not verified because of a flag, or at most 3 points above 0 or an exact truth."""
    MISSED = "missed"
    """Broken, and verified at a number that is too high."""
    NOT_GRADED = "not graded"
    """Broken, verified above 3 points, and all that is known of it are its own attacks: no exam."""
    ACCEPTED = "accepted"
    """Honest, verified, and not above its exact truth."""
    NOT_CONTESTED = "not contested"
    """Honest and verified, which no flag doubts; all that is known of its score are its own attacks."""
    FALSE_ALARM = "false alarm"
    """Honest, and doubted because of a flag."""
    TOO_HIGH = "too high"
    """Honest, and verified at a number that is too high: the attacks are too weak."""
    INCOMPLETE = "incomplete"
    """Not evaluated to the end."""


GOOD = frozenset({Outcome.CAUGHT, Outcome.ACCEPTED, Outcome.NOT_CONTESTED})
"""How a control should end."""


@dataclass(frozen=True, kw_only=True)
class ControlRow:
    """One control on one data set at its ranked budget, training seeds of as many samples pooled."""

    dataset: DatasetFacts
    defense: DefenseFacts
    budget: Budget
    seeds: tuple[int, ...] = ()
    n: int = 0
    clean: float | None = None
    truth: float | None = None
    """True robust score of the same seeds, or the lowest that any attack on the same weights reached."""
    exact: bool = False
    """Whether the truth owes nothing to attacks on this control."""
    apart: float = 0.0
    """Share of clean images on which the control scores otherwise than the model whose truth it is graded by."""
    measured: float | None = None
    """Robust score of the ranking protocol."""
    flags: tuple[str, ...] = ()
    """Names of the flags that are red, after the escalation where there was one."""
    settled: tuple[tuple[str, tuple[str, ...]], ...] = ()
    """Flags that were red before the escalation and are not after it, by the gradient attack that settled them."""
    status: str = "failed"
    reasons: tuple[str, ...] = ()
    outcome: Outcome = Outcome.INCOMPLETE

    @property
    def broken(self) -> bool:
        """Whether it is one that must be caught."""
        return self.defense.family == "control-broken"

    @property
    def flags_in_words(self) -> str:
        """Every flag that was red at some time, e.g. "zero-gradient, settled under BPDA"."""
        groups = [f"{', '.join(names)}, settled under {attack}" for attack, names in self.settled]
        return "; ".join([", ".join(self.flags), *groups] if self.flags else groups) or "none"


@dataclass(frozen=True, kw_only=True)
class Exam:
    """All controls on one data set."""

    dataset: DatasetFacts
    rows: tuple[ControlRow, ...]
    """Broken ones first, by name."""

    def count(self, *outcomes: Outcome) -> int:
        """Returns how many controls ended so: well with all of their rows, otherwise with any of them."""
        ends: dict[str, set[Outcome]] = {}
        for row in self.rows:
            ends.setdefault(row.defense.name, set()).add(row.outcome)
        bad = set(outcomes) - GOOD
        return sum(found <= set(outcomes) or bool(found & bad) for found in ends.values())

    def unexamined(self, entries: Iterable[DefenseEntry]) -> tuple[str, ...]:
        """Returns which registered defenses of known truth have no row, though they are made for such data."""
        rows = {row.defense.name for row in self.rows}
        return tuple(
            entry.name
            for entry in sorted(entries, key=lambda entry: entry.name)
            if entry.truth is not None
            and entry.name not in rows
            and self.dataset.task in entry.tasks
            and any(fnmatchcase(self.dataset.name, pattern) for pattern in entry.datasets)
        )

    @property
    def n_broken(self) -> int:
        """Controls that must be caught; one may have several rows, of training seeds with fewer samples."""
        return len({row.defense.name for row in self.rows if row.broken})

    @property
    def n_honest(self) -> int:
        """Controls that must be accepted."""
        return len({row.defense.name for row in self.rows if not row.broken})

    @property
    def in_words(self) -> str:
        """The benchmark's own score, for people."""
        text = (
            f"{self.count(Outcome.CAUGHT)} of {self.n_broken} broken controls caught, "
            f"{self.count(Outcome.FALSE_ALARM)} false alarms on {self.n_honest} honest ones"
        )
        others = {
            Outcome.MISSED: "broken ones missed",
            Outcome.NOT_GRADED: "broken ones not graded",
            Outcome.TOO_HIGH: "honest ones measured too high",
            Outcome.INCOMPLETE: "not evaluated to the end",
        }
        return text + "".join(f", {self.count(which)} {words}" for which, words in others.items() if self.count(which))

    @property
    def truths_in_words(self) -> str:
        """What the controls were held against, for people."""
        graded = [row for row in self.rows if row.truth is not None and row.outcome is not Outcome.NOT_GRADED]
        near = sum(row.exact and row.apart > 0 for row in graded)
        exact = sum(row.exact for row in graded) - near
        wrapped = f"{near} against that of a model they wrap and differ from on a few clean images, " if near else ""
        return (
            f"{exact} against an exact truth, {wrapped}{len(graded) - exact - near} against the lowest score of any "
            "attack on the same weights, their own included"
        )
