"""What a record says of itself is compared with the registry and the data before anything it says is believed."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pandas as pd
import pytest
import torch

from benchmark import challenge as challenges
from benchmark.known_facts import other_cards, other_facts
from datasets.tasks.classification import label_weights
from registry import ROOT, Randomness, load_entries
from results.sample_table import WEIGHT
from results.store import RecordStore
from tests.test_several_labels import LABELS, batch_of

load_entries()
RECORDS = RecordStore(ROOT / "results" / "records")


@pytest.fixture(scope="module")
def record():
    keys = RECORDS.keys()
    key = next(key for key in keys if key.startswith("breastmnist/Undefended/standard-s0"))
    return RECORDS.read(key)


FORGED = {
    "noise excuses rising scores": ("defense", {"randomness": "sample"}, "the defense's randomness is sample"),
    "no certificates are asked for": ("protocol", {"cascades": False}, "the protocol's cascades is False"),
    "it does not rank": ("protocol", {"ranks": False}, "the protocol's ranks is False"),
    "another ball": ("protocol", {"threat_model": {"norm": "L2"}}, "the protocol's threat_model is"),
    "another budget ranks": ("dataset", {"ranked_budget": {"norm": "Linf", "eps": 0.5}}, "the ranked budget is"),
    "classes changed places": ("dataset", {"class_names": ["b", "a"]}, "the list of classes is"),
}


@pytest.mark.parametrize("case", FORGED)
def test_forged_cards_are_found(record, case):
    card, changes, told = FORGED[case]
    forged = replace(record, **{card: getattr(record, card) | changes})
    (problem,) = other_cards(forged)
    assert told in problem
    assert other_cards(record) == []


def test_leaving_the_revisions_out_hides_nothing(record):
    (problem,) = other_cards(replace(record, revisions={}, protocol=record.protocol | {"cascades": False}))
    assert "cascades" in problem


def test_of_another_revision_nothing_is_known(record):
    other = replace(record, revisions=record.revisions | {"defense": 99})
    assert other_cards(replace(other, defense=record.defense | {"randomness": "sample"})) == []


def test_verify_compares_weights_groups_and_labels_with_the_data():
    batch = batch_of(LABELS, weights=label_weights(LABELS))
    table = pd.DataFrame({WEIGHT: label_weights(LABELS).mean(1)})
    assert other_facts(batch, table) == []
    assert "weight of its sample table is not that of the data" in other_facts(batch, table * 1.1)[0]
    assert "lacks the column weight" in other_facts(batch, table.drop(columns=WEIGHT))[0]
    assert "has the column group" in other_facts(batch, table.assign(group=0))[0]
    assert "has the column clean_label" in other_facts(batch, table.assign(clean_label=0))[0]


def test_a_point_that_is_no_number_lowers_nothing(monkeypatch):
    scores = torch.tensor([torch.nan, 0.0, 1.0])
    monkeypatch.setattr(challenges, "judge_scores", lambda victim, batch, judgement: scores)
    batch, victim = batch_of(LABELS[:3]), SimpleNamespace(randomness=Randomness.NONE)
    _, found = challenges._worse(victim, batch, batch.inputs, torch.tensor([1.0, 1.0, 0.0]))
    assert found.tolist() == [1.0, 0.0, 0.0]
