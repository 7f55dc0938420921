"""How far the engine is from its limits: bare time of the model, cost of a grid, memory, and the number of slots.

Run on demand, on a quiet machine: `python -m tox -e performance -- tests/performance/test_limits.py -s`.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import time

import pytest
import torch

from attacks.ball import ball_for
from attacks.draws import KeyedRandom
from attacks.engine import run_protocol
from attacks.standard_ensemble import members
from attacks.third_party import PublishedAutoAttack
from attacks.victim import Access, ModelVictim
from benchmark.access import access_to, slots_for
from datasets.batch import Batch
from registry import ROOT, Member, ThreatModel, linf
from tests.performance.models import attacked, fixed, number, protocol, report, right_at, subject

pytestmark = pytest.mark.slow
BUDGET = linf(8 / 255)
GRID = tuple(linf(level / 255) for level in (1, 2, 4, 8, 16, 32))
APGD = Member(name="apgd", attack="attacks.apgd:APGD", options={"steps": 40, "restarts": 2}, objective="margin")
SQUARE = Member(name="square", attack="attacks.square:Square", options={"queries": 300}, objective="margin")


def bare_seconds(model: torch.nn.Module, batch: Batch) -> tuple[float, float]:
    """Returns the CPU seconds of a sample's forward pass and of its input gradient, in batches of 128; best of 5."""
    inputs = batch.take(torch.arange(128) % len(batch)).inputs
    forward, gradient = [], []
    for _ in range(5):
        started = time.process_time()
        with torch.no_grad():
            model(inputs)
        forward.append(time.process_time() - started)
        started = time.process_time()
        leaf = inputs.clone().requires_grad_()
        torch.autograd.grad(model(leaf).sum(), leaf)
        gradient.append(time.process_time() - started)
    return min(forward) / len(inputs), min(gradient) / len(inputs)


@pytest.mark.parametrize("member", [APGD, SQUARE], ids=["apgd", "square"])
def test_the_engine_takes_little_more_than_its_model(member):
    model, batch = subject("Madry2018PGDAT", "breastmnist", 128)
    rules, started = protocol(fixed(member), (BUDGET,)), time.process_time()
    access, facts = access_to(model, batch, rules, slots=slots_for(batch.inputs), seed=0)
    prepared = time.process_time()
    done = run_protocol(access, batch, rules, facts).budgets[0].members[0]
    seconds = time.process_time() - prepared
    forward, gradient = bare_seconds(access.search.model, batch)
    bare = (done.forwards - done.backwards) * forward + done.backwards * gradient
    assert report(
        f"CPU time of the engine over that of the model's bare passes, {member.name}",
        f"Madry2018PGDAT on breastmnist, n {len(batch)}, {BUDGET.label}",
        seconds / bare,
        aim="1.25 or less",
        reached=seconds <= 1.25 * bare,
        detail=f"{seconds:.1f} s against {bare:.1f} s; once for each cell {prepared - started:.1f} s to prepare and "
        "probe the model",
    )


@pytest.mark.parametrize("defense", ["Undefended", "Madry2018PGDAT"])
def test_a_grid_costs_little_more_than_its_dearest_budget(defense):
    model, batch = subject(defense, "breastmnist", number("IMAGES", 32))
    outcome = attacked(model, batch, protocol(members, GRID))[1]
    spent = [sum(m.forwards + 2 * m.backwards for m in budget.members) for budget in outcome.budgets]
    assert report(
        "Passes of a grid of six budgets over those of its dearest",
        f"{defense} on breastmnist, n {len(batch)}, standard, Linf 1/255 to 32/255",
        sum(spent) / max(spent),
        aim="1.5 or less",
        reached=sum(spent) <= 1.5 * max(spent),
        detail=f"{sum(spent)} forward passes, a backward one counted as two",
    )


def test_slots_change_no_verdict():
    model, batch = subject("Madry2018PGDAT", "phantom4", number("IMAGES", 64))
    rules = protocol(fixed(APGD, SQUARE), (linf(4 / 255),))
    found = {n: attacked(model, batch, rules, slots=n)[1].budgets[0].scores for n in (1, 7, 64, 200)}
    changed = {n: int((scores != found[64]).sum()) for n, scores in found.items()}
    victim = ModelVictim(model.model, model.task)
    ball = ball_for(ThreatModel(), linf(4 / 255), batch.inputs)
    theirs = {}
    for size in (7, 64, 200):
        published = PublishedAutoAttack(attacks=("apgd-ce",), batch_size=size)
        points = published.run(Access(victim=victim, search=victim), batch, ball, KeyedRandom(seed=0))
        theirs[size] = right_at(model, batch, points)
    differ = {size: int((right != theirs[64]).sum()) for size, right in theirs.items()}
    allowed = max(1, len(batch) // 100)
    assert report(
        "Verdicts that other numbers of slots change",
        f"Madry2018PGDAT on phantom4, n {len(batch)}, Linf 4/255",
        sum(changed.values()),
        aim=f"{allowed} or less",
        reached=sum(changed.values()) <= allowed,
        detail=f"from those of 64 slots, by slots: {changed}; published APGD-CE, by batch size: {differ}",
    )


MEMORY = """
import sys
from tests.performance.test_limits import memory_of
print(memory_of(sys.argv[1]))
"""


def memory_of(what: str) -> int:
    """Returns the peak memory in kB of this process after 20 steps of the engine's APGD, or of a plain PGD loop."""
    model, batch = subject("Madry2018PGDAT", "breastmnist", 128)
    if what == "engine":
        member = Member(name="apgd", attack="attacks.apgd:APGD", options={"steps": 20}, objective="margin")
        attacked(model, batch, protocol(fixed(member), (BUDGET,)))
    else:
        points = batch.inputs.clone()
        for _ in range(20):
            leaf = points.detach().requires_grad_()
            loss = torch.nn.functional.cross_entropy(model.model(leaf), batch.targets["label"], reduction="sum")
            slope = torch.autograd.grad(loss, leaf)[0].sign()
            moved = (points + BUDGET.size / 4 * slope - batch.inputs).clamp(-BUDGET.size, BUDGET.size)
            points = (batch.inputs + moved).clamp(0, 1)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def test_memory_is_that_of_a_plain_loop():
    peaks = {}
    for what in ("engine", "loop"):
        command = [sys.executable, "-c", MEMORY, what]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        peaks[what] = int(done.stdout.split()[-1])
    ratio = peaks["engine"] / peaks["loop"]
    assert report(
        "Peak memory of the engine over that of a plain PGD loop",
        "Madry2018PGDAT on breastmnist, n 128, 20 steps",
        ratio,
        aim="1.3 or less",
        reached=ratio <= 1.3,
        detail=f"{peaks['engine'] / 1e3:.0f} MB against {peaks['loop'] / 1e3:.0f} MB, whole processes, libraries "
        "included",
    )
