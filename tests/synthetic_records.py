"""Records of evaluations that never ran, for tests of stores, verdicts and pages."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from registry import (
    Budget,
    Claim,
    DatasetSpec,
    DefenseEntry,
    Family,
    HarmfulConfusion,
    Norm,
    Paper,
    Recipe,
    ThreatModel,
)
from results.record import (
    BudgetResult,
    Checkpoint,
    Cost,
    Escalation,
    Estimate,
    EvaluationRecord,
    Failure,
    Flag,
    MemberResult,
    Provenance,
    RecordStatus,
)
from results.statistics import attack_success_rate, mean_estimate
from results.store import RecordStore

LINF_GRID = tuple(Budget(norm=Norm.LINF, eps=levels / 255) for levels in (1, 2, 4, 8, 16))
MEMBERS = ("apgd-ce", "apgd-margin", "square", "transfer-apgd-margin", "bpda-pgd")
PROBED = (
    Flag(name="dishonest-gradient", red=False, evidence="real gain / predicted gain is 0.98; red under 0.3"),
    Flag(name="unbounded-survivors", red=False, evidence="0.0 % of 120 samples survive eps = 1; red above 5 %"),
)
RED = Flag(
    name="dishonest-gradient",
    red=True,
    evidence="real gain / predicted gain is 0.04 at h = eps/2; red under 0.3",
    values={"ratio": 0.04, "threshold": 0.3},
)
UNREGISTERED = 0
"""Revision of synthetic defenses: no entry has it, so that pages tell of them in the words of their own cards."""
SPENT = {"apgd-ce": 100, "apgd-margin": 500, "square": 5000, "transfer-apgd-margin": 20, "bpda-pgd": 40}


@dataclass(frozen=True, kw_only=True)
class Synthetic:
    """A record and its sample table; the table is None for a failed cell."""

    record: EvaluationRecord
    samples: pd.DataFrame | None


def make_dataset(name: str = "breastmnist", *, task: str = "classification", n_test: int = 156, **changes: Any):
    """Returns the specification of a data set; `changes` replace fields of `DatasetSpec`."""
    classification = task == "classification"
    fields = {
        "name": name,
        "title": {"breastmnist": "BreastMNIST", "msd_hippocampus": "MSD Hippocampus"}.get(name, name),
        "task": task,
        "input_shape": (1, 28, 28),
        "class_names": ("malignant", "benign") if classification else ("background", "anterior", "posterior"),
        "splits": {"train": 546, "val": 78, "test": n_test},
        "license": "CC BY 4.0",
        "citation": "Yang et al., MedMNIST v2, Scientific Data 2023",
        "homepage": "https://medmnist.com",
        "reader": "datasets.medmnist_npz:read",
        "harmful_confusions": (HarmfulConfusion(true=0, predicted=1, title="malignant called benign"),)
        if classification
        else (),
    }
    return DatasetSpec(**(fields | changes))


def make_defense(name: str = "Undefended", **changes: Any) -> DefenseEntry:
    """Returns a defense entry; `changes` replace fields of `DefenseEntry`."""
    known = {
        "Undefended": {"family": Family.UNDEFENDED, "summary": "Standard training, no defense."},
        "Madry2018PGDAT": {
            "family": Family.ADVERSARIAL_TRAINING,
            "summary": "Trains on PGD adversarials instead of clean images.",
            "paper": Paper(
                title="Towards Deep Learning Models Resistant to Adversarial Attacks",
                authors="Madry et al.",
                year=2018,
                url="https://arxiv.org/abs/1706.06083",
                venue="ICLR",
            ),
            "trained_for": Budget(norm=Norm.LINF, eps=4 / 255),
            "departures": "10 steps at 4/255 instead of 7 at 8/255; narrow ResNet-18.",
        },
        "JPEG": {
            "family": Family.INPUT_TRANSFORMATION,
            "summary": "Compresses the input at quality 75 before classification.",
            "base": "Undefended",
            "differentiable": False,
        },
    }
    fields = {
        "name": name,
        "summary": f"A synthetic defense called {name}.",
        "family": Family.REGULARISATION,
        "tasks": ("classification", "segmentation"),
        "build": "defenses.architectures.resnet:build",
        "build_options": {"width": 16},
        "recipe": Recipe(train="defenses.recipes.standard:train", options={"epochs": 30, "learning_rate": 0.05}),
    }
    return DefenseEntry(**(fields | known.get(name, {}) | changes))


def make_claim(value: float = 0.58, dataset: str = "breastmnist", eps: float = 4 / 255) -> Claim:
    """Returns a published number."""
    return Claim(
        value=value,
        metric="robust_accuracy",
        dataset=dataset,
        protocol="PGD-20, Linf 4/255",
        source="Table 2",
        budget=Budget(norm=Norm.LINF, eps=eps),
    )


def make_protocol(name: str = "standard", *, budgets: Sequence[Budget] = LINF_GRID, **threat: Any) -> dict[str, Any]:
    """Returns the card of a protocol; only "standard" ranks. `threat` replaces fields of `ThreatModel`."""
    norm = budgets[0].norm if budgets else Norm.LINF
    return {
        "name": name,
        "title": f"The {name} protocol.",
        "threat_model": ThreatModel(**({"norm": norm} | threat)).card(),
        "budgets": [budget.card() for budget in budgets],
        "tasks": ["classification", "segmentation"],
        "members": "attacks.entries.standard:members",
        "needs": ["twin"],
        "ranks": name.startswith("standard"),
        "reference": None,
        "revision": 1,
    }


def make_scores(clean: float, robust: Sequence[float], n: int, seed: int, graded: bool) -> np.ndarray:
    """Returns per-sample scores, (1 + budgets, n): clean first, never rising; their means are near what is asked."""
    rng = np.random.default_rng(seed)
    order = (rng.permutation(n) + 0.5) / n
    scores = np.stack([order < share for share in (clean, *robust)]).astype(np.float64)
    if graded:
        quality = np.clip(rng.normal(0.9, 0.05, n), 0, 1)
        scores = np.stack([np.clip(share * quality + 0.1 * (order - 0.5) * share, 0, 1) for share in (clean, *robust)])
    return np.minimum.accumulate(scores).astype(np.float32).astype(np.float64)


def make_record(
    *,
    dataset: DatasetSpec | None = None,
    defense: DefenseEntry | None = None,
    protocol: Mapping[str, Any] | None = None,
    seed: int = 0,
    attack_seed: int = 0,
    clean: float = 0.85,
    robust: Sequence[float] = (0.7, 0.5, 0.3, 0.1, 0.0),
    n: int | None = None,
    flags: tuple[Flag, ...] = PROBED,
    weights: str = "",
    **changes: Any,
) -> Synthetic:
    """Returns a finished record with its sample table.

    Args:
        dataset: Data set; BreastMNIST by default.
        defense: Defense; the undefended model by default.
        protocol: Card of the protocol; "standard" with a Linf grid by default.
        seed: Training seed; it also draws which samples are robust.
        attack_seed: Seed of the attacks.
        clean: Mean score on unchanged inputs, to within one sample.
        robust: Mean worst score at each budget of the protocol.
        n: Number of samples; the whole test split by default.
        flags: Soundness flags.
        weights: Text that stands for the weights; a record with another one holds another checkpoint.
        changes: Fields of `EvaluationRecord` to replace; a red flag comes with an escalation that found nothing.
    """
    dataset, defense = dataset or make_dataset(), defense or make_defense()
    protocol = protocol or make_protocol()
    n = n or dataset.splits["test"]
    graded = dataset.task == "segmentation"
    vectors = make_scores(clean, robust[: len(protocol["budgets"])], n, seed, graded)
    samples = pd.DataFrame({"sample_id": np.arange(n), "clean_score": vectors[0]})
    if not graded:
        samples["clean_label"] = np.arange(n) % len(dataset.class_names)
    budgets = []
    for index, (budget, scores) in enumerate(zip(protocol["budgets"], vectors[1:], strict=True)):
        samples[f"score_{index}"] = scores
        broken = (vectors[0] >= 0.5) & (scores < 0.5)
        samples[f"member_{index}"] = np.where(broken, MEMBERS[0], "")
        budgets.append(_budget_result(budget, vectors[0], scores, dataset))
    record = EvaluationRecord(
        key=f"{dataset.name}/{defense.name}/{protocol['name'].replace(':', '-')}-s{seed}-{attack_seed:08d}",
        status=RecordStatus.DONE,
        dataset=dataset.card(),
        data_sha256=_sha256(dataset.name),
        split="test",
        n_planned=n,
        defense=defense.card(),
        checkpoint=Checkpoint(
            sha256=_sha256(f"{dataset.name} {defense.name} {seed} {weights}"),
            seed=seed,
            files=(f"{defense.name}-{dataset.name}-s{seed}.safetensors",),
            card={
                "recipe": defense.recipe.card() if defense.recipe else None,
                "training_seconds": 60.0 + seed,
                "device": "cpu",
            },
        ),
        protocol=dict(protocol),
        attack_seed=attack_seed,
        revisions={"dataset": 1, "task": 1, "defense": UNREGISTERED, "protocol": 1, "engine": 1},
        quality="Dice" if graded else "accuracy",
        clean=_clean_metrics(vectors[0], graded),
        constant_predictor=None if graded else 114 / 156,
        clean_class_recall={} if graded else _recalls(dataset, vectors[0]),
        clean_confusions={c.title: mean_estimate(1 - vectors[0], True) for c in dataset.harmful_confusions},
        budgets=tuple(budgets),
        flags=flags,
        escalation=_escalation(flags, budgets[0]),
        cost=_cost(budgets, defense),
        provenance=_provenance(seed),
    )
    return Synthetic(record=replace(record, **changes), samples=samples)


def _escalation(flags: tuple[Flag, ...], result: BudgetResult) -> Escalation | None:
    red = tuple(flag for flag in flags if flag.red)
    if not red:
        return None
    robust = result.metrics["robust"].value
    return Escalation(
        budget=result.budget,
        flags=red,
        members=tuple(replace(member, name=f"escalation, view: {member.name}") for member in result.members),
        strongest="BPDA",
        why="of 100 audited samples, each from scratch, break by: true gradient 10, BPDA 60",
        robust_before=robust,
        robust_after=robust,
    )


def make_failure(**arguments: Any) -> Synthetic:
    """Returns the record of a cell that failed; arguments as for `make_record`."""
    record = make_record(**arguments).record
    failure = Failure(kind="ModelContractError", message="the model returns NaN", traceback="Traceback ...")
    failed = replace(record, status=RecordStatus.FAILED, budgets=(), clean={}, flags=(), cost=None, failure=failure)
    return Synthetic(record=failed, samples=None)


def write_store(folder: Path, made: Iterable[Synthetic]) -> RecordStore:
    """Writes records with their sample tables and returns the store."""
    store = RecordStore(folder)
    for synthetic in made:
        store.write(synthetic.record, synthetic.samples)
    return store


def _budget_result(budget: Mapping[str, Any], clean: np.ndarray, scores: np.ndarray, dataset: DatasetSpec):
    graded = dataset.task == "segmentation"
    robust = mean_estimate(scores, not graded)
    metrics = {
        "robust": robust,
        "attack_success_rate": attack_success_rate(clean, scores, 0.5),
        "iou" if graded else "balanced_accuracy": _shrunk(robust),
    }
    return BudgetResult(
        budget=dict(budget),
        metrics=metrics,
        members=_members(clean, scores),
        planned=MEMBERS,
        class_recall={} if graded else _recalls(dataset, scores),
        confusions={c.title: mean_estimate(1 - scores, True) for c in dataset.harmful_confusions},
    )


def _members(clean: np.ndarray, scores: np.ndarray) -> tuple[MemberResult, ...]:
    """Returns members of which the first breaks nearly all that breaks, and the last few the rest."""
    alive, toll = int((clean >= 0.5).sum()), int(((clean >= 0.5) & (scores < 0.5)).sum())
    found = []
    for place, name in enumerate(MEMBERS):
        broken = max(toll - 2, 0) if place == 0 else min(toll, 2) if place == 1 else 0
        spent = alive * SPENT[name]
        found.append(
            MemberResult(
                name=name,
                card={"name": name, "options": {"steps": SPENT[name]}, "objective": "margin", "source": "victim"},
                attempted=alive,
                lowered=broken,
                broken=broken,
                robust_after=(alive - broken) / len(scores),
                forwards=spent,
                backwards=0 if name == "square" else spent,
                seconds=0.001 * spent,
            )
        )
        alive -= broken
    return tuple(found)


def _clean_metrics(clean: np.ndarray, graded: bool) -> dict[str, Estimate]:
    name = "iou" if graded else "balanced_accuracy"
    mean = mean_estimate(clean, not graded)
    return {"clean": mean, name: _shrunk(mean)}


def _shrunk(estimate: Estimate) -> Estimate:
    """Returns an estimate that stands for a corpus metric: nine tenths of another one."""
    return Estimate(value=0.9 * estimate.value, low=0.9 * estimate.low, high=0.9 * estimate.high, n=estimate.n)


def _recalls(dataset: DatasetSpec, scores: np.ndarray) -> dict[str, Estimate]:
    k = len(dataset.class_names)
    return {name: mean_estimate(scores[index::k], True) for index, name in enumerate(dataset.class_names)}


def _cost(budgets: Sequence[BudgetResult], defense: DefenseEntry) -> Cost:
    members = [member for budget in budgets for member in budget.members]
    return Cost(
        seconds=sum(member.seconds for member in members),
        forwards=sum(member.forwards for member in members),
        backwards=sum(member.backwards for member in members),
        parameters=175_258,
        flops=35_700_000,
        latency_ms_1=1.9,
        latency_ms_64=24.5,
        training_seconds=60.0 if defense.family is Family.UNDEFENDED else 410.0,
    )


def _provenance(seed: int) -> Provenance:
    return Provenance(
        started_at=f"2027-01-02T03:04:{seed % 60:02d}Z",
        commit="0123456789abcdef0123456789abcdef01234567",
        dirty=False,
        python="3.11.7",
        platform="Linux x86_64",
        device="cpu (2 threads)",
        packages={"torch": "2.14.1", "numpy": "2.1.0"},
    )


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
