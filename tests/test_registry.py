"""Look-up of entries: types, duplicates, near matches, patterns; and the values that entries refuse."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace

import pytest

from registry import (
    ALL_REGISTRIES,
    AttackProtocol,
    CellFacts,
    DatasetSpec,
    DefenseEntry,
    Family,
    Member,
    Norm,
    Paper,
    Recipe,
    Registry,
    Suite,
    ThreatKind,
    ThreatModel,
    linf,
    resolve,
)
from registry.errors import DuplicateEntryError, InvalidEntryError, UnknownEntryError, UserError


@dataclass(frozen=True)
class Thing:
    name: str


@pytest.fixture
def things() -> Registry[Thing]:
    registry = Registry("thing", Thing)
    for name in ("beta", "Alpha", "gamma"):
        registry.add(Thing(name))
    return registry


def test_entries_are_found_by_name_and_iterated_sorted(things):
    assert things["beta"] == Thing("beta")
    assert things.names() == ("Alpha", "beta", "gamma")
    assert len(things) == 3 and "beta" in things and "delta" not in things


@pytest.mark.parametrize("name", ["beta", "BETA"])
def test_a_second_entry_of_a_name_is_refused_naming_both_places(things, name):
    with pytest.raises(DuplicateEntryError, match=r"already defined as 'beta' \(.*test_registry\.py:\d+\)"):
        things.add(Thing(name))


def test_an_entry_of_another_type_is_refused(things):
    with pytest.raises(InvalidEntryError, match="expected a Thing as thing entry, got str"):
        things.add("beta")


def test_a_misspelt_name_gets_near_matches(things):
    with pytest.raises(UnknownEntryError) as caught:
        things["btea"]
    assert str(caught.value) == "unknown thing 'btea'; did you mean beta?"
    assert isinstance(caught.value, KeyError) and caught.value.exit_code == 2


def test_a_name_like_no_other_gets_the_list(things):
    with pytest.raises(UnknownEntryError, match="known: Alpha, beta, gamma"):
        things["zzzzz"]


def test_patterns_select_sorted_and_once(things):
    assert [thing.name for thing in things.select(("*a", "beta"))] == ["Alpha", "beta", "gamma"]
    with pytest.raises(UnknownEntryError):
        things.select(("beta", "delta*"))


def test_the_place_of_an_entry_is_known(things):
    assert "test_registry.py:" in things.origin("beta")
    things.remove("beta")
    assert "beta" not in things


def test_every_registry_has_a_kind_of_its_own():
    assert len({registry.kind for registry in ALL_REGISTRIES}) == len(ALL_REGISTRIES)


def test_references_are_resolved_at_first_use():
    assert resolve("json:dumps") is json.dumps
    assert resolve(len) is len
    with pytest.raises(InvalidEntryError, match="module json has no 'dmps'"):
        resolve("json:dmps")
    with pytest.raises(InvalidEntryError, match=r"'package\.module:attribute', got 'json\.dumps'"):
        resolve("json.dumps")


SPEC = DatasetSpec(
    name="toy",
    title="Toy",
    task="classification",
    input_shape=(1, 8, 8),
    class_names=("a", "b"),
    splits={"train": 1, "val": 1, "test": 1},
    license="none",
    citation="none",
    reader="m:read",
)
ENTRY = DefenseEntry(
    name="Toy2026",
    summary="A toy.",
    family=Family.UNDEFENDED,
    tasks=("classification",),
    build="m:build",
    recipe=Recipe(train="m:train"),
)
PROTOCOL = AttackProtocol(
    name="toy",
    title="Toy",
    threat_model=ThreatModel(),
    budgets=(linf(1 / 255), linf(4 / 255)),
    tasks=("classification",),
    members="m:members",
)


@pytest.mark.parametrize("entry", [SPEC, ENTRY, PROTOCOL], ids=lambda entry: type(entry).__name__)
def test_cards_survive_json(entry):
    card = entry.card()
    assert json.loads(json.dumps(card)) == card
    assert card["name"] == entry.name and card["revision"] == 1


@pytest.mark.parametrize(
    ("entry", "changes", "message"),
    [
        (SPEC, {"name": "Toy"}, "lower case"),
        (SPEC, {"splits": {"train": 1, "test": 1}}, "splits must be"),
        (SPEC, {"input_shape": (8, 8)}, r"\(C, H, W\) or \(M, C, H, W\)"),
        (SPEC, {"input_shape": (2, 1, 8, 8)}, "does not fit modalities"),
        (SPEC, {"modalities": ("mr", "ct")}, "does not fit modalities"),
        (ENTRY, {"tasks": ()}, "at least one task"),
        (ENTRY, {"recipe": None}, "recipe, a base or checkpoints"),
        (PROTOCOL, {"budgets": ()}, "at least one budget"),
        (PROTOCOL, {"budgets": (linf(4 / 255), linf(1 / 255))}, "budgets must ascend"),
        (PROTOCOL, {"budgets": (linf((0.1, 0.0)), linf((0.0, 0.12)))}, "each budget must hold the one before it"),
        (PROTOCOL, {"threat_model": ThreatModel(norm=Norm.L2)}, "budgets are in L2, got Linf"),
        (PROTOCOL, {"threat_model": ThreatModel(kind=ThreatKind.CLEAN)}, "clean protocol has no budgets"),
    ],
)
def test_contradictory_entries_are_refused(entry, changes, message):
    with pytest.raises(InvalidEntryError, match=message):
        replace(entry, **changes)


def test_a_spec_of_several_modalities_has_room_for_them():
    spec = replace(SPEC, input_shape=(2, 1, 8, 8), modalities=("mr", "ct"))
    assert spec.card()["modalities"] == ["mr", "ct"]


def test_member_names_of_an_ensemble_differ():
    twice = (Member(name="apgd", attack="m:a"), Member(name="apgd", attack="m:b"))
    protocol = replace(PROTOCOL, members=lambda facts, budget: twice)
    with pytest.raises(InvalidEntryError, match="member names must differ"):
        protocol.ensemble(CellFacts(task="classification", n_classes=2), linf(4 / 255))


@pytest.mark.parametrize("changes", [{"source": "twn"}, {"backward": "bpdaa"}])
def test_members_refuse_unknown_sources_and_backward_passes(changes):
    with pytest.raises(InvalidEntryError, match="member apgd"):
        Member(name="apgd", attack="m:a", **changes)


@pytest.mark.parametrize("changes", [{"n_samples": 0}, {"seeds": ()}, {"seeds": (-1,)}])
def test_suites_refuse_impossible_numbers(changes):
    with pytest.raises(UserError):
        Suite(name="s", title="s", datasets=("*",), **changes)


def test_a_paper_has_an_https_address():
    with pytest.raises(InvalidEntryError, match="https://"):
        Paper(title="t", authors="a", year=2026, url="http://example.org")


@pytest.mark.parametrize("name", ["tasks", "datasets"])
def test_a_text_in_the_place_of_a_tuple_is_named(name):
    with pytest.raises(InvalidEntryError, match=rf"{name} is a tuple, got a text; write \('classification',\)"):
        replace(ENTRY, **{name: "classification"})
