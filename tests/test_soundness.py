"""Examination of whole cells: honest toys raise nothing, broken ones end at the truth, and no trace is left."""

import copy
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from attacks.engine import run_protocol
from attacks.soundness import examination as soundness
from attacks.soundness.escalation import Escalator
from attacks.soundness.examination import examine
from benchmark.soundness_summary import escalation_of, flags_of
from registry import Budget, CellFacts, Member, Norm, Randomness, ThreatModel, linf
from results import verdict
from tests.soundness_toys import (
    CROSS_ENTROPY,
    MARGIN,
    QUERIES,
    SHAPE,
    Decoy,
    RippledInOne,
    Rounded,
    Saturating,
    Scaled,
    cell,
    examined,
    flat_linear,
)
from tests.toys import (
    Counting,
    Linear,
    NoisyInput,
    Quantise,
    RandomWeights,
    Sine,
    batch_for,
    cnn,
    images,
    linear,
    protocol_of,
    robust_gap,
)

LINEAR = flat_linear()
ROUNDED = nn.Sequential(Rounded(), LINEAR)
ALL_COMPARED = {
    "black-box-beats-white-box",
    "noise-beats-gradient",
    "one-step-beats-many",
    "not-monotone",
    "not-converged",
    "unbounded-survivors",
}
TRUTH = float((robust_gap(LINEAR, batch_for(LINEAR, images(32, shape=SHAPE)), 0.02) > 0).float().mean())


@pytest.fixture(scope="module", autouse=True)
def short_rungs():
    """Shortens the last rungs; what they find is tested with the attacks themselves."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (("QUERIES", 200), ("DECISIONS", 200), ("ESTIMATES", 1), ("LONGER", 2)):
            patch.setattr(f"attacks.soundness.escalation.{name}", value)
        yield


@pytest.fixture(scope="module")
def rounded(short_rungs):
    """One examination of a model that rounds its input and does not say so."""
    return examined(ROUNDED, LINEAR, members=(MARGIN,))


HONEST = {
    "linear of 2 classes": (LINEAR, {}),
    "linear of 4 classes": (linear(4, shape=SHAPE), {"eps": 0.01}),
    "convolutions": (cnn(3), {"eps": 0.004}),
    "noisy input": (NoisyInput(LINEAR, 0.02, 0.02), {"randomness": Randomness.SAMPLE, "n": 8}),
    "random weights": (RandomWeights(LINEAR, 0.02), {"randomness": Randomness.MODEL, "n": 8}),
    "logits x 1e-3": (Scaled(LINEAR, 1e-3), {}),
    "constant": (Linear(torch.tensor([[0.0], [0.0]]).expand(2, 64).contiguous()), {}),
}


SLOW = {"random weights", "noisy input", "linear of 4 classes", "logits x 1e4, attacked by cross-entropy", "sine"}


def _names(toys):
    return [pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in toys]


@pytest.mark.parametrize("name", _names(HONEST))
def test_honest_models_cross_no_threshold(name):
    model, options = HONEST[name]
    base = LINEAR if "noisy" in name or "weights" in name else model
    found = examined(model, base, **options)
    assert found.red == set(), {flag: found.findings[flag].evidence for flag in found.red}
    if name == "constant":  # no image of the data set gets another label
        assert found.findings["unbounded-survivors"].values["n"] == 0
    assert found.escalation is None
    assert set(found.findings) >= ALL_COMPARED


BROKEN = {
    "quantised, declared": (
        nn.Sequential(Quantise(), LINEAR),
        {"stages": ("0",)},
        {"zero-gradient", "dishonest-gradient"},
    ),
    "sine": (nn.Sequential(Sine(), LINEAR), {}, {"dishonest-gradient"}),
    "logits x 1e4, attacked by cross-entropy": (
        Scaled(LINEAR, 1e4),
        {"members": (CROSS_ENTROPY,)},
        {"not-converged"},
    ),
    "saturating": (Saturating(LINEAR), {}, {"zero-gradient", "unbounded-survivors"}),
    "decoy": (Decoy(LINEAR, linear(2, shape=SHAPE, seed=7)), {}, {"jumping-margin"}),
}


@pytest.mark.parametrize("name", _names(BROKEN))
def test_broken_models_are_red_and_end_at_their_truth(name):
    model, options, expected = BROKEN[name]
    found = examined(model, LINEAR, **options)
    assert expected <= found.started_by
    assert found.escalation.failure == ""
    assert found.red == set(), {flag: found.findings[flag].evidence for flag in found.red}
    truth = TRUTH  # rounding to 16 levels moves single margins; their mean stays
    assert found.robust <= truth + 0.03
    assert found.escalation.robust_after <= found.escalation.robust_before
    assert float(found.before.budgets[0].scores.mean()) >= found.robust


def test_an_undeclared_stage_is_found(rounded):
    assert rounded.started_by >= {"zero-gradient", "dishonest-gradient", "unbounded-survivors"}
    assert rounded.escalation.strongest.name == "BPDA"
    assert rounded.red == set(), {flag: rounded.findings[flag].evidence for flag in rounded.red}
    assert rounded.robust <= TRUTH + 0.03


def test_what_cannot_be_found_stays_red():
    """A sine inside of the model's own `forward` has no stage, no inner logits and no twin."""
    found = examined(RippledInOne(LINEAR), LINEAR)
    assert "dishonest-gradient" in found.red
    assert found.escalation.strongest.name == "true gradient"


