"""Probes that see what earlier ones could not: models of two minds, noisy scores above one half, graded chains."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from attacks.candidates import Candidates
from attacks.ensemble_parts import through_stand_ins
from attacks.finite_differences import FiniteDifferences
from attacks.pgd_l0 import PGD0
from attacks.segmentation_members import segmentation_members
from attacks.shell import WorstCase
from attacks.soundness import comparisons, convergence
from attacks.soundness.audit import audit
from attacks.soundness.comparisons import Comparisons
from attacks.soundness.escalation import Escalator
from attacks.soundness.finding import Finding
from attacks.soundness.fresh import Cell
from attacks.soundness.views import first_view, objectives_of
from attacks.square import Square
from attacks.standard_ensemble import members
from attacks.standard_ensemble_l0 import members as l0_members
from attacks.standard_ensemble_l2 import members as l2_members
from benchmark.soundness_summary import with_lost
from registry import Budget, CellFacts, Member, Norm, Randomness
from tests.soundness_toys import MARGIN, SHAPE, cell, flat_linear
from tests.toys import NoisyInput, attack, batch_for, images, linear, protocol_of

LINEAR = flat_linear()


class TwoMinds(nn.Module):
    """Answers wrongly while a gradient is wanted: attacks stop at once, and the judge finds nothing broken."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        logits = self.net(inputs)
        if torch.is_grad_enabled():
            logits = logits - 100 * nn.functional.one_hot(logits.argmax(1), logits.shape[1])
        return logits


def state_of(model: nn.Module) -> Finding:
    batch = batch_for(LINEAR, images(16, shape=SHAPE))
    access, *_ = cell(model, batch)
    ball = SimpleNamespace(take=lambda rows: None)
    clean = torch.zeros(len(batch))  # no gradient is probed
    findings = audit(access.victim, batch, clean, ball, "margin")
    return next(finding for finding in findings if finding.name == "stateful")


def test_a_model_of_two_minds_is_red():
    assert state_of(TwoMinds(LINEAR)).red and not state_of(LINEAR).red


def test_adversarials_that_are_denied_when_they_are_stored_are_told():
    found = SimpleNamespace(clean_scores=torch.ones(40), budgets=(SimpleNamespace(scores=torch.zeros(40)),))
    findings = (Finding(name="stateful", red=False, evidence="nothing seen", values={}),)
    for denied, red in ((3, False), (4, True)):
        scores = torch.zeros(40)
        scores[:denied] = 1
        stored = SimpleNamespace(budgets=(SimpleNamespace(scores=scores),))
        (finding,) = with_lost(findings, found, stored)
        assert finding.red is red and ("4 of 40 adversarials were right again" in finding.evidence) is red


def test_label_maps_are_probed_by_what_auto_pgd_spends_most_on():
    facts = CellFacts(task="segmentation", n_classes=3, stages=("jpeg",), hidden_stages=("jpeg",))
    ensemble = members(facts, facts.ranked_budget)
    assert ensemble[0].name == "pgd-bpda" and objectives_of(facts, ensemble) == ("sharp-dice",)
    names = [member.name for member in ensemble]
    assert names[1:4] == ["apgd-dice-bpda", "apgd-sharp-dice-bpda", "apgd-js-bpda"]
    assert all(member.backward == "bpda" for member in ensemble[:4]) and len(set(names)) == len(names)
    assert [member.name for member in segmentation_members(True)] == ["apgd-dice", "apgd-sharp-dice", "apgd-js"]
    assert objectives_of(CellFacts(task="classification", n_classes=14, multi_label=True), ()) == (
        "margin",
        "cross-entropy",
    )


@pytest.mark.parametrize("randomness", [Randomness.NONE, Randomness.SAMPLE])
@pytest.mark.parametrize("n_classes", [2, 5])
def test_stages_that_hide_their_gradient_meet_targets_too(n_classes, randomness):
    facts = CellFacts(
        task="classification", n_classes=n_classes, stages=("s",), hidden_stages=("s",), randomness=randomness
    )
    kind = "apgd" if randomness is Randomness.NONE else "mim"
    wanted = [f"{kind}-bpda"] + ([f"{kind}-targeted-bpda"] if n_classes > 2 else [])
    for chosen in (members, l2_members):
        own = [member for member in chosen(facts, facts.ranked_budget) if member.backward == "bpda"]
        assert [member.name for member in own] == ["pgd-bpda", *wanted]
    assert [member.name for member in through_stand_ins(facts, 9, 2, 9, "margin")] == wanted


