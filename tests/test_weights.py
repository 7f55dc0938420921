"""Which weights are present for a cell: the checksum that a record names, without building a model."""

from __future__ import annotations

import argparse
from dataclasses import replace

import pandas as pd
import pytest
import torch
from torch import nn

from benchmark.commands.train import execute
from benchmark.estimate import Costs
from benchmark.plan import Plan, trainings_of
from benchmark.runner import Run
from benchmark.selection import Registries
from benchmark.states import CellState, state_of, untrained
from benchmark.weights import checkpoints_folder, current_weights, is_trained, weights_sha256
from defenses import checkpoints
from defenses.build import build_untrained, defended_model
from registry import DATASETS, DEFENSES, Checkpoint, DefenseEntry, Family, Recipe, load_entries
from registry.errors import CheckpointError
from results.store import RecordStore
from tests.test_runner import evaluation, record

SAMPLES = pd.DataFrame({"sample_id": [0], "clean_score": [1.0]})


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


@pytest.mark.parametrize(("recorded", "state"), [(1 / 3, CellState.DONE), (0.5, CellState.STALE)])
def test_a_record_of_weights_that_are_gone_holds_while_the_entry_trains_as_they_were_trained(
    chain, tmp_path, recorded, state
):
    base, top = chain
    DEFENSES.remove("WeightsBase")
    DEFENSES.add(replace(base, recipe=replace(base.recipe, options={"penalty": 1 / 3})))
    card = {"defense": base.name, "defense_revision": 1, "dataset_revision": 1, "options": {"penalty": recorded}}
    store = RecordStore(tmp_path / "records")
    for one in (cell(base), cell(top)):  # a card is that of the innermost weights where the rest has none of its own
        done = record(one, "0" * 64)
        store.write(replace(done, checkpoint=replace(done.checkpoint, card=card)), SAMPLES)
        assert state_of(one, store, lambda one: None) is state


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


def save_chain(chain, folder):
    """Saves weights of a chain, each around those of its base, and returns the trainings of the outermost defense."""
    for entry in chain:
        base = DEFENSES[entry.base] if entry.base else None
        below = {"defense": base.name, "sha256": weights_sha256(cell(base), folder)} if base else None
        save(entry, folder, base=below)
    return trainings_of(chain[-1], DATASETS["phantom2"], 0, Registries())


class Trainer:
    """Trains by storing fresh weights, and evaluates by building the model."""

    def __init__(self, folder, seed):
        self.folder, self.seed, self.trained = folder, seed, []

    def train(self, cell, inside):
        torch.manual_seed(self.seed)
        self.trained.append(cell.defense)
        save_chain([DEFENSES[cell.defense]], self.folder)

    def evaluate(self, cell, inside):
        _, info = defended_model(DEFENSES[cell.defense], DATASETS["phantom2"], 0, self.folder)
        return record(cell, info.sha256), SAMPLES, None

    def failed_record(self, cell, failure):
        return record(cell, "", failure)

    def is_trained(self, cell):
        return is_trained(cell, self.folder)

    def weights_of(self, cell):
        return weights_sha256(cell, self.folder)


@pytest.mark.parametrize(("seed", "trained"), [(0, ["WeightsBase"]), (1, ["WeightsBase", "WeightsTop"])])
def test_a_run_that_trains_a_base_anew_trains_what_no_longer_fits_around_it(chain, tmp_path, seed, trained):
    base, top = chain
    torch.manual_seed(0)
    cells = save_chain(chain, tmp_path)
    checkpoints.checkpoint_path(tmp_path, base.name, "phantom2", 0).unlink()
    assert [one.defense for one in untrained(cells, lambda one: is_trained(one, tmp_path))] == [base.name, top.name]
    plan = Plan(trainings=cells, evaluations=(replace(cell(top), needs=tuple(one.key for one in cells)),), skips=())
    work, store = Trainer(tmp_path, seed), RecordStore(tmp_path / "records")
    outcome = Run(plan, store, work, Costs(), retry_failed=False, quiet=True).walk()
    assert outcome.failed == {} and outcome.done == [plan.evaluations[0].key]
    assert work.trained == trained


@pytest.mark.parametrize(
    ("seed", "trained"),
    [(0, ["WeightsBase", "WeightsOuter"]), (1, ["WeightsBase", "WeightsTop", "WeightsOuter"])],
)
def test_the_command_trains_every_base_that_no_longer_fits(chain, tmp_path, monkeypatch, seed, trained):
    base, top = chain
    folder = checkpoints_folder(tmp_path)
    outer = replace(top, name="WeightsOuter", base=top.name)
    monkeypatch.setitem(DEFENSES._entries, outer.name, outer)
    torch.manual_seed(0)
    save_chain((base, top, outer), folder)
    checkpoints.checkpoint_path(folder, base.name, "phantom2", 0).unlink()
    work = Trainer(folder, seed)
    monkeypatch.setattr("benchmark.training_cell.train_cell", lambda cell, **told: work.train(cell, None))
    given = {"defense": outer.name, "dataset": "phantom2", "seed": 0, "device": "cpu", "data": tmp_path}
    assert execute(argparse.Namespace(**given, results=tmp_path, entries=[], quiet=True)) == 0
    assert work.trained == trained


def test_a_damaged_file_is_trained_again_and_does_not_hide_a_whole_one(chain, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints, "COMMITTED", tmp_path / "committed")
    base, local = chain[0], tmp_path / "local"
    training = trainings_of(base, DATASETS["phantom2"], 0, Registries())[0]
    save(base, tmp_path / "committed")
    damaged = checkpoints.checkpoint_path(tmp_path / "committed", base.name, "phantom2", 0)
    assert current_weights(base, "phantom2", 0, local) == damaged
    damaged.write_bytes(damaged.read_bytes()[:-1])
    assert not is_trained(training, local) and weights_sha256(cell(base), local) is None
    with pytest.raises(CheckpointError, match="is damaged or altered"):
        defended_model(base, DATASETS["phantom2"], 0, local)
    save(base, local)
    whole = checkpoints.checkpoint_path(local, base.name, "phantom2", 0)
    assert current_weights(base, "phantom2", 0, local) == whole
    assert defended_model(base, DATASETS["phantom2"], 0, local)[1].files == (whole,)


def test_each_weight_file_is_read_once_for_its_checksum(chain, tmp_path):
    save_chain(chain, tmp_path)
    before = checkpoints._file_sha256.cache_info().misses
    for _ in range(20):
        for entry in chain:
            assert weights_sha256(cell(entry), tmp_path) is not None
    assert checkpoints._file_sha256.cache_info().misses - before <= len(chain)
