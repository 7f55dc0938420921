"""A board that a test can afford: a linear model on the phantom, a few steps, with data, weights and adversarials."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from torch import nn

import benchmark.summary
from benchmark.cli import main
from registry import DEFENSES, PROTOCOLS, AttackProtocol, DefenseEntry, Family, Member, Randomness, ThreatModel, linf
from registry.defense import Recipe
from results.record import EvaluationRecord
from results.store import RecordStore

PLAIN, NOISY = "TinyLinear", "TinyNoisy"
PROTOCOL = "tiny"
N = 12
RECIPE = Recipe(train="defenses.recipes.standard:train", options={"epochs": 6})


class Noisy(nn.Module):
    """Adds noise to the inputs of a model."""

    def __init__(self, base: nn.Module) -> None:
        super().__init__()
        self.base = base

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.base(inputs + 0.05 * torch.randn_like(inputs))


def build(dataset) -> nn.Module:
    """Returns a linear classifier."""
    channels, height, width = dataset.input_shape
    return nn.Sequential(nn.Flatten(), nn.Linear(channels * height * width, dataset.n_classes))


def build_noisy(dataset) -> nn.Module:
    """Returns a classifier of noisy inputs."""
    return Noisy(build(dataset))


def members(facts, budget) -> tuple[Member, ...]:
    """Returns a gradient attack and a random one."""
    return (
        Member(name="apgd", attack="attacks.apgd:APGD", options={"steps": 5}, objective="margin"),
        Member(name="square", attack="attacks.square:Square", options={"queries": 4}, objective="margin"),
    )


def register() -> None:
    """Adds the defenses and the protocol to the registries."""
    tasks = ("classification",)
    for name, factory, randomness in ((PLAIN, build, Randomness.NONE), (NOISY, build_noisy, Randomness.SAMPLE)):
        DEFENSES.add(
            DefenseEntry(
                name=name,
                summary="A small model.",
                family=Family.UNDEFENDED,
                tasks=tasks,
                build=factory,
                recipe=RECIPE,
                randomness=randomness,
            )
        )
    PROTOCOLS.add(
        AttackProtocol(
            name=PROTOCOL,
            title="A few steps",
            threat_model=ThreatModel(),
            budgets=(linf(4 / 255), linf(8 / 255)),
            tasks=tasks,
            members=members,
            ranks=True,
        )
    )


def unregister() -> None:
    """Takes them out again."""
    DEFENSES.remove(PLAIN)
    DEFENSES.remove(NOISY)
    PROTOCOLS.remove(PROTOCOL)


def run(folder: Path, defense: str) -> EvaluationRecord:
    """Trains and attacks as a user would, and returns the record."""
    options = ["--dataset", "phantom2", "--defense", defense, "--protocol", PROTOCOL, "--n", str(N), "--device", "cpu"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(benchmark.summary, "CORPUS_RESAMPLES", 2)
        assert main(["run", "--suite", "smoke", *options, "--results", str(folder), "--quiet"]) == 0
    (record,) = [r for r in RecordStore(folder).records() if r.key.startswith(f"phantom2/{defense}/{PROTOCOL}")]
    return record


def copied(folders, target: Path) -> RecordStore:
    """Returns a store of its own with the record of the linear model, which is made once in a session.

    Args:
        folders: pytest's `tmp_path_factory`.
        target: An absent folder.
    """
    made = folders.getbasetemp() / "tiny-board"
    if not made.exists():
        run(made, PLAIN)
    shutil.copytree(made, target)
    return RecordStore(target)
