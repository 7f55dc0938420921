"""The engine against the published AutoAttack: the same model, images, members and budgets, in the same run.

Run on demand: `python -m tox -e performance -- tests/performance/test_speed.py -s`. Times are CPU seconds of this
process, since a busy machine stretches wall time; the load is printed. The third column searches the model itself
instead of its prepared copy, which tells the engine's part from the copy's.
"""

from __future__ import annotations

import os
import time

import pytest
import torch

from attacks.ball import ball_for
from attacks.draws import KeyedRandom
from attacks.engine import run_protocol
from attacks.third_party import PublishedAutoAttack
from attacks.victim import Access, ModelVictim
from benchmark.access import Subject, access_to, slots_for
from datasets.batch import Batch
from registry import Member, ThreatModel, linf
from tests.performance.models import fixed, number, protocol, report, subject

pytestmark = pytest.mark.slow
BUDGET = linf(4 / 255)
IMAGES = number("IMAGES", 100)
DATASET = os.environ.get("MEDROBUST_SPEED_DATASET", "pneumoniamnist")
GOALS = {"Undefended": 6.0, "Madry2018PGDAT": 3.0}


def members(n_classes: int) -> tuple[Member, ...]:
    """Returns the members of the published ensemble that exist for the number of classes, with its budgets."""
    square = Member(name="square", attack="attacks.square:Square", options={"queries": 5000}, objective="margin")
    first = Member(name="apgd-ce", attack="attacks.apgd:APGD", options={"steps": 100})
    if n_classes == 2:
        fab = Member(name="fab", attack="attacks.fab:FAB", options={"steps": 100}, objective="margin", source="exact")
        return (first, fab, square)
    targets = min(9, n_classes - 1)
    options = {"steps": 100, "restarts": targets}
    apgd = Member(name="apgd-t", attack="attacks.apgd:APGD", options=options, objective="targeted-margin")
    options = {"steps": 100, "targets": targets}
    fab = Member(name="fab-t", attack="attacks.fab:FAB", options=options, objective="targeted-margin", source="exact")
    return (first, apgd, fab, square)


def ours(model: Subject, batch: Batch, *, prepared: bool) -> tuple[torch.Tensor, float, ModelVictim]:
    """Returns the verdicts of the engine, its CPU seconds and the victim that holds the counts."""
    ensemble = members(model.spec.n_classes)
    rules = protocol(fixed(*ensemble), (BUDGET,))
    started = time.process_time()
    access, facts = access_to(model, batch, rules, slots=slots_for(batch.inputs), seed=0)
    if not prepared:
        access = Access(victim=access.victim, search=access.victim)
    outcome = run_protocol(access, batch, rules, facts).budgets[0]
    seconds = time.process_time() - started
    for member in outcome.members:
        counts = f"{member.attempted} attempted, {member.broken} broken, {member.forwards} forwards"
        print(f"    {member.member.name}: {counts}, {member.backwards} backwards, {member.seconds:.1f} s wall")
    return outcome.scores > 0, seconds, access.victim


def theirs(model: Subject, batch: Batch) -> tuple[torch.Tensor, float, ModelVictim]:
    """Returns the verdicts of the published code, its CPU seconds and the victim that holds the counts."""
    victim = ModelVictim(model.model, model.task, slots=128)
    names = ("apgd-ce", "fab", "square") if model.spec.n_classes == 2 else ("apgd-ce", "apgd-t", "fab-t", "square")
    ball = ball_for(ThreatModel(), BUDGET, batch.inputs)
    attack, started = PublishedAutoAttack(attacks=names), time.process_time()
    points = attack.run(Access(victim=victim, search=victim), batch, ball, KeyedRandom(seed=0))
    seconds = time.process_time() - started
    judge = ModelVictim(model.model, model.task, slots=128)
    right = judge.outputs(batch.with_inputs(points)).argmax(1) == batch.targets["label"]
    return right, seconds, victim


@pytest.mark.parametrize("defense", GOALS)
def test_the_engine_is_faster_and_no_weaker(defense):
    model, batch = subject(defense, DATASET, IMAGES)
    print(f"\n{defense} on {len(batch)} images of {DATASET}, {BUDGET.label}, load {os.getloadavg()[0]:.1f}")
    results = {
        "engine": ours(model, batch, prepared=True),
        "engine on the model itself": ours(model, batch, prepared=False),
        "pyautoattack": theirs(model, batch),
    }
    for name, (right, seconds, victim) in results.items():
        counts = f"{victim.spent.forwards} forwards, {victim.spent.backwards} backwards"
        print(f"  {name}: {int(right.sum())} survive, {seconds:.1f} s CPU, {counts}")
    ratio = results["pyautoattack"][1] / results["engine"][1]
    own = results["pyautoattack"][1] / results["engine on the model itself"][1]
    mine, other = int(results["engine"][0].sum()), int(results["pyautoattack"][0].sum())
    fast = report(
        "Times faster than pyautoattack, its members and budgets",
        f"{defense} on {DATASET}, n {len(batch)}, {BUDGET.label}",
        ratio,
        aim=f"{GOALS[defense]:g} or more",
        reached=ratio >= GOALS[defense],
        detail=f"{results['engine'][1]:.0f} s against {results['pyautoattack'][1]:.0f} s; {own:.2g} times without the "
        f"prepared copy; {mine} survive the engine, {other} pyautoattack",
    )
    assert mine <= other + len(batch) / 200
    assert fast
