"""An interrupted training goes on where it stopped and ends with the weights of an undisturbed one, bit for bit."""

from __future__ import annotations

import hashlib
import os
import pickle
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from defenses import checkpoints
from defenses.certified import intervals
from defenses.purifiers import defense_gan, dgmp
from defenses.recipes.resumption import SUFFIX, RandomState, StateFile, next_state_file, resumable
from defenses.seeding import seeded
from defenses.train import train_defense
from registry import ROOT, DefenseEntry, Family, Recipe
from tests.test_recipes import toy_dataset

EPOCHS, STEPS = 4, 16
QUICK = {"epochs": EPOCHS, "batch_size": 16, "lr": 5e-3, "shift": 1, "flip": False}
INNER = {"eps": 0.06, "steps": 1, "validation_steps": 1}
RECIPES = {
    "standard": {},
    "trades": {**INNER, "awp_gamma": 0.01, "ema_decay": 0.9},
    "interval_training": {"eps": 0.02, "validate_every": 3},
    "distillation": {},
    "dgmp": {"epochs": 2},
    "defense_gan": {},
}
INTERRUPTIONS = {"dgmp": 3}
"""Where a recipe runs the loop twice with something that learns in each, it is stopped within both."""


def network(dataset):
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Dropout(0.2),
        nn.Flatten(),
        nn.Linear(8 * 64, 2),
    )


def purified(dataset):
    return dgmp.build(dataset, base=network(dataset), latent=4)


def inverted(dataset):
    return defense_gan.build(dataset, base=network(dataset), restarts=1, steps=2)


BUILDS = {"interval_training": intervals.build, "dgmp": purified, "defense_gan": inverted}


def entry(recipe: str, **changes) -> DefenseEntry:
    return DefenseEntry(
        name="Toy2026",
        summary="A toy.",
        family=Family.UNDEFENDED,
        tasks=("classification",),
        build=BUILDS.get(recipe, network),
        recipe=Recipe(train=f"defenses.recipes.{recipe}:train", options={**QUICK, **RECIPES[recipe], **changes}),
    )


def train(recipe: str, folder: Path, *, stop_after: int | None = None, stop=None, **changes) -> Path:
    """Trains; `stop` is called after so many steps."""
    done = 0

    def progress(share, text):
        nonlocal done
        done += 1
        if done == stop_after:
            stop()

    return train_defense(entry(recipe, **changes), toy_dataset(), 0, folder=folder, progress=progress)


def interrupt():
    raise KeyboardInterrupt


def states(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob(f"*{SUFFIX}*"))


@pytest.mark.parametrize("recipe", RECIPES)
def test_an_interrupted_training_ends_with_the_weights_of_an_undisturbed_one(recipe, tmp_path):
    expected = train(recipe, tmp_path / "whole")
    moments = random.Random(recipe)
    for _ in range(INTERRUPTIONS.get(recipe, 2)):
        with pytest.raises(KeyboardInterrupt):
            train(recipe, tmp_path / "parts", stop_after=moments.randint(5, 7), stop=interrupt)
        assert checkpoints.find("Toy2026", "toy", 0, tmp_path / "parts") is None
        assert states(tmp_path / "parts")
    told = []
    path = train(recipe, tmp_path / "parts", stop_after=1, stop=lambda: told.append(1))
    assert path.read_bytes() == expected.read_bytes()
    cards = [checkpoints.read_card(file) for file in (path, expected)]
    assert cards[0]["curve"] == cards[1]["curve"]
    assert cards[0]["selected_epoch"] == cards[1]["selected_epoch"]
    assert states(tmp_path) == []
    assert {file.name for file in path.parent.iterdir()} == {path.name, checkpoints.card_path(path).name}