def test_few_pixels_meet_each_target_with_two_lengths_of_step():
    facts = CellFacts(task="classification", n_classes=5, stages=("s",), hidden_stages=("s",))
    ensemble = {member.name: member for member in l0_members(facts, Budget(norm=Norm.L0, eps=3))}
    for name in ("pgd0-targeted", "pgd0-targeted-bpda"):
        options = ensemble[name].options
        assert options["restarts"] == 2 * options["targets"] == 6
    assert ensemble["pgd0-bpda"].options["restarts"] == ensemble["pgd0"].options["restarts"] == 5
    assert ensemble["sparse-rs"].source == "exact"
    lengths = {}
    for restart in range(6):
        lengths[restart] = _first_length(restart, targets=3)
    assert lengths[0] == lengths[1] == lengths[2] == pytest.approx(3 * lengths[3], rel=1e-4)
    assert lengths[3] == lengths[4] == lengths[5]


def _first_length(restart: int, targets: int) -> float:
    """Returns the mean change of the first step before the projection."""
    inputs = images(1, shape=(1, 4, 4))
    ball = SimpleNamespace(
        support=None, eps=torch.full((1, 1), 16.0), norm=Norm.L0, project=lambda points: points, originals=inputs
    )
    rows = SimpleNamespace(
        ball=ball, step=torch.tensor([1]), restart=torch.tensor([restart]), memory={}, done=torch.tensor([False])
    )
    answer = SimpleNamespace(gradient=torch.ones_like(inputs))
    PGD0(steps=5, restarts=6, targets=targets).tell(rows, SimpleNamespace(points=inputs), answer)
    return float((rows.memory["point"] - inputs).mean())


def noisy_cell(n: int = 12):
    model = NoisyInput(LINEAR, 0.02, 0.02)
    batch = batch_for(LINEAR, images(n, shape=SHAPE))
    access, protocol, facts = cell(model, batch, randomness=Randomness.SAMPLE)
    where = Cell(batch=batch, protocol=protocol, facts=facts, budget=facts.ranked_budget)
    return access, facts, where


def test_noisy_scores_above_one_half_are_compared(monkeypatch):
    """Gradients leave every sample at 0.98, random points take all to 0.6: nothing crosses 0.5, and yet one fails."""
    access, facts, where = noisy_cell()
    rows = torch.arange(12)
    score = {"noise": 0.6, "square": 0.97}
    ran: list[list[str]] = []

    def run(cell_, access_, places, ensemble, **options):
        ran.append([member.name for member in ensemble])
        value = score.get(ensemble[0].name, 0.98)
        scores = torch.full((len(places),), value)
        return SimpleNamespace(scores=scores, broken=scores < 0.5, errors="", members=())

    monkeypatch.setattr(comparisons, "run_fresh", run)
    found = Comparisons(where, first_view(access, facts), ("margin",), rows)
    assert found.noise_beats_gradient().red
    square = Member(name="square", attack="attacks.square:Square", options={"queries": 5000}, objective="margin")
    later = Member(name="later", attack="attacks.finite_differences:FiniteDifferences", options={"iterations": 9})
    elsewhere = Member(name="escalation, view: bare", attack="attacks.apgd:APGD", options={"steps": 5}, source="bare")
    tried = (MARGIN, square, later, square, elsewhere, elsewhere)  # what an escalation tried is no member of its own
    main = SimpleNamespace(members=[SimpleNamespace(member=member) for member in tried])
    assert not found.black_box(main).red
    assert ran[-1] == ["square"]
    score["square"] = 0.7
    assert found.black_box(main).red


@pytest.mark.parametrize(("graded", "noisy"), [(False, False), (True, False), (False, True)])
def test_more_effort_begins_where_a_chain_of_runs_ended(monkeypatch, graded, noisy):
    access, facts, where = noisy_cell()
    facts = replace(facts, multi_label=graded, randomness=Randomness.SAMPLE if noisy else Randomness.NONE)
    where = replace(where, facts=facts)
    points = where.batch.inputs + 0.01
    main = SimpleNamespace(points=points, scores=torch.full((12,), 0.9), members=())
    fresh = SimpleNamespace(scores=torch.ones(12), points=points, errors="", broken=torch.zeros(12, dtype=torch.bool))
    seen = {}

    def run(cell_, access_, places, ensemble, *, starts=None, **options):
        seen["starts"] = starts
        return fresh

    monkeypatch.setattr(convergence, "run_fresh", run)
    monkeypatch.setattr(convergence, "worse", lambda *arguments: torch.zeros(12, dtype=torch.bool))
    convergence.not_converged(where, first_view(access, facts), ("margin",), torch.arange(12), main, fresh, 0)
    assert (seen["starts"] is None) is not (graded or noisy)
    if graded or noisy:
        assert torch.equal(seen["starts"], points)


