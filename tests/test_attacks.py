"""The contract of every attack: members of all registered protocols and our own, on toy victims."""

import copy
import importlib
import inspect
from collections.abc import Mapping
from dataclasses import replace
from functools import cache

import pytest
import torch
from torch import nn

from attacks.engine import Outcome
from datasets.batch import Batch
from datasets.tasks.classification import Classification, MultiLabelClassification
from datasets.tasks.segmentation import Segmentation
from registry import PROTOCOLS, ROOT, CellFacts, Knowledge, Member, Norm, Randomness, ThreatKind, linf, load_entries
from registry.lazy import reference_name
from tests.toys import NoisyInput, Quantise, attack, batch_for, cnn, images, linear, protocol_of, shuffled

EPS = {Norm.LINF: 0.03, Norm.L2: 0.3, Norm.L1: 1.0, Norm.L0: 3}
SHRUNK = {"steps": 3, "queries": 12, "restarts": 2, "population": 4, "generations": 2}
load_entries()


def conv_segmentation() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        return nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 3, 1)).eval()


def victims() -> dict[str, tuple]:
    """Model, task and facts by name."""
    quantised = nn.Sequential(Quantise(), cnn(3)).eval()
    classification = {"task": "classification", "has_twin": True}
    return {
        "linear-2": (linear(2, shape=(1, 8, 8)), Classification(2), CellFacts(n_classes=2, **classification)),
        "cnn-3": (cnn(3), Classification(3), CellFacts(n_classes=3, **classification)),
        "cnn-4": (cnn(4), Classification(4), CellFacts(n_classes=4, **classification)),
        "stages": (quantised, Classification(3), CellFacts(n_classes=3, stages=("0",), **classification)),
        "labels": (cnn(3), MultiLabelClassification(3), CellFacts(n_classes=3, multi_label=True, **classification)),
        "segmentation": (conv_segmentation(), Segmentation(3), CellFacts(task="segmentation", n_classes=3)),
        "noisy": (
            NoisyInput(linear(3, shape=(1, 8, 8))),
            Classification(3),
            CellFacts(n_classes=3, randomness=Randomness.SAMPLE, **classification),
        ),
    }


VICTIMS = victims()
OWN = {
    "pgd": Member(name="pgd", attack="attacks.gradient:PGD", options={"steps": 3, "restarts": 2}),
    "fgsm": Member(name="fgsm", attack="attacks.gradient:fgsm"),
    "apgd": Member(name="apgd", attack="attacks.apgd:APGD", options={"steps": 3, "restarts": 2}),
    "shrinking": Member(name="shrinking", attack="attacks.shrinking:ShrinkingAPGD", options={"steps": 6}),
    "hsj": Member(name="hsj", attack="attacks.hop_skip_jump:HopSkipJump", options={"queries": 120, "first_draws": 4}),
    "admix": Member(name="admix", attack="attacks.admix:Admix", options={"steps": 2, "mixtures": 2, "scales": 2}),
    "decowa": Member(name="decowa", attack="attacks.decowa:DeCoWA", options={"steps": 2, "warps": 2}),
    "square": Member(name="square", attack="attacks.square:Square", options={"queries": 12, "restarts": 2}),
    "fab": Member(name="fab", attack="attacks.fab:FAB", options={"steps": 3, "restarts": 2}, objective="margin"),
    "deepfool": Member(name="deepfool", attack="attacks.deepfool:DeepFool", options={"steps": 3}, objective="margin"),
    "cw": Member(
        name="cw",
        attack="attacks.carlini_wagner:CarliniWagner",
        options={"steps": 4, "search_steps": 2},
        objective="margin",
    ),
    "bim": Member(name="bim", attack="attacks.momentum:bim", options={"steps": 3}),
    "mim": Member(name="mim", attack="attacks.momentum:MIM", options={"steps": 3}),
    "differences": Member(
        name="differences",
        attack="attacks.finite_differences:FiniteDifferences",
        options={"iterations": 2, "pairs": 2, "restarts": 2},
    ),
    "random": Member(name="random", attack="attacks.random_search:RandomSearch", options={"queries": 12}),
    "apgd-l1": Member(name="apgd-l1", attack="attacks.apgd_l1:APGDL1", options={"steps": 7, "restarts": 2}),
    "square-l2": Member(name="square-l2", attack="attacks.square_l2:SquareL2", options={"queries": 12, "restarts": 2}),
    "sparse-rs": Member(name="sparse-rs", attack="attacks.sparse_rs:SparseRS", options={"queries": 12, "restarts": 2}),
    "pgd0": Member(name="pgd0", attack="attacks.pgd_l0:PGD0", options={"steps": 3, "restarts": 2}),
    "one-pixel": Member(name="one-pixel", attack="attacks.one_pixel:OnePixel", options={"queries": 12}),
    "one-pixel-de": Member(
        name="one-pixel-de", attack="attacks.one_pixel_de:OnePixelDE", options={"population": 4, "generations": 2}
    ),
}
NORMS = {
    "pgd": tuple(EPS),
    "apgd": (Norm.LINF, Norm.L2),
    "mim": (Norm.LINF, Norm.L2),
    "differences": (Norm.LINF, Norm.L2, Norm.L1),
    "random": tuple(EPS),
    "fab": (Norm.LINF, Norm.L2, Norm.L1),
    "cw": (Norm.L2,),
    "apgd-l1": (Norm.L1,),
    "square-l2": (Norm.L2,),
    **dict.fromkeys(("sparse-rs", "pgd0", "one-pixel", "one-pixel-de"), (Norm.L0,)),
}
"""Norms in which our attacks run here; the others run in Linf."""


