"""The contract of every attack: each member of every registered protocol, and each attack of our own, on toy victims."""

import copy
from dataclasses import replace
from functools import cache

import pytest
import torch
from torch import nn

from attacks.engine import Outcome
from datasets.batch import Batch
from datasets.tasks.classification import Classification, MultiLabelClassification
from datasets.tasks.segmentation import Segmentation
from registry import PROTOCOLS, CellFacts, Member, Norm, Randomness, linf, load_entries, resolve
from tests.toys import NoisyInput, Quantise, attack, batch_for, cnn, images, linear, protocol_of

EPS = 0.03
SHRUNK = {"steps": 3, "queries": 12, "restarts": 2}
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
    "square": Member(name="square", attack="attacks.square:Square", options={"queries": 12, "restarts": 2}),
}


def shrunk(member: Member) -> Member:
    """Returns the member with less effort."""
    options = {name: min(value, SHRUNK[name]) if name in SHRUNK else value for name, value in member.options.items()}
    if "AutoAttack" in str(member.attack):
        options["attacks"] = ("apgd-ce",)
    return replace(member, options=options)


def cases() -> dict[str, tuple[str, Member]]:
    found = {f"{kind} {name}": (kind, member) for kind in ("linear-2", "cnn-3", "noisy") for name, member in OWN.items()}
    for protocol in PROTOCOLS:
        for kind, (_, _, facts) in VICTIMS.items():
            published = protocol.name.startswith("reference:")  # one label a sample, and slow
            if facts.task not in protocol.tasks or kind == "noisy" or (published and kind not in ("linear-2", "cnn-3")):
                continue
            for budget in protocol.budgets:
                for member in map(shrunk, protocol.ensemble(facts, budget)):
                    signature = f"{member.name} {member.objective} {dict(member.options)}"
                    found.setdefault(f"{kind} {protocol.name} {signature}", (kind, member))
    return found


CASES = cases()
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
            return Batch(sample_ids=torch.arange(11), inputs=inputs, targets={"labels": labels})
    return batch_for(model, inputs, wrong=1)


def twin_of(kind: str) -> nn.Module:
    return conv_segmentation() if kind == "segmentation" else cnn(VICTIMS[kind][2].n_classes, seed=8)


@cache
def run(name: str, eps: float = EPS, seed: int = 0, again: int = 0) -> Outcome:
    kind, member = CASES[name]
    model, task, facts = VICTIMS[kind]
    protocol = protocol_of(member, eps=(eps,))
    options = {"seed": seed, "twin": twin_of(kind), "randomness": facts.randomness}
    return attack(model, samples(kind), protocol, task=task, slots=4 if kind == "noisy" else 8, **options)


def test_every_registered_protocol_is_here():
    assert {name.split()[1] for name in CASES} >= {p.name for p in PROTOCOLS if p.budgets}
    objectives = {(member.attack, member.objective) for _, member in CASES.values()}
    assert ("attacks.apgd:APGD", "soft-dice") in objectives
    assert any(member.backward == "bpda" for _, member in CASES.values())
    assert any(member.source == "twin" for _, member in CASES.values())


@every_case
def test_adversarials_lie_inside_the_ball_and_keep_shape_and_dtype(name):
    kind, member = CASES[name]
    batch, outcome = samples(kind), run(name)
    result = outcome.budgets[0]
    assert result.members[0].errors == 0, result.members[0].error
    assert result.points.shape == batch.inputs.shape
    assert result.points.dtype == torch.float32
    assert ((result.points - batch.inputs).abs().flatten(1).amax(1) <= EPS + 1e-6).all()
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


@every_case
def test_no_budget_is_the_identity(name):
    outcome = run(name, eps=0.0)
    assert outcome.budgets[0].members[0].errors == 0, outcome.budgets[0].members[0].error
    assert torch.equal(outcome.budgets[0].points, samples(CASES[name][0]).inputs)
    assert torch.equal(outcome.budgets[0].scores, outcome.clean_scores)


@every_case
def test_the_model_the_data_and_the_global_generator_stay_as_they_were(name):
    kind, member = CASES[name]
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


def first_queries(member: Member, seed: int, norm: Norm = Norm.LINF) -> dict[tuple[int, int], torch.Tensor]:
    """Returns the first point that an attack asks for, by sample and restart."""
    asked = {}

    def factory(**options):
        inner = resolve(member.attack)(**options)
        ask = inner.ask

        def watch(rows, rng):
            query = ask(rows, rng)
            for row in (rows.step == 0).nonzero()[:, 0].tolist():
                asked[int(rows.sample[row]), int(rows.restart[row])] = query.points[row].clone()
            return query

        inner.ask = watch
        return inner

    model, task, _ = VICTIMS["linear-2"]
    attack(model, samples("linear-2"), protocol_of(replace(member, attack=factory), eps=(1e-6,), norm=norm), task=task)
    other = {key: points for key, points in asked.items() if key[0] > 1}
    asked.clear()
    attack(
        model,
        samples("linear-2"),
        protocol_of(replace(member, attack=factory), eps=(EPS,), norm=norm),
        task=task,
        seed=seed,
    )
    return {key: asked[key] for key in other if key in asked}