def test_a_rounded_copy_is_not_what_probes_search():
    access, facts, _ = noisy_cell()
    for randomness in Randomness:
        view = first_view(access, replace(facts, randomness=randomness))
        assert view.source == "exact"
        assert not view.transfers
    assert first_view(access, replace(facts, task="segmentation")).source == "victim"  # graded scores


def test_no_query_of_square_is_spent_on_the_point_it_has():
    model = linear(2, shape=(1, 6, 6))
    batch, idle = batch_for(model, images(8, shape=(1, 6, 6))), []
    ask = Square.ask

    def watched(self, rows, rng):
        query = ask(self, rows, rng)
        same = (query.points == rows.memory["best_point"]).flatten(1).all(1)
        idle.extend(same[rows.step > 0].tolist())
        return query

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Square, "ask", watched)
        member = Member(name="square", attack="attacks.square:Square", options={"queries": 80}, objective="margin")
        attack(model, batch, protocol_of(member, eps=(0.01,)))
    assert len(idle) > 200 and not any(idle)


@pytest.mark.parametrize("norm", [Norm.LINF, Norm.L2])
def test_differences_stay_near_the_point_and_the_last_point_is_asked(norm):
    model = linear(2, shape=(1, 8, 8))
    batch, asked = batch_for(model, images(4, shape=(1, 8, 8))), []
    ask = FiniteDifferences.ask

    def watched(self, rows, rng):
        query = ask(self, rows, rng)
        away = (query.points - rows.memory["point"]).flatten(1)
        size = away.abs().amax(1) if norm is Norm.LINF else away.norm(dim=1)
        asked.append((rows.step[0].item(), float((size / rows.ball.eps.flatten()).max())))
        return query

    options = {"iterations": 2, "pairs": 3}
    member = Member(
        name="differences", attack="attacks.finite_differences:FiniteDifferences", options=options, objective="margin"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FiniteDifferences, "ask", watched)
        attack(model, batch, protocol_of(member, eps=(0.004,), norm=norm))
    assert FiniteDifferences(**options).steps == 15
    at = dict(asked)
    assert at[0] == at[7] == at[14] == 0 and max(at.values()) <= 0.5 + 1e-4
    assert at[1] == pytest.approx(0.5, rel=1e-3)


def test_the_best_point_of_a_noisy_search_is_judged_beside_its_luckiest():
    model = NoisyInput(LINEAR, 0.02, 0.02)
    batch = batch_for(LINEAR, images(4, shape=SHAPE))
    access, _, _ = cell(model, batch, randomness=Randomness.SAMPLE)
    worst = WorstCase(batch.inputs, torch.ones(4), -1.0)
    candidates = Candidates(
        judge=access.victim, scorer=access.search, batch=batch, worst=worst, member=0, error_samples=set()
    )
    rows = SimpleNamespace(
        begin=batch.inputs,
        step=torch.ones(4, dtype=torch.int64),
        done=torch.zeros(4, dtype=torch.bool),
        sample=torch.arange(4),
        restart=torch.zeros(4, dtype=torch.int64),
        memory={"best_point": batch.inputs + 0.02},
    )
    candidates.begin(rows)
    rows.candidate |= {"point": batch.inputs + 0.01, "new": torch.ones(4, dtype=torch.bool)}
    candidates.leave(rows, torch.ones(4, dtype=torch.bool))
    handed = torch.cat([points for _, points, *_ in candidates._waiting])
    assert len(handed) == 8 and torch.equal(handed[4:], batch.inputs + 0.02)


@pytest.mark.parametrize(("fall", "met"), [(0.0, [64]), (0.004, [64]), (0.02, [64, 136]), (0.5, [64, 136])])
def test_a_rung_meets_graded_survivors_in_two_parts(fall, met):
    """200 survivors of 200: a row is unsettled from 3 samples on, a third of it is 1: 0.005 each."""
    inputs = images(200, shape=SHAPE)
    batch = batch_for(LINEAR, inputs)
    ledger = SimpleNamespace(scores=torch.full((200,), 0.8))
    ledger.mean = lambda: batch.mean(ledger.scores)
    own = Escalator.__new__(Escalator)
    own._cell = SimpleNamespace(batch=batch, facts=CellFacts(task="segmentation", n_classes=2))
    own._ledger, seen = ledger, []

    def run(name, access, rows, members, starts):
        seen.append(len(rows))
        assert torch.equal(starts, inputs[rows])
        ledger.scores[rows] -= fall

    own._run = run
    own._climb_rung("long run", None, torch.arange(200), (), inputs)
    assert seen == met
    own._cell.facts, seen[:] = CellFacts(task="classification", n_classes=2), []
    own._climb_rung("long run", None, torch.arange(200), (), inputs)
    assert seen == [200]