def small(options: Mapping[str, object]) -> dict[str, object]:
    """Returns the options with less effort, those of a wrapped attack too."""
    inner = {name: small(value) for name, value in options.items() if isinstance(value, Mapping)}
    return {n: min(value, SHRUNK[n]) if n in SHRUNK else value for n, value in options.items()} | inner


def shrunk(member: Member) -> Member:
    """Returns the member with less effort."""
    options = small(member.options)
    if "AutoAttack" in str(member.attack):
        options["attacks"] = ("apgd-ce",)
    return replace(member, options=options)


def cases() -> dict[str, tuple[str, Member, Norm]]:
    found = {
        f"{kind} {name} {norm}": (kind, member, norm)
        for kind in ("linear-2", "cnn-3", "noisy")
        for name, member in OWN.items()
        for norm in NORMS.get(name, (Norm.LINF,))[: 1 if kind == "noisy" else None]
    }
    for protocol in PROTOCOLS:
        if protocol.threat_model.kind is ThreatKind.CORRUPTION:
            continue  # bounded by a severity, not by a ball: see tests/test_corruptions.py
        for kind, (_, _, facts) in VICTIMS.items():
            published = protocol.name.startswith("reference:")  # one label a sample, and slow
            if facts.task not in protocol.tasks or kind == "noisy" or (published and kind not in ("linear-2", "cnn-3")):
                continue
            for budget in protocol.budgets:
                for member in map(shrunk, protocol.ensemble(facts, budget)):
                    signature = f"{member.name} {member.objective} {dict(member.options)}"
                    case = (kind, member, protocol.threat_model.norm)
                    found.setdefault(f"{kind} {protocol.name} {signature}", case)
    return found


CASES = cases()


def attack_classes() -> set[str]:
    """Returns the names of all classes of `attacks` that search: they say what they must know, and can be started."""
    found = set()
    for path in sorted((ROOT / "attacks").glob("*.py")):
        module = importlib.import_module(f"attacks.{path.stem}")
        for name, kind in vars(module).items():
            own = isinstance(kind, type) and kind.__module__ == module.__name__ and not inspect.isabstract(kind)
            if own and isinstance(getattr(kind, "knowledge", None), Knowledge) and not name.startswith("_"):
                found.add(name)
    return found


def test_every_attack_is_under_contract():
    covered = {reference_name(member.attack).partition(":")[2] for _, member, _ in CASES.values()}
    assert attack_classes() - covered == {"Corruption"}  # bounded by a severity: see tests/test_corruptions.py


every_case = pytest.mark.parametrize("name", CASES)


@cache
def samples(kind: str) -> Batch:
    model, task, _ = VICTIMS[kind]
    inputs = images(11, shape=(1, 8, 8), low=0.0, high=1.0)
    inputs[0], inputs[1] = 0.0, 1.0  # at the ends of the range
    if kind == "noisy":
        return batch_for(model.base, inputs[:4], wrong=1)
    with torch.no_grad():
        if isinstance(task, Segmentation):
            mask = model(inputs).argmax(1)
            return Batch(sample_ids=torch.arange(11), inputs=inputs, targets={"mask": mask})
        if isinstance(task, MultiLabelClassification):
            labels = (model(inputs) > 0).float()
            return Batch(
                sample_ids=torch.arange(11),
                inputs=inputs,
                targets={"labels": labels, "weights": torch.ones_like(labels)},
            )
    return batch_for(model, inputs, wrong=1)


def twin_of(kind: str) -> nn.Module:
    return conv_segmentation() if kind == "segmentation" else cnn(VICTIMS[kind][2].n_classes, seed=8)


@cache
def run(name: str, eps: float | None = None, seed: int = 0, again: int = 0) -> Outcome:
    kind, member, norm = CASES[name]
    model, task, facts = VICTIMS[kind]
    protocol = protocol_of(member, eps=(EPS[norm] if eps is None else eps,), norm=norm)
    options = {"seed": seed, "twin": twin_of(kind), "randomness": facts.randomness}
    return attack(model, samples(kind), protocol, task=task, slots=4 if kind == "noisy" else 8, **options)


def test_every_registered_protocol_is_here():
    in_balls = {p.name for p in PROTOCOLS if p.budgets and p.threat_model.kind is not ThreatKind.CORRUPTION}
    assert {name.split()[1] for name in CASES} >= in_balls
    objectives = {(member.attack, member.objective) for _, member, _ in CASES.values()}
    assert ("attacks.apgd:APGD", "soft-dice") in objectives
    assert any(member.backward == "bpda" for _, member, _ in CASES.values())
    assert any(member.source == "twin" for _, member, _ in CASES.values())


