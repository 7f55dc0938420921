"""Weights on disk: bytes, checksums, refused formats; building and training defended models with them."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from torch import nn

from datasets.batch import Dataset, Split
from defenses import checkpoints
from defenses.build import defended_model
from defenses.cards import merged_options, outdated
from defenses.stages import declared_stages
from defenses.train import train_defense
from registry import DATASETS, DEFENSES, Checkpoint, DatasetSpec, DefenseEntry, Family, Recipe, load_entries
from registry.errors import CheckpointError, InvalidEntryError


class Net(nn.Sequential):
    def __init__(self, seed=0, outputs=2):
        torch.manual_seed(seed)
        super().__init__(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, outputs))
        self[1].running_mean.uniform_()


@pytest.fixture(autouse=True)
def _same_generator():
    with torch.random.fork_rng(devices=[]):
        yield


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "toy" / "Net-s0.safetensors"
    checkpoints.save(path, Net(), {"defense": "Net"})
    return path


def toy_dataset(name="toy"):
    rng = np.random.default_rng(0)
    splits = {
        split: Split(images=rng.random((n, 1, 8, 8), np.float32), targets={"label": rng.integers(0, 2, n)})
        for split, n in {"train": 32, "val": 8, "test": 8}.items()
    }
    spec = DatasetSpec(
        name=name,
        title="Toy",
        task="classification",
        input_shape=(1, 8, 8),
        class_names=("a", "b"),
        splits={"train": 32, "val": 8, "test": 8},
        license="none",
        citation="none",
        reader="toy:read",
    )
    return Dataset(spec=spec, splits=splits, sha256="1" * 64)


@pytest.fixture
def entry():
    load_entries()
    undefended = DEFENSES["Undefended"]
    return dataclasses.replace(
        undefended, recipe=Recipe(train=undefended.recipe.train, options={"epochs": 1}), build_options={"width": 4}
    )


@pytest.fixture
def known(entry, monkeypatch):
    """The toy entry in place of the real one, so that bases are found by name."""
    monkeypatch.setitem(DEFENSES._entries, "Undefended", entry)
    return entry


def test_a_round_trip_keeps_weights_in_half_precision_and_buffers_exactly(path):
    stored, loaded = Net(0), Net(1)
    digest = checkpoints.load(path, loaded)
    assert digest == checkpoints.read_card(path)["sha256"]
    assert all(tensor.dtype != torch.float16 for tensor in loaded.state_dict().values())
    for (name, before), after in zip(stored.state_dict().items(), loaded.state_dict().values(), strict=True):
        exact = name in dict(stored.named_buffers())
        assert torch.equal(after, before if exact else before.half().float()), name
    assert path.stat().st_size < 2 * sum(p.numel() for p in stored.parameters()) + 1500


def test_the_same_weights_give_the_same_bytes(path, tmp_path):
    other = tmp_path / "other.safetensors"
    model = Net().to(memory_format=torch.channels_last)
    assert checkpoints.save(other, model, {"seconds": 1.0}) == checkpoints.read_card(path)["sha256"]
    assert other.read_bytes() == path.read_bytes()
    assert not list(tmp_path.glob("**/.*"))


def test_weights_too_large_for_half_precision_are_kept_in_single(tmp_path):
    model = nn.Linear(1, 1)
    nn.init.constant_(model.weight, 1e6)
    checkpoints.save(tmp_path / "large.safetensors", model, {})
    loaded = nn.Linear(1, 1)
    checkpoints.load(tmp_path / "large.safetensors", loaded)
    assert loaded.weight.item() == 1e6


def test_diverged_weights_are_not_written(tmp_path):
    model = Net()
    nn.init.constant_(model[4].bias, torch.nan)
    with pytest.raises(CheckpointError, match=r"4\.bias holds NaN or infinity"):
        checkpoints.save(tmp_path / "bad.safetensors", model, {})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("damage", ["truncated", "altered", "empty"])
@pytest.mark.parametrize("with_card", [True, False])
def test_a_damaged_file_is_refused(path, damage, with_card):
    content = bytearray(path.read_bytes())
    if damage == "altered":
        content[-100] ^= 0x7F
    path.write_bytes({"truncated": content[:-50], "altered": content, "empty": b""}[damage])
    if not with_card:
        checkpoints.card_path(path).unlink()
        if damage == "altered":
            return  # nothing tells: that is what the card is for
    with pytest.raises(CheckpointError, match="train it again"):
        checkpoints.load(path, Net())


def test_an_expected_checksum_wins_over_the_card(path):
    with pytest.raises(CheckpointError, match=f"expected sha256 {'0' * 64}"):
        checkpoints.load(path, Net(), sha256="0" * 64)


@pytest.mark.parametrize("name", ["net.pt", "net.pth", "net.bin", "net.safetensors"])
@pytest.mark.parametrize("zipped", [True, False])
def test_pickles_are_refused_whatever_their_name(tmp_path, name, zipped):
    file = tmp_path / name
    torch.save(Net().state_dict(), file, _use_new_zipfile_serialization=zipped)
    with pytest.raises(CheckpointError, match=r"not a safetensors file; pickles .* convert the weights"):
        checkpoints.load(file, Net())


def test_weights_of_another_architecture_and_absent_ones_are_refused(path, tmp_path):
    with pytest.raises(CheckpointError, match=r"another architecture.*2 differ in shape"):
        checkpoints.load(path, Net(outputs=3))
    with pytest.raises(CheckpointError, match=r"another architecture.*1 are unknown"):
        checkpoints.load(path, nn.Sequential(*list(Net())[:4], nn.Linear(144, 2, bias=False)))
    with pytest.raises(CheckpointError, match="found no file"):
        checkpoints.load(tmp_path / "none.safetensors", Net())
    with pytest.raises(CheckpointError, match=r"written to .safetensors files, got net.pt"):
        checkpoints.save(tmp_path / "net.pt", Net(), {})


def test_a_torn_card_is_refused(path):
    checkpoints.card_path(path).write_text('{"sha256": ')
    with pytest.raises(CheckpointError, match="is not JSON"):
        checkpoints.load(path, Net())


def test_committed_weights_are_found_before_local_ones(tmp_path, monkeypatch):
    committed, local = tmp_path / "committed", tmp_path / "local"
    monkeypatch.setattr(checkpoints, "COMMITTED", committed)
    assert checkpoints.find("Net", "toy", 0, local) is None
    for root in (local, committed):
        checkpoints.save(checkpoints.checkpoint_path(root, "Net", "toy", 0), Net(), {})
        assert checkpoints.find("Net", "toy", 0, local) == root / "toy" / "Net-s0.safetensors"
    assert checkpoints.find("Net", "toy", 1, local) is None
    assert checkpoints.find("Net", "toy", 1, None) is None


def test_training_writes_weights_and_a_card_and_the_model_is_built_from_them(entry, tmp_path):
    data, told = toy_dataset(), []
    before = torch.get_rng_state()
    path = train_defense(entry, data, 3, folder=tmp_path, progress=lambda *args: told.append(args))
    assert path == tmp_path / "toy" / "Undefended-s3.safetensors"
    card = json.loads(checkpoints.card_path(path).read_text())
    assert (card["defense"], card["dataset"], card["seed"], card["device"]) == ("Undefended", "toy", 3, "cpu")
    assert card["data_sha256"] == "1" * 64
    assert card["options"]["epochs"] == 1
    assert card["recipe"] == entry.recipe.card()
    assert len(card["curve"]) == 1
    model, info = defended_model(entry, data.spec, 3, tmp_path)
    assert info.sha256 == card["sha256"]
    assert info.files == (path,)
    assert info.card["seconds"] > 0
    assert "curve" not in info.card
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert model(data.splits["test"].all().inputs).shape == (8, 2)
    assert torch.equal(torch.get_rng_state(), before)
    assert told[-1][0] == 1.0


def test_training_twice_gives_the_same_file(entry, tmp_path):
    files = [train_defense(entry, toy_dataset(), 0, folder=tmp_path / name) for name in "ab"]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_a_transformation_uses_the_weights_of_its_base(known, tmp_path):
    data = toy_dataset()
    with pytest.raises(CheckpointError, match="python -m benchmark train Undefended --dataset toy --seed 0"):
        defended_model(DEFENSES["JPEG"], data.spec, 0, tmp_path)
    train_defense(known, data, 0, folder=tmp_path)
    base, base_info = defended_model(known, data.spec, 0, tmp_path)
    model, info = defended_model(DEFENSES["JPEG"], data.spec, 0, tmp_path)
    assert info == base_info
    assert declared_stages(model) == ("transform",)
    inputs = data.splits["test"].all().inputs
    assert torch.equal(model(inputs), base(model.transform(inputs)))
    with pytest.raises(InvalidEntryError, match=r"no recipe.*it wraps Undefended, train that one"):
        train_defense(DEFENSES["JPEG"], data, 0, folder=tmp_path)


def test_a_trained_wrapper_names_both_files(known, tmp_path):
    data = toy_dataset()
    wrapper = dataclasses.replace(
        known, name="Wrapper", build="defenses.transforms:median_filter", build_options={}, base="Undefended"
    )
    base_path = train_defense(known, data, 0, folder=tmp_path)
    wrapper = dataclasses.replace(wrapper, recipe=Recipe(train=_keep))
    path = train_defense(wrapper, data, 0, folder=tmp_path)
    _, info = defended_model(wrapper, data.spec, 0, tmp_path)
    assert info.files == (base_path, path)
    assert info.card["base"] == {"defense": "Undefended", "sha256": checkpoints.read_card(base_path)["sha256"]}
    assert info.sha256 not in (info.card["sha256"], info.card["base"]["sha256"])


def test_weights_of_an_older_revision_are_refused(entry, tmp_path):
    data = toy_dataset()
    train_defense(entry, data, 0, folder=tmp_path)
    with pytest.raises(CheckpointError, match="defense revision 1, expected 2; train it again"):
        defended_model(dataclasses.replace(entry, revision=2), data.spec, 0, tmp_path)
    with pytest.raises(CheckpointError, match="dataset revision 1, expected 5"):
        defended_model(entry, dataclasses.replace(data.spec, revision=5), 0, tmp_path)


def test_weights_of_other_options_are_refused_and_defaults_that_nobody_stated_are_not_compared(entry, tmp_path):
    data = toy_dataset()
    train_defense(entry, data, 0, folder=tmp_path)

    def stating(**changes):
        recipe = dataclasses.replace(entry.recipe, **changes)
        return defended_model(dataclasses.replace(entry, recipe=recipe), data.spec, 0, tmp_path)

    with pytest.raises(CheckpointError, match="option epochs 1, expected 3; train it again"):
        stating(options={"epochs": 3})
    with pytest.raises(CheckpointError, match=r"option lr 0\.002, expected 0\.1"):
        stating(per_dataset={"to*": {"lr": 0.1}})
    with pytest.raises(CheckpointError, match="option warmth None, expected None"):
        stating(options={"epochs": 1, "warmth": None})
    with pytest.raises(CheckpointError, match="option epochs 1, expected none, as the entry no longer states it"):
        stating(options={})
    stating(options={"epochs": 3}, per_dataset={"toy": {"epochs": 1}})
    stating(options={"epochs": 1, "lr": 2e-3})
    stating(per_dataset={"breastmnist": {"lr": 0.1}})


def test_cards_of_weights_from_elsewhere_are_not_held_to_options(entry):
    spec = toy_dataset().spec
    assert outdated({}, entry, spec) == ""
    assert outdated({"defense_revision": 1, "dataset_revision": 1}, entry, spec) == ""
    assert outdated({"defense_revision": 1, "dataset_revision": 2}, entry, spec) == "dataset revision 2, expected 1"


def committed_cards():
    return sorted(checkpoints.COMMITTED.glob(f"*/*{checkpoints.SUFFIX}"))


@pytest.mark.parametrize("path", committed_cards(), ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_committed_weights_are_those_of_the_entries_as_they_are(path):
    load_entries()
    card = checkpoints.read_card(path)
    assert path.stem == f"{card['defense']}-s{card['seed']}" and path.parent.name == card["dataset"]
    assert outdated(card, DEFENSES[card["defense"]], DATASETS[card["dataset"]]) == ""


def test_released_weights_are_downloaded_into_the_local_folder_and_verified(entry, tmp_path, monkeypatch):
    data, asked = toy_dataset(), []
    release = train_defense(entry, data, 0, folder=tmp_path / "release")

    def copy(source, root, progress):
        asked.append(source)
        target = root / source.filename
        target.parent.mkdir(parents=True)
        target.write_bytes(release.read_bytes())
        return target

    monkeypatch.setattr("datasets.download.download", copy)
    sha256 = checkpoints.read_card(release)["sha256"]
    url = "https://example.org/weights.safetensors"
    released = dataclasses.replace(
        entry, recipe=None, checkpoints=(Checkpoint(dataset="toy", seed=0, url=url, sha256=sha256),)
    )
    _, info = defended_model(released, data.spec, 0, tmp_path / "local")
    assert info.files == (tmp_path / "local" / "toy" / "Undefended-s0.safetensors",)
    assert info.sha256 == sha256
    assert info.card == {}
    assert (asked[0].urls, asked[0].sha256) == ((url,), sha256)
    with pytest.raises(CheckpointError, match="no weights of Undefended on toy for seed 1"):
        defended_model(released, data.spec, 1, tmp_path / "local")
    assert len(asked) == 1


def test_bases_in_a_circle_are_refused(known, monkeypatch):
    circle = DefenseEntry(
        name="Circle", summary="", family=Family.UNDEFENDED, tasks=("classification",), build="a:b", base="Circle"
    )
    monkeypatch.setitem(DEFENSES._entries, "Circle", circle)
    with pytest.raises(CheckpointError, match="lead in a circle at Circle"):
        defended_model(circle, toy_dataset().spec, 0, None)


def test_later_patterns_of_per_dataset_win():
    recipe = Recipe(
        train="a:b", options={"epochs": 1, "lr": 0.1}, per_dataset={"phantom*": {"epochs": 2}, "*4": {"epochs": 3}}
    )
    assert merged_options(recipe, "breastmnist") == {"epochs": 1, "lr": 0.1}
    assert merged_options(recipe, "phantom2") == {"epochs": 2, "lr": 0.1}
    assert merged_options(recipe, "phantom4") == {"epochs": 3, "lr": 0.1}


def _keep(model, dataset, options, *, seed, device, progress):
    from defenses.recipes.training import Training

    return Training(curve=(), seconds=0.0, selected_epoch=0, options={})