@pytest.mark.slow
def test_a_twin_breaks_what_has_no_stage():
    found = examined(RippledInOne(LINEAR), LINEAR, twin=LINEAR)
    assert found.escalation.strongest.name == "twin"
    assert found.red == {"jumping-margin"}  # no other model's gradient says what its own does at the boundary
    assert found.robust <= TRUTH + 0.03


@pytest.mark.slow
def test_transfer_is_compared_where_scores_are_means_over_noise():
    options, aim = {"steps": 20}, {"objective": "margin", "source": "twin"}
    transfer = Member(name="transfer", attack="attacks.apgd:APGD", options=options, **aim)
    model, twin = NoisyInput(LINEAR, 0.02, 0.02), flat_linear()
    noisy = {"twin": twin, "randomness": Randomness.SAMPLE, "members": (MARGIN, transfer, QUERIES)}
    found = examined(model, LINEAR, n=8, **noisy)
    assert found.findings["black-box-beats-white-box"].evidence.startswith("transfer, ")
    assert "black-box-beats-white-box" not in found.red


def test_what_escalation_found_reaches_larger_budgets(rounded):
    found = rounded
    ranked, larger = found.after.budgets
    assert float(found.before.budgets[0].scores.mean()) > found.robust
    assert bool((larger.scores <= ranked.scores).all())
    assert any(name.startswith("escalation") for name in larger.found_by)
    change = (ranked.points - batch_for(LINEAR, images(32, shape=SHAPE)).inputs).abs()
    assert float(change.max()) <= 0.02 + 1e-6


def test_flags_that_must_be_declared_start_no_escalation():
    found = examined(Counting(ROUNDED), LINEAR, n=10)
    assert "stateful" in found.red
    assert found.escalation is None


def test_a_score_of_zero_needs_no_escalation():
    found = examined(nn.Sequential(Quantise(), LINEAR), LINEAR, eps=0.4, stages=("0",))
    assert found.robust == 0
    assert "zero-gradient" in found.red
    assert found.escalation is None


def test_an_escalation_that_raises_is_unfinished(monkeypatch):
    def fail(*arguments):
        raise MemoryError("too large")

    monkeypatch.setattr("attacks.soundness.escalation.all_views", fail)
    found = examined(ROUNDED, LINEAR)
    assert found.escalation.failure == "MemoryError: too large"


def test_a_failing_attack_makes_its_probe_red(monkeypatch):
    class Failing:
        def __init__(self, queries):
            raise RuntimeError("no queries here")

    monkeypatch.setattr("attacks.random_search.RandomSearch", Failing)
    found = examined(LINEAR, n=10)
    assert found.escalation is not None
    assert "noise: " in found.findings["noise-beats-gradient"].evidence
    assert "noise-beats-gradient" in found.red


def test_protocols_that_do_not_rank_are_not_examined():
    batch = batch_for(LINEAR, images(10, shape=SHAPE))
    access, protocol, facts = cell(LINEAR, batch)
    outcome = run_protocol(access, batch, protocol, facts)
    assert examine(access, batch, replace(protocol, ranks=False), facts, outcome) == (outcome, (), None)
    other = replace(facts, ranked_budget=linf(0.3))
    assert examine(access, batch, protocol, other, outcome) == (outcome, (), None)


@pytest.mark.parametrize(("model", "red"), [(LINEAR, False), (ROUNDED, True)], ids=["linear", "rounded"])
def test_a_number_of_pixels_is_probed_in_a_small_ball(model, red):
    batch = batch_for(LINEAR, images(10, shape=SHAPE))
    access, _, facts = cell(model, batch)
    member = Member(name="pgd0", attack="attacks.pgd_l0:PGD0", options={"steps": 5}, objective="margin")
    pixels = Budget(norm=Norm.L0, eps=1)
    protocol = replace(protocol_of(member, eps=(1,), norm=Norm.L0), ranks=True, ranked_budget=pixels)
    facts = replace(facts, ranked_budget=pixels)
    outcome = run_protocol(access, batch, protocol, facts)
    _, findings, _ = examine(access, batch, protocol, facts, outcome)
    assert {f.name: f.red for f in findings}["zero-gradient"] == red


