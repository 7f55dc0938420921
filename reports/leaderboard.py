"""What a board is: plain data, a pure function of records, with everything that pages and exports say about it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from registry import Budget, ThreatModel
from registry.threat_model import EVERYTHING
from reports.cards import Cell, DatasetFacts, DefenseFacts, PublishedClaim
from reports.costs import PooledCost
from reports.ensembles import OLDER
from reports.exam import Exam
from reports.pooling import Pooled, PooledMember
from reports.selection import SetAside
from reports.survivors import Survivors
from results.record import Flag
from results.sample_design import INDEPENDENT, SampleDesign

BALANCED = "balanced_accuracy"
"""Name of the corpus metric that stands beside the accuracy: the mean of the class recalls."""
AGGREGATE_MINIMUM = 300
"""Test sets with fewer images stay out of ranks over several data sets: their intervals are 5 points and more."""

PROBES = "probes"
"""Member under which a record lists what the soundness probes broke, as in `attacks.soundness.ledger`."""

VERIFIED, CONTESTED, UNVERIFIED = "verified", "contested", "unverified"


@dataclass(frozen=True, kw_only=True)
class Change:
    """A quantity on unchanged inputs and under attack."""

    clean: Pooled | None
    attacked: Pooled
    at_least: bool = False
    """Whether `attacked` is merely a lower bound, as no attack aimed at this."""


@dataclass(frozen=True, kw_only=True)
class SeedFlag:
    """A soundness flag or note, and the training seed it was raised for."""

    seed: int
    flag: Flag


@dataclass(frozen=True, kw_only=True)
class Row:
    """One defense on one board: its training seeds pooled."""

    defense: DefenseFacts
    seeds: tuple[int, ...]
    n: int
    """Number of test samples."""
    clean: Pooled
    robust: Pooled
    """Worst case over the members of the ranking protocol."""
    attack_success_rate: Pooled | None
    """Share of the eligible samples that end broken, by the score that ranks."""
    best_known: Pooled
    """Worst case over every record of the same weights; ranks where it is lower."""
    lowered_by: tuple[str, ...]
    """Protocols that lowered the score below the ranking protocol's."""
    status: str
    """verified, contested or unverified."""
    reasons: tuple[str, ...]
    """Why it is not verified, or other words on its status."""
    flags: tuple[SeedFlag, ...]
    rank: int | None = None
    """1 + the number of rows significantly better; None unless verified and allowed to rank."""
    tie_group: int | None = None
    """Rows of one group cannot be told apart."""
    below_constant: bool = False
    """The interval lies under the constant-predictor line."""
    class_recall: dict[str, Change]
    """By the score that ranks, where the sample tables are there."""
    confusions: dict[str, Change]
    metrics: dict[str, Change]
    """Corpus metrics by name; they never rank."""
    restored_clean: dict[str, Pooled] = field(default_factory=dict)
    """Quality of the restored clean images by name; where none was attacked successfully, `metrics` lacks it."""
    certified: Pooled | None = None
    """Lower bound that its certificate proves, where it has one."""
    certified_majority: Pooled | None = None
    """Share of samples whose majority vote of many draws is proven right; stochastic defenses only."""
    cost: PooledCost | None
    trained_for: tuple[Budget, ...] = ()
    """Budgets that its weights were trained for, as their cards say; empty where the entry names none."""
    claims: tuple[PublishedClaim, ...]
    """Claims of its authors for this data set and budget."""
    members: tuple[PooledMember, ...]
    survivors: Survivors | None = None
    """Who was left over the steps of each attack; 0/1 scores only."""
    cells: tuple[Cell, ...]
    """The cells behind it, one for each seed."""
    few_draws: bool = False
    """A randomised defense away from the ranked budget, where nothing shows that more draws would not lower it."""

    @property
    def upper_bound(self) -> bool:
        """Whether the score is printed as "<= S"."""
        return self.few_draws or self.status == CONTESTED

    @property
    def records(self) -> tuple[str, ...]:
        """Keys of the records behind the row."""
        return tuple(cell.record.key for cell in self.cells)

    @property
    def eligible(self) -> tuple[int, ...]:
        """Samples that were right before the attack, for each seed."""
        return self.attack_success_rate.counts if self.attack_success_rate else ()

    @property
    def broken(self) -> tuple[int, ...]:
        """Eligible samples that end broken, for each seed."""
        success = self.attack_success_rate
        return tuple(round(a * n) for a, n in zip(success.seeds, success.counts, strict=True)) if success else ()

    @property
    def drop(self) -> float:
        """Clean score minus the one that ranks."""
        return self.clean.value - self.standing.value

    @property
    def standing(self) -> Pooled:
        """The score that ranks: the lower of the ranking protocol's and the best known one."""
        return self.best_known if self.best_known.value < self.robust.value else self.robust

    @property
    def balanced(self) -> Change | None:
        """Balanced accuracy, the mean of the class recalls; classification only."""
        return self.metrics.get(BALANCED)

    @property
    def like_constant(self) -> bool:
        """Whether its balanced accuracy under attack is not shown to be above that of a constant answer."""
        found = self.balanced
        return bool(found and self.class_recall) and found.attacked.estimate.low <= 1 / len(self.class_recall)

    @property
    def older_ensemble(self) -> bool:
        """Whether some record of it was made before an attack joined its protocol that might lower the score."""
        return any(OLDER in reason for reason in self.reasons)

    @property
    def red_flags(self) -> tuple[str, ...]:
        """Names of the flags whose threshold is crossed, sorted."""
        return tuple(sorted({found.flag.name for found in self.flags if found.flag.red}))

    @property
    def worst_class(self) -> tuple[str, Change] | None:
        """The class with the lowest recall under attack; the first one where several are equal."""
        if not self.class_recall:
            return None
        return min(self.class_recall.items(), key=lambda item: item[1].attacked.value)