def size_of(change: torch.Tensor, norm: Norm) -> torch.Tensor:
    """The norm of each sample's change; L0 counts pixels."""
    if norm is Norm.L0:
        return (change != 0).any(1).flatten(1).sum(1)
    return torch.linalg.vector_norm(change.flatten(1), {Norm.LINF: torch.inf, Norm.L2: 2, Norm.L1: 1}[norm], dim=1)


@every_case
def test_adversarials_lie_inside_the_ball_and_keep_shape_and_dtype(name):
    batch, outcome = samples(CASES[name][0]), run(name)
    result = outcome.budgets[0]
    assert result.members[0].errors == 0, result.members[0].error
    assert result.points.shape == batch.inputs.shape
    assert result.points.dtype == torch.float32
    assert (size_of(result.points - batch.inputs, CASES[name][2]) <= EPS[CASES[name][2]] + 1e-5).all()
    assert result.points.min() >= 0
    assert result.points.max() <= 1
    assert result.members[0].violations == 0
    assert (result.scores <= outcome.clean_scores).all()


@every_case
def test_the_same_seed_gives_the_same_result(name):
    first, second = run(name).budgets[0], run(name, again=1).budgets[0]
    assert torch.equal(first.points, second.points)
    assert torch.equal(first.scores, second.scores)
    assert first.found_by == second.found_by


@pytest.mark.parametrize("name", [name for name in CASES if name.rpartition(" ")[0].removeprefix("cnn-3 ") in OWN])
def test_neighbours_in_the_batch_change_nothing(name):
    kind, member, norm = CASES[name]
    mixed, places = shuffled(samples(kind), 3)
    eps = EPS[norm] / 3  # few break at once
    outcome = attack(VICTIMS[kind][0], mixed, protocol_of(member, eps=(eps,), norm=norm), slots=8, twin=twin_of(kind))
    assert torch.equal(outcome.budgets[0].points[places], run(name, eps=eps).budgets[0].points)


@every_case
def test_no_budget_is_the_identity(name):
    outcome = run(name, eps=0.0)
    assert outcome.budgets[0].members[0].errors == 0, outcome.budgets[0].members[0].error
    assert torch.equal(outcome.budgets[0].points, samples(CASES[name][0]).inputs)
    assert torch.equal(outcome.budgets[0].scores, outcome.clean_scores)


@every_case
def test_the_model_the_data_and_the_global_generator_stay_as_they_were(name):
    kind = CASES[name][0]
    model, batch = VICTIMS[kind][0], samples(kind)
    before = copy.deepcopy(model)
    inputs, targets = batch.inputs.clone(), {key: values.clone() for key, values in batch.targets.items()}
    state = torch.random.get_rng_state()
    run(name, seed=7)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert [m.training for m in model.modules()] == [m.training for m in before.modules()]
    for (key, now), then in zip(model.state_dict(keep_vars=True).items(), before.state_dict().values(), strict=True):
        assert torch.equal(now, then), key
        assert now.grad is None, key
    assert [p.requires_grad for p in model.parameters()] == [p.requires_grad for p in before.parameters()]
    assert all(not m._forward_hooks and not m._forward_pre_hooks for m in model.modules())
    assert torch.equal(batch.inputs, inputs)
    assert all(torch.equal(batch.targets[key], values) for key, values in targets.items())


def test_the_standard_ensemble_grows_with_the_facts():
    def names(**facts):
        cell = CellFacts(**{"task": "classification", "n_classes": 4} | facts)
        return {member.name for member in PROTOCOLS["standard"].ensemble(cell, linf(4 / 255))}

    assert names(n_classes=2, has_twin=False) == {"apgd-margin", "fab", "square"}
    assert names() == {"apgd-ce", "apgd-targeted-margin", "fab-targeted", "transfer", "square"}
    assert names(stages=("jpeg",)) == names() | {"pgd-bpda"}
    assert names(multi_label=True) == {"apgd-ce", "apgd-margin", "transfer", "square"}
    noisy = {"apgd-eot1", "apgd-eot4", "apgd-eot16", "mim-eot4", "mim-pooled16", "frozen-draw", "transfer", "square"}
    assert names(randomness=Randomness.SAMPLE, n_classes=2) == noisy | {"apgd-ce-eot16"}
    assert names(randomness=Randomness.SAMPLE) == noisy | {"apgd-ce-eot16", "apgd-targeted-eot4"}
    assert names(task="segmentation", randomness=Randomness.SAMPLE) == noisy | {"apgd-sharp-eot4"}
    assert names(task="segmentation") == {"apgd-dice", "apgd-sharp-dice", "apgd-js", "transfer", "square"}
    facts = CellFacts(task="classification", n_classes=20)
    members = {m.name: m for m in PROTOCOLS["standard"].ensemble(facts, linf(4 / 255))}
    assert members["apgd-targeted-margin"].options["restarts"] == 9
    assert members["fab-targeted"].options["targets"] == 9
