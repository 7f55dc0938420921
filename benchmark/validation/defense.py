"""The contract of a defense: its card, its model, one quick training and one quick evaluation, on generated data."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from benchmark.assessment import Identity, Subject, assess
from benchmark.obstacles import base_chain, needs_weights
from benchmark.validation.card import defense_card_checks
from benchmark.validation.check import Check, Unmet, check
from benchmark.validation.model import model_checks
from datasets.batch import Dataset, Split
from datasets.tasks.base import task_for
from defenses import checkpoints
from defenses.build import build_untrained, defended_model
from defenses.train import train_defense
from registry import (
    DATASETS,
    DEFENSES,
    TASKS,
    AttackProtocol,
    DatasetSpec,
    DefenseEntry,
    Member,
    Randomness,
    ThreatModel,
    linf,
)
from results.record import Checkpoint

SEED = 9999
"""Training seed of quick trainings: no released weights have it."""
TRAIN_ROWS = {"train": 96, "val": 32, "test": 32}
"""Samples a quick training reads."""
ROWS = 8
"""Samples a model is looked at with."""
FEW_ROWS = 4
"""Samples of the quick evaluation of a stochastic defense, which answers every question hundreds of times."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Bench:
    """What one defense is tried out with, for one task."""

    entry: DefenseEntry
    """The defense."""
    dataset: Dataset
    """A few generated samples."""
    folder: Path
    """For quick weights; thrown away."""


def defense_checks(entry: DefenseEntry, say: Callable[[str], None]) -> list[Check]:
    """Returns every verdict on a defense.

    Args:
        entry: The defense.
        say: Told what is tried at the moment.
    """
    checks = defense_card_checks(entry)
    for task in entry.tasks:
        spec = _generated(task)
        if spec is None:
            remedy = f"no generated data set has the task {task}; it cannot be tried out here"
            checks.append(Check(clause=f"{task}: it can be tried out", ok=task in TASKS, message=remedy))
            continue
        with tempfile.TemporaryDirectory() as folder:
            bench = Bench(entry=entry, dataset=_few(spec.load(Path(folder))), folder=Path(folder))
            say(f"{task}: on {spec.name}")
            checks.extend(replace(verdict, clause=f"{task}: {verdict.clause}") for verdict in _behaviour(bench, say))
    return checks


def _behaviour(bench: Bench, say: Callable[[str], None]) -> list[Check]:
    """Returns the verdicts on one task; the later ones need the earlier ones."""
    spec, built = bench.dataset.spec, []
    built_check = check("it builds", lambda: built.append(_untrained(bench)))
    if not built_check.ok:
        return [built_check]
    batch = bench.dataset.splits["test"].take(np.arange(ROWS))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        checks = [
            built_check,
            *model_checks(built[0].eval(), bench.entry, task_for(spec, detects=bench.entry.detects), batch),
        ]
    say("one quick training")
    training = check("its recipe (and its base's) trains one epoch and the weights load again", _quick_training, bench)
    checks.append(training)
    if training.ok:
        say("one quick evaluation")
        checks.append(check("a quick evaluation works from end to end", _quick_evaluation, bench))
    return checks


def _generated(task: str) -> DatasetSpec | None:
    """Returns the generated data set of a task with the fewest classes."""
    fitting = [spec for spec in DATASETS if spec.embedded and spec.task == task]
    return min(fitting, key=lambda spec: spec.n_classes, default=None)


def _few(dataset: Dataset) -> Dataset:
    """Returns the first rows of each split."""
    splits = {}
    for name, split in dataset.splits.items():
        rows = slice(TRAIN_ROWS[name])
        splits[name] = Split(
            images=split.images[rows],
            targets={key: values[rows] for key, values in split.targets.items()},
            context=None if split.context is None else split.context[rows],
            present=None if split.present is None else split.present[rows],
            groups=None if split.groups is None else split.groups[rows],
        )
    return replace(dataset, splits=splits)


