"""Whether what attacks ascend has to do with the decision: how far the margin jumps where the answer turns wrong."""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from attacks.objectives import objective_for
from attacks.soundness.answers import flattened
from attacks.soundness.finding import Finding
from attacks.soundness.gradient_probe import copy_of
from attacks.soundness.witness import witnesses
from attacks.victim import ModelVictim
from datasets.batch import Batch
from datasets.tasks.base import Outputs

HALVINGS = 24
"""Steps of the bisection: what float32 tells apart between two images."""
LIMIT = 0.3
"""Largest median jump, in units of the median spread of the outputs, that is not red. Of 48 models of this suite, on
48 images of BreastMNIST each, it is at most 0.07 where bits are dropped, 0.04 behind JPEG, 0.02 in controls that round,
and else under 1e-4."""
MOST = 64
"""Samples that are looked at."""


def jump_finding(
    victim: ModelVictim, batch: Batch, rows: Tensor, outputs: Outputs, source: ModelVictim | None = None
) -> Finding:
    """Bisects between each sample and an image whose answer is wrong for it, and compares the margin on both sides.

    A margin that follows the decision passes through zero there. Outputs that are constant but for the decided class,
    with a smooth function of something else on top, have an honest gradient that leads nowhere near a wrong answer; at
    the boundary they jump by twice their spread. Random draws are held fixed.

    Args:
        victim: The defended model, unprepared.
        batch: All samples of the cell, each with one label.
        rows: int64 (n,), the clean-correct ones.
        outputs: Outputs of the victim on all samples.
        source: Whose margin it is; the victim's by default.
    """
    rows = rows[:MOST]
    other = witnesses(victim, batch, rows, outputs)
    rows, other = rows[other >= 0], other[other >= 0]
    if not len(rows):
        return Finding(name="jumping-margin", red=False, evidence="no sample has a witness", values={"n": 0.0})
    samples = batch.take(rows)
    before, after = _sides(copy_of(victim, copy.deepcopy(victim.model)), samples, batch.inputs[other])
    source = source or victim
    copied = copy_of(source, copy.deepcopy(source.model))
    spread = flattened(copied.outputs(samples))
    spread = (spread.amax(1) - spread.amin(1)).median().clamp(min=1e-12)
    jump = float(((_margin(copied, samples, after) - _margin(copied, samples, before)).abs() / spread).median())
    return Finding(
        name="jumping-margin",
        red=not jump <= LIMIT,  # NaN, too
        evidence=f"where the answer turns wrong on the way to another image the margin jumps by {jump:.2g} of the "
        f"outputs' spread (median of {len(rows)}; limit {LIMIT:g})",
        values={"jump": jump, "n": float(len(rows))},
    )


def _sides(victim: ModelVictim, samples: Batch, others: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the last right and the first wrong image on the way to the others, as near as float32 tells."""
    right, wrong = samples.inputs, others
    for _ in range(HALVINGS):
        middle = (right + wrong) / 2
        scores = victim.task.score(victim.task.decode(victim.outputs(samples.with_inputs(middle)), samples), samples)
        broken = (scores < victim.task.fail_below).reshape(-1, *[1] * (middle.ndim - 1))
        right, wrong = torch.where(broken, right, middle), torch.where(broken, middle, wrong)
    return right, wrong


def _margin(victim: ModelVictim, samples: Batch, points: Tensor) -> Tensor:
    objective, progress = objective_for(victim.task, "margin"), torch.zeros(len(samples), device=points.device)
    return victim.answer(samples.with_inputs(points), objective, progress, gradient=False).objective
