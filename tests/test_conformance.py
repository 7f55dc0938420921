"""Every registered entry meets the clauses of its contract that need no model: cards, names, members, claims."""

from __future__ import annotations

import pytest

from benchmark.validation.card import card_checks, dataset_card_checks, defense_card_checks
from benchmark.validation.protocol import protocol_checks
from registry import DATASETS, DEFENSES, PROTOCOLS, load_entries
from tests.test_validation import failed

load_entries()


@pytest.mark.parametrize("name", sorted(entry.name for entry in DEFENSES))
def test_a_defense(name):
    assert failed(card_checks(DEFENSES, DEFENSES[name]) + defense_card_checks(DEFENSES[name])) == {}


@pytest.mark.parametrize("name", sorted(entry.name for entry in PROTOCOLS))
def test_a_protocol(name):
    assert failed(card_checks(PROTOCOLS, PROTOCOLS[name]) + protocol_checks(PROTOCOLS[name])) == {}


@pytest.mark.parametrize("name", sorted(entry.name for entry in DATASETS))
def test_a_data_set(name):
    assert failed(card_checks(DATASETS, DATASETS[name]) + dataset_card_checks(DATASETS[name])) == {}