@dataclass(frozen=True, kw_only=True)
class FailedRow:
    """A defense whose evaluation failed and has no number on a board."""

    defense: DefenseFacts
    seed: int
    kind: str
    message: str
    record: str


@dataclass(frozen=True, kw_only=True)
class Leaderboard:
    """All defenses on one data set, under one threat model and one budget."""

    dataset: DatasetFacts
    threat_model: ThreatModel
    budget: Budget
    quality: str
    """Name of the score, e.g. "accuracy"."""
    protocols: tuple[str, ...]
    """Names of the ranking protocols behind the rows."""
    rows: tuple[Row, ...]
    """Ranked rows first, best first; then the others."""
    failures: tuple[FailedRow, ...]
    n: int
    """Number of test samples of a full row."""
    constant_predictor: float | None
    """Score of always answering the majority class; classification only."""
    ranked_scores: Mapping[str, np.ndarray] = field(default_factory=dict, compare=False, repr=False)
    """Lowest known scores of each ranked row, (seeds, n), all over the same samples, by defense."""
    design: SampleDesign = field(default=INDEPENDENT, compare=False, repr=False)
    """Which of those samples belong together, and how much each counts."""

    @property
    def ranks(self) -> bool:
        """Whether this is the data set's ranked budget, fixed in its entry."""
        return self.budget.label == self.dataset.ranked_budget.label and self.threat_model.support == EVERYTHING

    @property
    def probed(self) -> bool:
        """Whether the soundness probes ran at this budget: they are then among the attacks."""
        return any(member.name == PROBES for row in self.rows for member in row.members)

    @property
    def in_aggregate(self) -> bool:
        """Whether the test set is large enough for ranks over several data sets."""
        return self.n >= AGGREGATE_MINIMUM

    @property
    def ranked(self) -> tuple[Row, ...]:
        """Rows that have a rank."""
        return tuple(row for row in self.rows if row.rank is not None)

    @property
    def unranked(self) -> tuple[Row, ...]:
        """Rows that have none, each with its reasons."""
        return tuple(row for row in self.rows if row.rank is None)

    @property
    def undefended(self) -> Row | None:
        """The row of the undefended model, which every board should hold."""
        return next((row for row in self.rows if row.defense.family == "undefended"), None)


@dataclass(frozen=True, kw_only=True)
class Standings:
    """Everything that pages are made of."""

    boards: tuple[Leaderboard, ...]
    """By task, data set, threat model and ascending budget."""
    others: tuple[Cell, ...]
    """Cells of protocols that never rank, finished or failed."""
    failed: tuple[Cell, ...]
    """Cells of ranking protocols that failed and that no finished cell replaces."""
    set_aside: tuple[SetAside, ...]
    exams: tuple[Exam, ...] = ()
    """How the benchmark did on defenses whose truth is known, by data set."""
    unreadable: tuple[tuple[str, str], ...]
    """Records that could not be read: file or key, and why."""
    n_records: int
    """Records that were read."""
    commit: str | None
    """Code revision of the newest record."""
    dirty: bool
    """Whether files differed from that revision."""
