"""Our APGD-CE against the published one on the same model, images and budget; the shell's cost over a bare loop.

Run on demand, on a quiet machine: `python -m tox -e performance -- tests/performance/test_engine.py -s`.
"""

from __future__ import annotations

import time

import pytest
import torch

from attacks.apgd import APGD
from attacks.ball import Ball, ball_for
from attacks.draws import KeyedRandom
from attacks.loop import Search, run_search
from attacks.objectives import objective_for
from attacks.shell import WorstCase
from attacks.stepped import Rows
from attacks.third_party import PublishedAutoAttack
from attacks.victim import Access, Answer, ModelVictim
from datasets.batch import Batch
from datasets.locate import data_root
from datasets.tasks.base import task_for
from defenses.build import defended_model
from registry import DATASETS, DEFENSES, ThreatModel, linf, load_entries
from registry.errors import DataError

pytestmark = pytest.mark.slow
EPS = 4 / 255
STEPS = 100


def subject(defense: str, n: int = 200) -> tuple[ModelVictim, Batch]:
    """Returns a committed model and its first correctly classified test images."""
    load_entries()
    for name in ("pneumoniamnist", "phantom2"):
        try:
            dataset = DATASETS[name].load(data_root(None))
            break
        except DataError:
            continue
    model, _ = defended_model(DEFENSES[defense], dataset.spec, 0, None)
    victim = ModelVictim(model, task_for(dataset.spec))
    batch = dataset.splits["test"].all()
    right = (victim.outputs(batch).argmax(1) == batch.targets["label"]).nonzero()[:n, 0]
    return victim, batch.take(right)


def survivors(victim: ModelVictim, batch: Batch, points: torch.Tensor) -> torch.Tensor:
    """Returns which samples are still right at the points."""
    return victim.outputs(batch.with_inputs(points)).argmax(1) == batch.targets["label"]


def our_search(victim: ModelVictim, batch: Batch, ball: Ball, stop_at: float) -> WorstCase:
    """Runs our APGD-CE through the loop and the shell."""
    worst = WorstCase(batch.inputs, torch.ones(len(batch)), stop_at)
    search = Search(
        attack=APGD(steps=STEPS),
        objective=objective_for(victim.task, "cross-entropy"),
        source=victim,
        scorer=victim,
        judge=victim,
        batch=batch,
        ball=ball,
        clean_outputs=None,
        worst=worst,
        rng=KeyedRandom(seed=0),
    )
    run_search(search, torch.arange(len(batch)))
    return worst


@pytest.mark.parametrize("defense", ["Undefended", "Madry2018PGDAT"])
def test_apgd_ce_is_as_strong_as_the_published_one(defense):
    victim, batch = subject(defense)
    ball = ball_for(ThreatModel(), linf(EPS), batch.inputs)
    worst = our_search(victim, batch, ball, stop_at=0.0)
    ours = worst.scores > 0
    access = Access(victim=victim, search=victim)
    theirs = survivors(
        victim, batch, PublishedAutoAttack(attacks=("apgd-ce",)).run(access, batch, ball, KeyedRandom(seed=0))
    )
    print(f"\n{defense}: {int(ours.sum())} survive ours, {int(theirs.sum())} theirs, of {len(batch)};", end=" ")
    print(f"{int((ours != theirs).sum())} verdicts differ")
    assert int(ours.sum()) <= int(theirs.sum()) + len(batch) / 200
    assert abs(int(ours.sum()) - int(theirs.sum())) <= max(1, len(batch) / 200)


def test_the_shell_costs_less_than_five_percent():
    victim, batch = subject("Madry2018PGDAT", n=32)
    ball = ball_for(ThreatModel(), linf(EPS), batch.inputs)
    ratios = []
    for _ in range(5):
        started = time.process_time()
        our_search(victim, batch, ball, stop_at=-1.0)  # nobody leaves early: both do the same steps
        engine = time.process_time() - started
        started = time.process_time()
        bare_loop(victim, batch, ball)
        ratios.append(engine / (time.process_time() - started))
    print(f"\nengine over bare loop: {sorted(ratios)[2]:.3f} (median of 5; {min(ratios):.3f} to {max(ratios):.3f})")
    assert sorted(ratios)[2] < 1.05


def bare_loop(victim: ModelVictim, batch: Batch, ball: Ball) -> None:
    """Runs the same steps on the same model with nothing around them."""
    attack, rng, objective = APGD(steps=STEPS), KeyedRandom(seed=0), objective_for(victim.task, "cross-entropy")
    zeros = torch.zeros(len(batch), dtype=torch.int64)
    rows = Rows(
        batch=batch,
        ball=ball,
        begin=batch.inputs,
        restart=zeros,
        sample=torch.arange(len(batch)),
        step=zeros,
        done=zeros > 0,
    )
    attack.start(rows, rng)
    progress = torch.zeros(len(batch))
    while not rows.done.all():
        query = attack.ask(rows, rng)
        inputs = query.points.detach().requires_grad_()
        outputs = victim.model(inputs)
        value = objective(outputs, batch, progress)
        gradient = torch.autograd.grad(value.sum(), inputs)[0]
        right = (outputs.argmax(1) == batch.targets["label"]).to(torch.float32)
        rows.step = rows.step + 1
        attack.tell(rows, query, Answer(value.detach(), right, gradient))