def _untrained(bench: Bench) -> nn.Module:
    model = None
    for link in reversed(base_chain(bench.entry, DEFENSES)):
        model = build_untrained(link, bench.dataset.spec, base=model)
    if not isinstance(model, nn.Module):
        raise Unmet(f"build must return a torch.nn.Module, got {type(model).__name__}")
    return model


def _quick_training(bench: Bench) -> str:
    trained = []
    for link in reversed(base_chain(bench.entry, DEFENSES)):
        if link.recipe is None:
            if needs_weights(link):
                return "released weights only; not downloaded here"
            continue
        shorter = {"epochs": 1} if link.base is None or "epochs" in link.recipe.options else {}  # a threshold has none
        recipe = replace(link.recipe, options={**link.recipe.options, **shorter}, per_dataset={})
        path = train_defense(
            replace(link, recipe=recipe), bench.dataset, SEED, device="cpu", folder=bench.folder, progress=None
        )
        size, card = path.stat().st_size / 1e6, checkpoints.read_card(path)
        digest = card.get("sha256")
        if checkpoints.find(link.name, bench.dataset.spec.name, SEED, bench.folder) != path or not digest:
            raise Unmet(f"the training left no weights with a card at {path.name}")
        card.pop("options", None)  # weights of other options than the entry states, such as one epoch, are refused
        checkpoints.card_path(path).write_text(json.dumps(card), encoding="utf-8")
        trained.append(f"{link.name} {size:.2f} MB")
    defended_model(bench.entry, bench.dataset.spec, SEED, bench.folder)
    return ", ".join(trained)


def _quick_evaluation(bench: Bench) -> str:
    spec, entry = bench.dataset.spec, bench.entry
    model, info = defended_model(entry, spec, SEED, bench.folder)
    protocol = _quick_protocol(spec.task)
    subject = Subject(model=model, task=task_for(spec, detects=entry.detects), spec=spec, randomness=entry.randomness)
    identity = Identity(
        key=f"{spec.name}/{entry.name}/{protocol.name}-s{SEED}-0000000000",
        data_sha256=bench.dataset.sha256,
        split="test",
        defense=entry.card(),
        checkpoint=Checkpoint(sha256=info.sha256, seed=SEED),
    )
    noisy = entry.randomness is not Randomness.NONE
    batch = bench.dataset.splits["test"].take(np.arange(FEW_ROWS if noisy else ROWS))
    record, samples, _ = assess(subject, batch, protocol, identity, device="cpu", progress=lambda share, text: None)
    result = record.budgets[0]
    for member in result.members:
        if member.errors or member.error:
            text = (member.error or "NaN or infinity").strip().splitlines()[-1]
            raise Unmet(f"attack {member.name} ended with an error on {member.errors} samples: {text}")
        if member.violations:
            raise Unmet(f"attack {member.name} left the budget {member.violations} times")
    if len(samples) != len(batch) or (not noisy and (samples["score_0"] > samples["clean_score"]).any()):
        raise Unmet("scores under attack must be there for every sample and, without noise, never above the clean ones")
    clean, robust = record.clean["clean"].value, result.metrics["robust"].value
    return f"{record.quality} {clean:.2f} clean, {robust:.2f} under attack after one epoch; n = {len(batch)}"


def _quick_protocol(task: str) -> AttackProtocol:
    objective = "soft-dice" if task == "segmentation" else "margin"

    def members(facts, budget):
        steps = {"steps": 4}
        ensemble = [
            Member(name="apgd", attack="attacks.apgd:APGD", options=steps, objective=objective),
            Member(name="square", attack="attacks.square:Square", options={"queries": 8}, objective=objective),
        ]
        if facts.stages:
            ensemble.append(
                Member(
                    name="pgd-bpda", attack="attacks.gradient:PGD", options=steps, objective=objective, backward="bpda"
                )
            )
        return tuple(ensemble)

    return AttackProtocol(
        name="validate",
        title="A few steps",
        threat_model=ThreatModel(),
        budgets=(linf(8 / 255),),
        tasks=(task,),
        members=members,
    )
