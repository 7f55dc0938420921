"""What a training gets and leaves: two splits, and a card that tells what would make the weights others."""

from __future__ import annotations

import dataclasses

import pytest
import torch

import defenses.train
from defenses import checkpoints
from defenses.cards import outdated
from defenses.recipes import precision
from defenses.recipes.training import Training
from defenses.train import arithmetic, for_training, train_defense
from registry import Recipe
from registry.errors import InvalidEntryError
from tests.test_recipes import toy_dataset
from tests.test_resumption import STEPS, entry, interrupt, train


def keeps(model, dataset, options, *, seed, device, progress):
    assert sorted(dataset.splits) == ["train", "val"] and "test" not in dataset.splits
    return Training(curve=(), seconds=0.0, selected_epoch=0, options=dict(options))


def peeks(model, dataset, options, *, seed, device, progress):
    dataset.splits["test"].all()
    return keeps(model, dataset, options, seed=seed, device=device, progress=progress)


def trained_by(function, folder):
    changed = dataclasses.replace(entry("standard"), recipe=Recipe(train=function))
    return checkpoints.read_card(train_defense(changed, toy_dataset(), 0, folder=folder))


def test_a_recipe_that_asks_for_test_samples_is_refused(tmp_path):
    with pytest.raises(InvalidEntryError, match=r"splits train and val, it asks for 'test'; .* on val"):
        trained_by(peeks, tmp_path)
    assert not list(tmp_path.rglob("*.safetensors"))


def test_recipes_get_train_and_val_and_cards_name_the_data_as_they_are(tmp_path):
    data = toy_dataset()
    assert trained_by(keeps, tmp_path)["data_sha256"] == data.sha256
    seen = for_training(data)
    assert (seen.spec, seen.sha256) == (data.spec, data.sha256)
    assert all(seen.splits[name] is data.splits[name] for name in ("train", "val"))
    assert "test" in data.splits


@pytest.fixture(scope="module")
def card(tmp_path_factory):
    return checkpoints.read_card(train("standard", tmp_path_factory.mktemp("card")))


def with_recipe(**changes):
    known = entry("standard")
    return dataclasses.replace(known, recipe=dataclasses.replace(known.recipe, **changes))


OTHERS = {
    "factory": (dataclasses.replace(entry("standard"), build="m:other"), "build 'tests.test_resumption:network'"),
    "build options": (dataclasses.replace(entry("standard"), build_options={"width": 8}), r"build options \{\}"),
    "function": (
        with_recipe(train="m:other"),
        "training function 'defenses.recipes.standard:train', expected 'm:other'",
    ),
    "option taken back": (with_recipe(options={"epochs": 4}), "option batch_size 16, expected none"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_weights_are_outdated_where_the_entry_builds_or_trains_otherwise(card, name):
    changed, words = OTHERS[name]
    spec = toy_dataset().spec
    assert outdated(card, entry("standard"), spec) == ""
    with pytest.raises(AssertionError, match=words):
        raise AssertionError(outdated(card, changed, spec))


@pytest.mark.parametrize("part", ["build", "build_options", "recipe", "arithmetic"])
def test_an_older_card_is_held_to_nothing_that_it_does_not_say(card, part):
    changed = dataclasses.replace(OTHERS["factory"][0], build_options={"width": 8})
    older = {name: value for name, value in card.items() if name not in (part, "build", "build_options")}
    assert outdated(older, changed, toy_dataset().spec) == ""


def test_a_moved_entry_file_keeps_its_weights(card):
    here, there = (
        dataclasses.replace(entry("standard"), build=f"medrobust_entries_{place}_mine:build")
        for place in ("0123abcd", "4567cdef")
    )
    own = card | {"build": here.card()["build"]}
    assert outdated(own, there, toy_dataset().spec) == ""
    other = dataclasses.replace(there, build="medrobust_entries_4567cdef_mine:build_wider")
    assert "build_wider" in outdated(own, other, toy_dataset().spec)


@pytest.mark.parametrize(("known", "asked"), [(True, True), (True, False), (False, True)])
def test_a_card_says_in_which_arithmetic_the_weights_came_about(known, asked, tmp_path, monkeypatch):
    monkeypatch.setattr(defenses.train, "knows_bfloat16", lambda device: known)
    monkeypatch.setattr(precision, "knows_bfloat16", lambda device: known)
    written = checkpoints.read_card(train("standard", tmp_path, epochs=1, mixed_precision=asked))["arithmetic"]
    assert written["bfloat16"] == (known and asked)
    assert written["threads"] == torch.get_num_threads()
    assert written["processor"] == torch.backends.cpu.get_cpu_capability()


@pytest.mark.parametrize("changed", [None, "bfloat16", "threads", "processor"])
def test_a_training_goes_on_only_where_the_machine_computes_alike(changed, tmp_path, monkeypatch):
    with pytest.raises(KeyboardInterrupt):
        train("standard", tmp_path, stop_after=9, stop=interrupt)
    if changed is not None:
        other = arithmetic("cpu") | {changed: "another"}
        monkeypatch.setattr(defenses.train, "arithmetic", lambda device, options=None: other)
    seen = []
    train_defense(entry("standard"), toy_dataset(), 0, folder=tmp_path, progress=lambda share, text: seen.append(share))
    assert seen[0] == pytest.approx((9 if changed is None else 1) / STEPS)
