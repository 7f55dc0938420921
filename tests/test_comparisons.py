"""The parts of an examination: the rule of comparison, hidden paths to a gradient, witnesses, baselines, effort."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from scipy.stats import binomtest
from torch import nn

from attacks.engine import run_protocol
from attacks.finite_differences import FiniteDifferences
from attacks.random_search import RandomSearch
from attacks.soundness.comparisons import Comparison, black_boxes, compare
from attacks.soundness.convergence import below_constant, noisy_gradient, unbounded_survivors
from attacks.soundness.fresh import Cell, audit_rows, run_fresh
from attacks.soundness.ledger import Ledger
from attacks.soundness.views import View, first_view
from attacks.soundness.witness import witnesses
from datasets.batch import Batch
from datasets.tasks.segmentation import Segmentation
from registry import Member, Randomness
from tests.soundness_toys import SHAPE, RippledInOne, cell, flat_linear
from tests.toys import Detached, Linear, NoisyInput, attack, batch_for, images, linear, protocol_of

LINEAR = flat_linear()


@pytest.mark.parametrize(
    ("b", "c", "n", "red"),
    [
        (6, 0, 100, False),  # p = 1/64
        (7, 0, 100, True),
        (7, 1, 100, False),
        (10, 1, 100, True),
        (7, 0, 1000, False),  # under 1 %
        (30, 20, 100, False),
        (40, 15, 256, True),
        (0, 0, 0, False),
    ],
)
def test_rule_of_comparison(b, c, n, red):
    found = Comparison(unexpected=b, expected=c, n=n)
    assert found.red is red
    if b + c:
        assert found.p_value == pytest.approx(binomtest(b, b + c, alternative="greater").pvalue)
    finding = found.finding("not-monotone", "text", least=b + 1)
    assert not finding.red and finding.values["b"] == b
    assert found.finding("not-monotone", "text", errors="x: 1 errors").red


def test_compare_counts_what_only_one_side_broke():
    one, other = torch.tensor([1, 1, 1, 0, 0]).bool(), torch.tensor([1, 0, 0, 1, 0]).bool()
    assert compare(one, other, 9) == Comparison(unexpected=2, expected=1, n=9)


def test_a_witness_gets_a_wrong_answer():
    batch = batch_for(LINEAR, images(30, shape=SHAPE), wrong=3)
    access, _, _ = cell(LINEAR, batch)
    rows = torch.arange(3, 30)
    outputs = access.victim.outputs(batch)
    found = witnesses(access.victim, batch, rows, outputs)
    assert (found >= 0).all()
    assert (outputs.argmax(1)[found] != batch.targets["label"][rows]).all()


def test_a_constant_model_has_no_witness():
    constant = Linear(torch.zeros(2, 64))
    batch = batch_for(LINEAR, images(12, shape=SHAPE))
    access, _, _ = cell(constant, batch)
    rows = (batch.targets["label"] == 0).nonzero()[:, 0]
    assert (witnesses(access.victim, batch, rows, access.victim.outputs(batch)) == -1).all()


def test_a_label_map_has_a_witness():
    inputs = images(6, shape=SHAPE)
    with torch.no_grad():
        mask = torch.stack([torch.full((8, 8), k % 3) for k in range(6)])
        outputs = 9.0 * nn.functional.one_hot(mask, 3).movedim(-1, 1)
    batch = Batch(sample_ids=torch.arange(6), inputs=inputs, targets={"mask": mask})

    class Known:
        task, randomness = Segmentation(3), Randomness.NONE

        def answer(self, rows, objective, progress, *, gradient, draws=None):
            class Scores:
                score = torch.zeros(len(rows))

            return Scores()

    found = witnesses(Known(), batch, torch.tensor([1, 2]), outputs)
    assert (mask[found, 0, 0] != torch.tensor([1, 2])).all()


def test_the_audit_set_does_not_depend_on_order():
    batch = batch_for(LINEAR, images(20, shape=SHAPE))
    clean = (torch.arange(20) % 3 > 0).float()
    order = torch.randperm(20, generator=torch.Generator().manual_seed(0))
    rows = audit_rows(batch, clean, 0.5, 7)
    other = audit_rows(batch.take(order), clean[order], 0.5, 7)
    assert len(rows) == 7 and (clean[rows] == 1).all()
    assert set(batch.sample_ids[rows].tolist()) == set(batch.sample_ids[order][other].tolist())


def test_members_without_the_judged_gradient_are_told_by_source_and_knowledge():
    members = (
        Member(name="apgd", attack="attacks.apgd:APGD", options={"steps": 2}),
        Member(name="fab", attack="attacks.fab:FAB", options={"steps": 2}, source="exact"),
        Member(name="transfer", attack="attacks.apgd:APGD", options={"steps": 2}, source="twin"),
        Member(name="square", attack="attacks.square:Square", options={"queries": 2}),
    )
    assert black_boxes(members, "victim") == {"transfer", "square"}
    assert black_boxes(members, "twin") == {"square"}


def _member(name, **options):
    return Member(name="x", attack=f"attacks.{name}", options=options, objective="margin")


def test_random_search_loses_against_a_gradient_but_finds_something():
    batch = batch_for(LINEAR, images(60, shape=SHAPE))
    noise = attack(LINEAR, batch, protocol_of(_member("random_search:RandomSearch", queries=50), eps=(0.05,)))
    pgd = attack(LINEAR, batch, protocol_of(_member("gradient:PGD", steps=20), eps=(0.05,)))
    assert 0 < float((noise.budgets[0].scores == 0).sum()) < float((pgd.budgets[0].scores == 0).sum())
    assert RandomSearch(queries=3).steps == 3


def test_finite_differences_follow_a_gradient_that_is_hidden():
    """On a detached model, whose gradient is zero, values alone lead where the true gradient of the model leads."""
    batch = batch_for(LINEAR, images(24, shape=SHAPE))
    member = _member("finite_differences:FiniteDifferences", iterations=12, pairs=24)
    known = attack(LINEAR, batch, protocol_of(_member("gradient:PGD", steps=20), eps=(0.04,)), slots=24)
    blind = attack(Detached(LINEAR), batch, protocol_of(_member("gradient:PGD", steps=20), eps=(0.04,)), slots=24)
    found = attack(Detached(LINEAR), batch, protocol_of(member, eps=(0.04,)), slots=24)
    broken = [int((outcome.budgets[0].scores == 0).sum()) for outcome in (blind, found, known)]
    assert broken[0] < broken[1] and broken[1] >= broken[2] - 4
    attack_ = FiniteDifferences(iterations=2, pairs=3)
    assert attack_.steps == 15


def test_an_estimate_is_exact_where_the_objective_is_linear():
    """With as many pairs as pixels the mean of differences along signs is the gradient, up to its noise."""
    model = linear(2, shape=(1, 2, 2))
    batch = batch_for(model, images(4, shape=(1, 2, 2)))
    member = _member("finite_differences:FiniteDifferences", iterations=1, pairs=64, step_size=1.0)
    found = attack(model, batch, protocol_of(member, eps=(0.01,))).budgets[0]
    slope = model.weight[1] - model.weight[0]
    side = torch.where(batch.targets["label"] == 0, 1.0, -1.0)
    expected = batch.inputs + 0.01 * (side[:, None] * slope.sign()).reshape(4, 1, 2, 2).detach()
    moved = (found.points != batch.inputs).flatten(1).any(1)
    assert torch.allclose(found.points[moved], expected[moved])


def _cell_of(model, batch, **options) -> tuple[Cell, View]:
    access, protocol, facts = cell(model, batch, **options)
    return Cell(batch=batch, protocol=protocol, facts=facts, budget=facts.ranked_budget), first_view(access, facts)


def test_starting_points_are_moved_into_the_ball():
    batch = batch_for(LINEAR, images(12, shape=SHAPE))
    where, view = _cell_of(LINEAR, batch)
    rows = torch.arange(4, 12)
    member = _member("gradient:PGD", steps=1, step_size=0.0)
    run = run_fresh(where, view.access, rows, (member,), salt=0, starts=torch.ones(8, *SHAPE))
    projected = (batch.inputs[rows] + 0.02).clamp(max=1)
    moved = (run.points != batch.inputs[rows]).flatten(1).any(1)
    assert torch.allclose(run.points[moved], projected[moved])
    broken = LINEAR(projected).argmax(1) != batch.targets["label"][rows]
    assert torch.equal(run.broken, broken)


def test_fresh_runs_with_another_salt_draw_other_numbers():
    batch = batch_for(LINEAR, images(20, shape=SHAPE))
    where, view = _cell_of(LINEAR, batch, eps=0.1)
    member = _member("random_search:RandomSearch", queries=3)
    points = [run_fresh(where, view.access, torch.arange(20), (member,), salt=k).points for k in (0, 0, 1)]
    assert torch.equal(points[0], points[1])
    assert not torch.equal(points[0], points[2])


def test_a_ledger_keeps_the_lower_score_and_counts_it():
    batch = batch_for(LINEAR, images(20, shape=SHAPE))
    access, protocol, facts = cell(LINEAR, batch, members=(_member("random_search:RandomSearch", queries=2),))
    outcome = run_protocol(access, batch, protocol, facts)
    where = Cell(batch=batch, protocol=protocol, facts=facts, budget=facts.ranked_budget)
    ledger = Ledger(where, access.victim, outcome.budgets[0])
    alive = ledger.alive
    run = run_fresh(where, access, alive, (_member("gradient:PGD", steps=20),), salt=0)
    ledger.take(alive, run, "later")
    assert ledger.later[0].broken == int(run.broken.sum()) > 0
    assert torch.equal(ledger.scores[alive], run.scores)
    after = ledger.write(outcome, ledger.later, 20)
    assert "later" in after.budgets[0].found_by and "later" in after.budgets[1].found_by
    assert after.budgets[0].members[-1].broken == ledger.later[0].broken
    assert "later" not in outcome.budgets[0].found_by


@pytest.mark.parametrize(("model", "red"), [(LINEAR, False), (Detached(LINEAR), True)], ids=["honest", "detached"])
def test_unbounded_survivors(model, red):
    batch = batch_for(LINEAR, images(20, shape=SHAPE))
    where, view = _cell_of(model, batch)
    rows = torch.arange(20)
    fresh = run_fresh(where, view.access, rows, (_member("gradient:PGD", steps=1),), salt=0)
    outputs = view.access.victim.outputs(batch)
    nothing = replace(fresh, broken=torch.zeros_like(fresh.broken))
    found = unbounded_survivors(where, view, ("margin",), rows, nothing, outputs, 0)
    assert found.red is red
    assert (found.values["n"], found.values["left"]) == (20, 20)
    most = replace(fresh, broken=rows > 0)  # a sample that broke at the ranked budget is broken at eps = 1
    found = unbounded_survivors(where, view, ("margin",), rows, most, outputs, 0)
    assert not found.red
    assert (found.values["n"], found.values["left"]) == (20, 1)


def test_noise_of_a_gradient_is_noted_and_answered_with_draws():
    batch = batch_for(LINEAR, images(8, shape=SHAPE))
    rows = torch.arange(8)
    assert noisy_gradient(*_cell_of(LINEAR, batch), "margin", rows) is None
    calm = NoisyInput(LINEAR, 0.02, 0.0)
    draws, note = noisy_gradient(*_cell_of(calm, batch, randomness=Randomness.SAMPLE), "margin", rows)
    assert (draws, note.noted, note.red) == (1, False, False)
    rippled = NoisyInput(RippledInOne(LINEAR), 0.05, 0.0)
    draws, note = noisy_gradient(*_cell_of(rippled, batch, randomness=Randomness.SAMPLE), "margin", rows)
    assert draws > 1 and note.noted and not note.red
    assert note.values["cosine"] < 0.5


def test_below_constant_is_a_note():
    batch = batch_for(LINEAR, images(40, shape=SHAPE))
    where, _ = _cell_of(LINEAR, batch)
    line = float(batch.targets["label"].bincount().max()) / 40
    low = below_constant(where, torch.zeros(40))
    assert low.noted and not low.red and low.values["constant_predictor"] == pytest.approx(line)
    assert not below_constant(where, torch.ones(40)).noted
