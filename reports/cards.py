"""What pages need of the cards inside a record, checked once, so that a strange card costs one record and no page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from registry import DATASETS, DEFENSES, Budget, Registry, ThreatModel, load_entries
from registry.errors import BenchmarkError, DamagedRecordError
from results.budgets import as_budget, as_threat_model
from results.record import BudgetResult, Card, EvaluationRecord, RecordStatus

DESCRIPTIVE = ("summary", "departures", "claims", "paper", "truth")
"""What an entry says of its defense beside what it is: words that are mended without a new revision."""
DOUBTS = ("split_rule", "notes")
"""What an entry says of its data set in such words."""


@dataclass(frozen=True, kw_only=True)
class DatasetFacts:
    """A data set as pages show it."""

    name: str
    title: str
    task: str
    class_names: tuple[str, ...]
    multi_label: bool
    n_test: int
    license: str
    citation: str
    homepage: str
    split_rule: str
    notes: str
    ranked_budget: Budget
    harmed: Mapping[str, str]
    """Class that is hurt by each harmful confusion, by the confusion's title."""


@dataclass(frozen=True, kw_only=True)
class Publication:
    """Where a method was published; its address is not trusted."""

    title: str
    authors: str
    year: str
    venue: str
    url: str


@dataclass(frozen=True, kw_only=True)
class PublishedClaim:
    """A number that the authors of a defense publish."""

    value: float
    metric: str
    dataset: str
    protocol: str
    source: str
    budget: Budget | None

    def speaks_of(self, dataset: DatasetFacts) -> bool:
        """Returns whether it is about a data set, by the entry's or the paper's name of it."""
        return self.dataset.lower() in (dataset.name.lower(), dataset.title.lower())


@dataclass(frozen=True, kw_only=True)
class KnownTruth:
    """What is known of a control's robust score."""

    known_by: str
    statement: str


@dataclass(frozen=True, kw_only=True)
class DefenseFacts:
    """A defense as pages show it."""

    name: str
    summary: str
    family: str
    base: str | None
    paper: Publication | None
    randomness: str
    differentiable: bool
    extra_data: str | None
    departures: str
    ranks: bool
    trained_for: Budget | None
    claims: tuple[PublishedClaim, ...]
    recipe: Card | None
    truth: KnownTruth | None = None
    """Of controls only."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A record with its cards read."""

    record: EvaluationRecord
    dataset: DatasetFacts
    defense: DefenseFacts
    protocol: str
    protocol_title: str
    ranks: bool
    threat_model: ThreatModel
    budgets: tuple[tuple[Budget, BudgetResult], ...]

    @property
    def threat(self) -> tuple[str, ...]:
        """What makes two worst cases comparable, apart from the budget and from what the attacker knows."""
        model = self.threat_model
        return (str(model.kind), str(model.norm), model.support, str(model.scope), str(model.goal))

    @property
    def seed(self) -> int:
        """Training seed; -1 where no weights were loaded."""
        return self.record.checkpoint.seed if self.record.checkpoint else -1

    @property
    def n(self) -> int:
        """Number of samples that were evaluated; 0 where there is no sample table."""
        return self.record.samples.rows if self.record.samples else 0


def read_cell(record: EvaluationRecord) -> Cell:
    """Returns a record with its cards read.

    Raises:
        DamagedRecordError: A card lacks what pages need, or holds another type or an impossible budget; or the record
            is done without weights or scores.
    """
    try:
        _check_finished(record)
        protocol = record.protocol
        return Cell(
            record=record,
            dataset=_dataset(_described(record.dataset, DATASETS, record.revisions.get("dataset"), DOUBTS)),
            defense=_defense(_described(record.defense, DEFENSES, record.revisions.get("defense"), DESCRIPTIVE)),
            protocol=str(protocol["name"]),
            protocol_title=str(protocol["title"]),
            ranks=bool(protocol["ranks"]),
            threat_model=as_threat_model(protocol["threat_model"]),
            budgets=tuple((as_budget(result.budget), result) for result in record.budgets),
        )
    except BenchmarkError as error:
        raise DamagedRecordError(f"a card of record {record.key} makes no sense: {error}") from error
    except (LookupError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise DamagedRecordError(
            f"a card of record {record.key} lacks what pages need ({type(error).__name__}: {error}); evaluate it again"
        ) from error


def _check_finished(record: EvaluationRecord) -> None:
    """Raises an error where a done record lacks its weights or a mean score, or tells of an impossible escalation."""
    if record.escalation is not None:
        as_budget(record.escalation.budget)
    if record.status is not RecordStatus.DONE:
        return
    if record.checkpoint is None:
        raise ValueError("it is done, yet names no weights")
    if "clean" not in record.clean or any("robust" not in result.metrics for result in record.budgets):
        raise ValueError("it is done, yet a mean score is missing")


def _dataset(card: Card) -> DatasetFacts:
    classes = tuple(str(name) for name in card["class_names"])
    return DatasetFacts(
        name=str(card["name"]),
        title=str(card["title"]),
        task=str(card["task"]),
        class_names=classes,
        multi_label=bool(card.get("multi_label", False)),
        n_test=int(card["splits"]["test"]),
        license=str(card.get("license", "")),
        citation=str(card.get("citation", "")),
        homepage=str(card.get("homepage", "")),
        split_rule=str(card.get("split_rule", "")),
        notes=str(card.get("notes", "")),
        ranked_budget=as_budget(card["ranked_budget"]),
        harmed={str(found["title"]): classes[found["true"]] for found in card.get("harmful_confusions", ())},
    )


def _described(card: Card, registry: Registry, revision: int | None, fields: tuple[str, ...]) -> Card:
    """Returns a card with some fields in the words of its entry, where that is of the record's revision."""
    _load_entries_once()
    name = str(card["name"])
    if name not in registry or registry[name].revision != revision:
        return card
    entry = registry[name].card()
    return card | {field: entry[field] for field in fields}


@cache
def _load_entries_once() -> None:
    """Imports the entries; a file that breaks leaves its records to their own cards."""
    load_entries()


def _defense(card: Card) -> DefenseFacts:
    return DefenseFacts(
        name=str(card["name"]),
        summary=str(card["summary"]),
        family=str(card["family"]),
        base=_text(card.get("base")),
        paper=_paper(card.get("paper")),
        randomness=str(card.get("randomness", "none")),
        differentiable=bool(card.get("differentiable", True)),
        extra_data=_text(card.get("extra_data")),
        departures=str(card.get("departures", "")),
        ranks=bool(card.get("ranks", True)),
        trained_for=as_budget(card["trained_for"]) if card.get("trained_for") else None,
        claims=tuple(_claim(claim) for claim in card.get("claims", ())),
        recipe=card.get("recipe"),
        truth=_truth(card.get("truth")),
    )


def _truth(card: Card | None) -> KnownTruth | None:
    return KnownTruth(known_by=str(card["known_by"]), statement=str(card["statement"])) if card else None


def _paper(card: Card | None) -> Publication | None:
    if card is None:
        return None
    return Publication(**{name: str(card.get(name, "")) for name in Publication.__dataclass_fields__})


def _claim(card: Card) -> PublishedClaim:
    return PublishedClaim(
        value=float(card["value"]),
        metric=str(card["metric"]),
        dataset=str(card["dataset"]),
        protocol=str(card["protocol"]),
        source=str(card["source"]),
        budget=as_budget(card["budget"]) if card.get("budget") else None,
    )


def _text(value: object) -> str | None:
    return None if value is None else str(value)
