"""The record of one evaluation cell: what was evaluated, under what, with which result, at what cost."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

SCHEMA = 3
"""Version of the record's layout; readers refuse newer ones and upgrade older ones."""

Card = dict[str, Any]
"""JSON form of a registry entry, see the `card` methods there."""


class RecordStatus(StrEnum):
    """How a cell ended."""

    DONE = "done"
    FAILED = "failed"


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A mean with its 95 % interval."""

    value: float
    """The mean, a fraction unless its metric says otherwise."""
    low: float
    """Lower end of the 95 % interval."""
    high: float
    """Upper end of the 95 % interval."""
    n: int
    """Number of samples it is taken over."""


@dataclass(frozen=True, kw_only=True)
class MemberResult:
    """What one member of an ensemble did at one budget. Numbers are cumulative: it met only what survived before it."""

    name: str
    """Name of the member, e.g. "apgd-margin"."""
    card: Card
    """Attack, options, objective, source and backward pass."""
    attempted: int
    """Samples it attacked: those still alive when its turn came."""
    lowered: int
    """Samples whose worst score it lowered."""
    broken: int
    """Samples it broke, which no earlier member had."""
    robust_after: float
    """Mean worst score after it."""
    errors: int = 0
    """Samples on which it raised or returned NaN; they are never read as robust."""
    violations: int = 0
    """Candidates that left the budget, the support or [0, 1] and were projected back."""
    unmoved: int = 0
    """Samples for which it proposed nothing but the clean image: a sign that it did not attack."""
    no_gradient: int = 0
    """Rows of gradient answers that were exactly zero or not finite."""
    forwards: int = 0
    """Sample-forwards spent, by the victim and its surrogates together."""
    backwards: int = 0
    """Sample-backwards spent."""
    seconds: float = 0.0
    """Wall time."""
    error: str | None = None
    """Traceback of the first error, or None."""
    losses: tuple[float, ...] = ()
    """Mean over its rows that stayed unbroken of the best objective after the first answer and after each tenth of its
    steps; empty where none stayed, where it takes no steps, and in records of before it was kept."""
    loss_rows: int = 0
    """Rows of that mean."""


@dataclass(frozen=True, kw_only=True)
class BudgetResult:
    """The worst case at one budget."""

    budget: Card
    """Norm and eps."""
    metrics: dict[str, Estimate]
    """"robust" (mean worst score), "attack_success_rate", and corpus metrics on the worst inputs."""
    members: tuple[MemberResult, ...]
    """What each member did, in the order they ran."""
    planned: tuple[str, ...] = ()
    """Names of the members the protocol calls for at this budget; one that did not run makes the row unverified."""
    class_recall: dict[str, Estimate] = field(default_factory=dict)
    """Robust recall of each class, by class name; classification only."""
    confusions: dict[str, Estimate] = field(default_factory=dict)
    """Rate of each harmful confusion, by its title."""


@dataclass(frozen=True, kw_only=True)
class Flag:
    """A sign that a number may be too high, with its evidence."""

    name: str
    """Name as in the protocol, e.g. "dishonest-gradient"."""
    red: bool
    """Whether its threshold is crossed; a note has no effect on the status."""
    evidence: str
    """The measured quantity and its threshold, in one sentence."""
    values: dict[str, float] = field(default_factory=dict)
    """The measured quantities."""
    noted: bool = False
    """A note that holds: worth reading, without effect on the status."""


@dataclass(frozen=True, kw_only=True)
class Escalation:
    """What was tried after a red flag; the record's flags are those that were computed again after it."""

    budget: Card
    """The ranked budget, at which it ran; larger ones inherit its adversarials, smaller ones nothing."""
    flags: tuple[Flag, ...]
    """The red flags that started it, with their first evidence."""
    members: tuple[MemberResult, ...]
    """What each attack did, in the order they ran; `lowered` and `broken` count what was new."""
    strongest: str
    """The gradient attack by which the flags were computed again, e.g. "BPDA"."""
    why: str
    """How many samples each way to a gradient broke from scratch."""
    robust_before: float
    """Mean worst score before it."""
    robust_after: float
    """Mean worst score after it."""
    failure: str = ""
    """Why it did not finish; empty where it did."""


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """The weights that were evaluated."""

    sha256: str
    """Checksum of the file, of all files of a chain of bases, or of the parameters of a model given from Python."""
    seed: int
    """Training seed."""
    files: tuple[str, ...] = ()
    """File names, the wrapped base first."""
    card: Card = field(default_factory=dict)
    """Recipe, data checksum, training time; without the curve, which stays beside the weights."""


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """Where, when and with what a cell ran; none of it is part of the key."""

    started_at: str
    """UTC, ISO 8601."""
    commit: str | None
    """Git commit of the checkout, or None."""
    dirty: bool
    """Whether tracked files differed from it."""
    python: str
    """Version of Python."""
    platform: str
    """Operating system and machine type."""
    device: str
    """Device, e.g. "cpu (2 threads)" or the name of the GPU."""
    packages: dict[str, str]
    """Versions of the packages that take part in a number."""


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What the defense costs its user, and what the evaluation cost us."""

    seconds: float
    """Wall time of the cell."""
    forwards: int
    """Sample-forwards spent by all attacks."""
    backwards: int
    """Sample-backwards spent by all attacks."""
    parameters: int
    """Number of parameters of the defended model."""
    flops: int | None
    """Floating-point operations of one forward pass of one sample, where they can be counted."""
    latency_ms_1: float
    """Median latency of a batch of 1, in ms."""
    latency_ms_64: float
    """Median latency of a batch of 64, in ms."""
    training_seconds: float | None
    """Wall time of the training, where it is known."""
    peak_memory_mb: float | None = None
    """Peak memory of the process, or of the GPU, in MB."""


@dataclass(frozen=True, kw_only=True)
class SampleFile:
    """The per-sample facts of a record."""

    name: str
    """File name in the samples folder: its sha256, shortened, with .parquet."""
    sha256: str
    """Checksum of the file."""
    rows: int
    """Number of samples."""


@dataclass(frozen=True, kw_only=True)
class AdversarialFile:
    """The certificates of a record: the adversarials behind its scores."""

    name: str
    """File name in the adversarials folder: its sha256, shortened, with .npz."""
    sha256: str
    """Checksum of the file."""
    count: int
    """Number of adversarials; one that holds at larger budgets too is kept once."""
    certified: tuple[int, ...]
    """Indices of the budgets at which every lowered sample has its adversarial there."""


@dataclass(frozen=True, kw_only=True)
class Failure:
    """Why a cell failed."""

    kind: str
    """Class of the error."""
    message: str
    """Its text."""
    traceback: str
    """The whole traceback."""


@dataclass(frozen=True, kw_only=True)
class EvaluationRecord:
    """One evaluation cell, explained so that nobody needs the code that made it."""

    schema: int = SCHEMA
    """Version of this layout."""
    key: str
    """Identity of the cell: "<dataset>/<defense>/<protocol>-s<seed>-<digest>"."""
    status: RecordStatus
    """done or failed."""
    dataset: Card
    """Card of the data set."""
    data_sha256: str
    """Checksum of the data that were read."""
    split: str
    """Name of the split, "test" on boards."""
    n_planned: int
    """Number of samples the plan asked for."""
    defense: Card
    """Card of the defense."""
    checkpoint: Checkpoint | None
    """The weights; None where a failed cell never loaded any."""
    protocol: Card
    """Card of the protocol."""
    attack_seed: int
    """Seed of the attacks' and the defense's draws."""
    revisions: dict[str, int]
    """Revisions of dataset, task, defense, protocol and engine; part of the key."""
    quality: str
    """What the mean score is called: "accuracy", "Dice", ..."""
    clean: dict[str, Estimate] = field(default_factory=dict)
    """"clean" (mean score) and corpus metrics on the unchanged inputs."""
    constant_predictor: float | None = None
    """Score of always answering the majority class; classification only."""
    clean_class_recall: dict[str, Estimate] = field(default_factory=dict)
    """Recall of each class on unchanged inputs."""
    clean_confusions: dict[str, Estimate] = field(default_factory=dict)
    """Rate of each harmful confusion on unchanged inputs."""
    budgets: tuple[BudgetResult, ...] = ()
    """Worst cases, ascending in eps."""
    flags: tuple[Flag, ...] = ()
    """Soundness flags and notes, with evidence; after an escalation the ones computed again."""
    escalation: Escalation | None = None
    """What was tried after a red flag; None where nothing was escalated."""
    samples: SampleFile | None = None
    """Per-sample facts: columns sample_id, clean_score, score_<k>, member_<k>, step_<k>, and the task's own."""
    adversarials: AdversarialFile | None = None
    """Certificates of attack; None where nobody attacked, and in records from before they were kept."""
    cost: Cost | None = None
    """Cost of defense and evaluation."""
    provenance: Provenance
    """Where, when and with what."""
    failure: Failure | None = None
    """Why it failed, or None."""