@pytest.mark.parametrize("model", [ROUNDED, Counting(LINEAR), cnn(2)], ids=["rounded", "counting", "convolutions"])
def test_an_examination_leaves_no_trace(model):
    batch = batch_for(LINEAR, images(8, shape=SHAPE))
    access, protocol, facts = cell(model, batch)
    outcome = run_protocol(access, batch, protocol, facts)
    before, kept = copy.deepcopy(model.state_dict()), copy.deepcopy(outcome)
    attributes = [set(vars(module)) for module in model.modules()]
    random = torch.random.get_rng_state()
    examine(access, batch, protocol, facts, outcome)
    assert torch.equal(torch.random.get_rng_state(), random)
    assert all(torch.equal(values, before[name]) for name, values in model.state_dict().items())
    assert [set(vars(module)) for module in model.modules()] == attributes
    assert not any(module._forward_hooks for module in model.modules())
    assert torch.equal(outcome.budgets[0].scores, kept.budgets[0].scores)
    assert all(p.grad is None for p in model.parameters())


def test_a_broken_model_never_flags_the_next():
    first = examined(LINEAR, n=10)
    examined(ROUNDED, LINEAR, n=10)
    again = examined(LINEAR, n=10)
    assert again.findings == first.findings
    assert again.escalation is None


def test_the_same_seed_gives_the_same_findings_whatever_the_order():
    batch = batch_for(LINEAR, images(16, shape=SHAPE))
    order = torch.arange(15, -1, -1)
    found = []
    for samples in (batch, batch.take(order)):
        access, protocol, facts = cell(ROUNDED, samples)
        outcome = run_protocol(access, samples, protocol, facts)
        found.append(examine(access, samples, protocol, facts, outcome))
    (one, _, _), (other, _, _) = found
    assert torch.equal(one.budgets[0].scores, other.budgets[0].scores[order])
    assert {f.name for f in found[0][1] if f.red} == {f.name for f in found[1][1] if f.red}


def test_records_hold_what_was_found(rounded):
    found = rounded
    flags = flags_of(found.findings.values())
    assert {flag.name for flag in flags} == set(found.findings)
    kept = escalation_of(found.escalation, linf(0.02))
    assert kept.strongest == "BPDA"
    assert "BPDA" in kept.why and kept.budget == linf(0.02).card()
    assert [member.name for member in kept.members] == [m.member.name for m in found.escalation.members]
    assert escalation_of(None, linf(0.02)) is None
    probes = found.after.budgets[0].members[-1]
    assert (probes.member.name, probes.attempted) == ("probes", found.findings["zero-gradient"].values["n"])


def test_both_sides_of_the_record_know_the_same_rules():
    """`attacks` and `results` may not import each other."""
    assert soundness.UNDECLARED == verdict.UNDECLARED
    assert soundness.CERTAINLY_BROKEN == verdict.CERTAINLY_BROKEN
    assert ALL_COMPARED <= verdict.PROBES


@pytest.mark.slow
def test_black_box_breaks_are_compared_on_what_was_left():
    """A gradient attack that gets nothing from its gradient loses to Square on the samples that Square met."""
    weak = Member(name="apgd-margin", attack="attacks.apgd:APGD", options={"steps": 1}, objective="margin")
    strong = replace(QUERIES, options={"queries": 300})
    found = examined(ROUNDED, LINEAR, members=(weak, strong), n=60)
    assert "black-box-beats-white-box" in found.started_by
    assert "black-box-beats-white-box" not in found.red


@pytest.mark.parametrize(
    ("facts", "decided"),
    [
        (CellFacts(task="classification", n_classes=2), True),
        (CellFacts(task="classification", n_classes=14, multi_label=True), False),
        (CellFacts(task="segmentation", n_classes=3), False),
    ],
    ids=["one label", "several labels", "label maps"],
)
def test_decisions_are_asked_where_scores_are_decisions(facts, decided):
    """A Dice on one side of one value says nothing of how to lower it, and 2000 queries an image are dear."""
    escalator = Escalator.__new__(Escalator)
    escalator._objectives, escalator._main = ("margin",), SimpleNamespace(members=())
    escalator._cell = SimpleNamespace(facts=facts, protocol=SimpleNamespace(threat_model=ThreatModel()))
    names = [member.name for member in escalator._more_queries()]
    assert ("hop-skip-jump" in names) is decided and {"square", "finite-differences"} <= set(names)