def test_a_killed_process_loses_one_epoch_at_most(tmp_path):
    script = (
        "import os, signal; from pathlib import Path; from tests.test_resumption import train\n"
        f"train('trades', Path({str(tmp_path / 'parts')!r}), stop_after=11, "
        "stop=lambda: os.kill(os.getpid(), signal.SIGKILL))"
    )
    environment = os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    killed = subprocess.run([sys.executable, "-c", script], cwd=ROOT, env=environment, capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    assert states(tmp_path) == [f"Toy2026-s0.1{SUFFIX}"]
    seen = []

    def progress(share, text):
        seen.append(share)

    path = train_defense(entry("trades"), toy_dataset(), 0, folder=tmp_path / "parts", progress=progress)
    assert seen[0] == pytest.approx(9 / STEPS)  # two of four epochs were stored
    assert path.read_bytes() == train("trades", tmp_path / "whole").read_bytes()


def test_state_of_another_training_is_not_taken_up(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        train("standard", tmp_path / "a", stop_after=9, stop=interrupt)
    path = train("standard", tmp_path / "a", lr=1e-3)
    assert path.read_bytes() == train("standard", tmp_path / "b", lr=1e-3).read_bytes()
    assert states(tmp_path) == []


@pytest.mark.parametrize("damage", ["empty", "truncated", "flipped", "pickle"])
def test_a_damaged_state_is_not_taken_up_and_runs_no_code(damage, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        train("standard", tmp_path / "a", stop_after=9, stop=interrupt)
    (state,) = tmp_path.rglob(f"*{SUFFIX}")
    content = state.read_bytes()
    trap = pickle.dumps(_Trap(tmp_path / "run"))
    flipped = bytearray(content)
    flipped[-3000] ^= 1
    damaged = {
        "empty": b"",
        "truncated": content[:-300],
        "flipped": bytes(flipped),
        "pickle": hashlib.sha256(trap).hexdigest().encode() + b"\n" + trap,
    }
    state.write_bytes(damaged[damage])
    path = train("standard", tmp_path / "a")
    assert not (tmp_path / "run").exists()
    assert path.read_bytes() == train("standard", tmp_path / "b").read_bytes()


class _Trap:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_half_a_state_never_replaces_a_whole_one(tmp_path, monkeypatch):
    file, layer = StateFile(path=tmp_path / f"x{SUFFIX}", identity="a"), nn.Linear(2, 2)
    file.save({"layer": layer}, {"epoch": 1})
    before = file.path.read_bytes()

    def torn(self, target):
        raise OSError("no space left")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", torn)
        with pytest.raises(OSError, match="no space"):
            file.save({"layer": layer}, {"epoch": 2})
    assert file.path.read_bytes() == before
    other = nn.Linear(2, 2)
    assert file.restore({"layer": other}) == {"epoch": 1}
    assert torch.equal(other.weight, layer.weight)
    assert StateFile(path=file.path, identity="b").restore({"layer": other}) == {}
    assert file.restore({"layer": other, "more": other}) == {}


def test_generators_go_on_where_they_were():
    with seeded(3) as generator:
        state = RandomState(generator, "cpu")
        torch.rand(5, generator=generator), torch.rand(7)
        kept = state.state_dict()
        first = torch.rand(4, generator=generator), torch.rand(4)
        state.load_state_dict(kept)
        second = torch.rand(4, generator=generator), torch.rand(4)
    assert all(torch.equal(*pair) for pair in zip(first, second, strict=True))


def test_each_run_of_the_loop_has_a_file_and_outside_there_is_none(tmp_path):
    assert next_state_file() is None
    with resumable(tmp_path / "Net-s1.safetensors", {"seed": 1}):
        names = [next_state_file().path.name for _ in range(2)]
        for name in (*names, f"Net-s10.1{SUFFIX}"):
            (tmp_path / name).touch()
    assert names == [f"Net-s1.1{SUFFIX}", f"Net-s1.2{SUFFIX}"]
    assert states(tmp_path) == [f"Net-s10.1{SUFFIX}"]
    assert next_state_file() is None