@pytest.mark.parametrize("name", ["pgd", "apgd", "square"])
def test_seeds_samples_and_restarts_start_elsewhere(name):
    one, two = first_queries(OWN[name], 0), first_queries(OWN[name], 1)
    shared = set(one) & set(two)
    assert len({sample for sample, _ in shared}) >= 4
    assert sum(torch.equal(one[key], two[key]) for key in shared) <= 1  # stripes of 8 columns have 256 patterns
    inputs = samples("linear-2").inputs
    changes = torch.stack([(one[key] - inputs[key[0]]).flatten() for key in sorted(one)])
    patterns = (changes * 1e4).round().unique(dim=0)
    assert len(patterns) >= 0.8 * len(changes)


def test_fgsm_starts_at_the_original_whatever_the_seed():
    inputs = samples("linear-2").inputs
    for seed in (0, 1):
        for (sample, _), point in first_queries(OWN["fgsm"], seed).items():
            assert torch.equal(point, inputs[sample])


def robust_linear() -> tuple[nn.Module, Batch]:
    """A model that no attack in the ball can break: every sample spends its whole budget."""
    model = linear(2, shape=(1, 8, 8))
    batch = batch_for(model, images(40, shape=(1, 8, 8)))
    with torch.no_grad():
        margin = (model(batch.inputs)[:, 0] - model(batch.inputs)[:, 1]).abs()
    return model, batch.take(margin.argsort(descending=True)[:11])


@pytest.mark.parametrize("restarts", [1, 3])
@pytest.mark.parametrize(
    ("attack_name", "options", "per_run", "with_gradient"),
    [
        ("attacks.gradient:PGD", {"steps": 4}, 5, True),
        ("attacks.apgd:APGD", {"steps": 7}, 8, True),
        ("attacks.square:Square", {"queries": 9}, 9, False),
    ],
)
def test_a_survivor_costs_its_whole_budget_and_no_more(attack_name, options, per_run, with_gradient, restarts):
    model, batch = robust_linear()
    member = Member(name="x", attack=attack_name, options={**options, "restarts": restarts}, objective="margin")
    outcome = attack(model, batch, protocol_of(member, eps=(1e-4,)), slots=4).budgets[0]
    assert (outcome.scores == 1).all()
    spent = outcome.members[0]
    assert spent.backwards == (11 * restarts * per_run if with_gradient else 0)
    assert spent.forwards == 11 * restarts * per_run + 11  # and the clean outputs, once


def test_a_broken_sample_costs_no_more_once_it_is_confirmed():
    model, batch = robust_linear()
    member = Member(name="x", attack="attacks.apgd:APGD", options={"steps": 50}, objective="margin")
    outcome = attack(model, batch, protocol_of(member, eps=(0.5,))).budgets[0]
    assert (outcome.scores == 0).all()
    assert outcome.members[0].backwards <= 3 * 11
    assert outcome.step.min() >= 1


@pytest.mark.parametrize("name", ["pgd", "apgd"])
def test_l2_adversarials_lie_inside_their_ball(name):
    model, batch = VICTIMS["cnn-3"][0], samples("cnn-3")
    outcome = attack(model, batch, protocol_of(OWN[name], eps=(0.4,), norm=Norm.L2)).budgets[0]
    length = (outcome.points - batch.inputs).flatten(1).norm(dim=1)
    assert outcome.members[0].errors == outcome.members[0].violations == 0
    assert (length <= 0.4 + 1e-5).all()
    assert (length > 0.2).any()


def test_more_draws_cost_more():
    model, batch = VICTIMS["noisy"][0], samples("noisy").take(slice(0, 3))
    spent = []
    for count in (1, 4):
        options = {"steps": 2, "eot_samples": count}
        member = Member(name="x", attack="attacks.gradient:PGD", options=options)
        outcome = attack(model, batch, protocol_of(member, eps=(0.001,)), randomness=Randomness.SAMPLE)
        spent.append(outcome.budgets[0].members[0].backwards)
    assert spent == [9, 36]


def test_the_standard_ensemble_grows_with_the_facts():
    def names(**facts):
        cell = CellFacts(**{"task": "classification", "n_classes": 4} | facts)
        return {member.name for member in PROTOCOLS["standard"].ensemble(cell, linf(4 / 255))}

    assert names(n_classes=2, has_twin=False) == {"apgd-margin", "square"}
    assert names() == {"apgd-ce", "apgd-targeted-margin", "transfer", "square"}
    assert names(stages=("jpeg",)) == names() | {"pgd-bpda"}
    assert names(multi_label=True) == {"apgd-margin", "transfer", "square"}
    assert names(task="segmentation") == {"apgd-dice", "apgd-ce", "transfer", "square"}
    facts = CellFacts(task="classification", n_classes=20)
    (targeted,) = (m for m in PROTOCOLS["standard"].ensemble(facts, linf(4 / 255)) if "targeted" in m.name)
    assert targeted.options["restarts"] == 9
