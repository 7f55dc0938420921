"""Which weights are present for a cell: the checksum that a record names, without building a model."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from benchmark.plan import trainings_of
from benchmark.selection import Registries
from benchmark.weights import checkpoints_folder, is_trained, weights_sha256
from defenses import checkpoints
from defenses.build import build_untrained, defended_model
from registry import DATASETS, DEFENSES, Checkpoint, DefenseEntry, Family, Recipe, load_entries
from registry.errors import CheckpointError
from results.store import RecordStore
from tests.test_runner import evaluation


def linear(dataset, base=None):
    channels, height, width = dataset.input_shape
    return base or nn.Sequential(nn.Flatten(), nn.Linear(channels * height * width, dataset.n_classes))


def behind_scale(dataset, base):
    return nn.Sequential(nn.BatchNorm2d(dataset.input_shape[0]), base)


@pytest.fixture
def chain():
    """A defense that wraps another one, both with weights of their own."""
    load_entries()
    common = {"summary": "s", "family": Family.UNDEFENDED, "tasks": ("classification",), "recipe": Recipe(train="m:t")}
    DEFENSES.add(DefenseEntry(name="WeightsBase", build=linear, **common))
    DEFENSES.add(DefenseEntry(name="WeightsTop", build=behind_scale, base="WeightsBase", **common))
    yield DEFENSES["WeightsBase"], DEFENSES["WeightsTop"]
    DEFENSES.remove("WeightsBase")
    DEFENSES.remove("WeightsTop")


def save(entry, folder, **card):
    spec = DATASETS["phantom2"]
    base = build_untrained(DEFENSES[entry.base], spec) if entry.base else None
    full = {
        "defense": entry.name,
        "defense_revision": entry.revision,
        "dataset": "phantom2",
        "dataset_revision": spec.revision,
        "seed": 0,
        **card,
    }
    path = checkpoints.checkpoint_path(folder, entry.name, "phantom2", 0)
    checkpoints.save(path, build_untrained(entry, spec, base=base), full)


def cell(entry):
    return replace(evaluation(entry.name, "clean"), dataset="phantom2")


def test_the_checksum_is_the_one_that_a_record_names(chain, tmp_path):
    for entry in chain:
        save(entry, tmp_path)
    for entry in chain:
        _, info = defended_model(entry, DATASETS["phantom2"], 0, tmp_path)
        assert weights_sha256(cell(entry), tmp_path) == info.sha256
    assert weights_sha256(cell(chain[0]), tmp_path) != weights_sha256(cell(chain[1]), tmp_path)


def test_a_chain_without_all_its_files_has_no_checksum(chain, tmp_path):
    base, top = chain
    save(top, tmp_path)
    assert weights_sha256(cell(top), tmp_path) is None
    save(base, tmp_path)
    assert weights_sha256(cell(top), tmp_path) is not None


def test_weights_of_an_older_revision_are_trained_again(chain, tmp_path):
    base, _ = chain
    training = trainings_of(base, DATASETS["phantom2"], 0, Registries())[0]
    assert not is_trained(training, tmp_path)
    save(base, tmp_path, defense_revision=0)
    assert not is_trained(training, tmp_path) and weights_sha256(cell(base), tmp_path) is None
    save(base, tmp_path)
    assert is_trained(training, tmp_path)


def test_weights_of_other_options_are_trained_again(chain, tmp_path):
    base, _ = chain
    DEFENSES.remove("WeightsBase")
    base = replace(base, recipe=replace(base.recipe, options={"penalty": 1.0}))
    DEFENSES.add(base)
    training = trainings_of(base, DATASETS["phantom2"], 0, Registries())[0]
    save(base, tmp_path, options={"penalty": 100.0, "epochs": 20})
    assert not is_trained(training, tmp_path) and weights_sha256(cell(base), tmp_path) is None
    save(base, tmp_path, options={"penalty": 1.0, "epochs": 20})
    assert is_trained(training, tmp_path)


def test_weights_around_another_base_are_refused_and_trained_again(chain, tmp_path):
    base, top = chain
    save(base, tmp_path)
    sha256 = weights_sha256(cell(base), tmp_path)
    save(top, tmp_path, base={"defense": base.name, "sha256": sha256})
    cells = trainings_of(top, DATASETS["phantom2"], 0, Registries())
    assert [is_trained(one, tmp_path) for one in cells] == [True, True]
    defended_model(top, DATASETS["phantom2"], 0, tmp_path)
    torch.manual_seed(1)
    save(base, tmp_path)  # another training of the base
    assert weights_sha256(cell(base), tmp_path) != sha256
    assert [is_trained(one, tmp_path) for one in cells] == [True, False]
    assert weights_sha256(cell(top), tmp_path) is None
    with pytest.raises(CheckpointError, match=f"weights {sha256} of its base WeightsBase, expected .*train it again"):
        defended_model(top, DATASETS["phantom2"], 0, tmp_path)


def test_released_weights_need_no_training(chain, tmp_path):
    base, _ = chain
    training = trainings_of(base, DATASETS["phantom2"], 0, Registries())[0]
    released = Checkpoint(dataset="phantom2", seed=0, url="https://example.org/w", sha256="0")
    DEFENSES.remove("WeightsBase")
    DEFENSES.add(replace(base, checkpoints=(released,)))
    assert is_trained(training, tmp_path)


def test_rewritten_weights_have_another_checksum(chain, tmp_path):
    base, _ = chain
    save(base, tmp_path)
    before = weights_sha256(cell(base), tmp_path)
    save(base, tmp_path)  # freshly initialised, as after another training
    assert weights_sha256(cell(base), tmp_path) != before


def test_cards_beside_weights_are_not_taken_for_records(chain, tmp_path):
    save(chain[0], checkpoints_folder(tmp_path))
    assert RecordStore(tmp_path).keys() == ()


def test_trained_weights_replace_outdated_ones_of_the_repository(chain, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints, "COMMITTED", tmp_path / "committed")
    base, _ = chain
    save(base, tmp_path / "committed", defense_revision=base.revision + 1)
    local = tmp_path / "local"
    outdated = checkpoints.checkpoint_path(tmp_path / "committed", base.name, "phantom2", 0)
    assert checkpoints.find(base.name, "phantom2", 0, local) == outdated
    assert weights_sha256(cell(base), local) is None
    save(base, local)
    assert defended_model(base, DATASETS["phantom2"], 0, local)[1].files[0].is_relative_to(local)
    assert weights_sha256(cell(base), local) is not None
