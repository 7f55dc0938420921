"""Whether what attacks ascend has to do with the decision: does the margin jump where the answer turns wrong, and does
its gradient tell what it does there?
"""

from __future__ import annotations

import copy
from dataclasses import replace

import torch
from torch import Tensor

from attacks.ball import ball_for
from attacks.draws import KeyedRandom
from attacks.objectives import objective_for
from attacks.soundness.decisions import decisions, has_many_decisions, one_decision
from attacks.soundness.finding import Finding
from attacks.soundness.gradient_probe import LIMITS, copy_of, delivered
from attacks.soundness.witness import witnesses
from attacks.victim import ModelVictim
from datasets.batch import Batch
from datasets.tasks.base import Outputs
from registry import ThreatModel, linf

HALVINGS = 24
"""Steps of the bisection: what float32 tells apart between two images."""
WINDOW = 0.25 / 255
"""How far beyond the place where the answer turns wrong the margin is read on both sides, in values of a pixel: a ramp
may be steep, and half a grey level is little of the way from one image to another."""
NEAR = 2 / 255
"""Samples whose answer turns wrong within it are left out: there an even slope, too, falls by much in the window."""
JUMP = 0.5
"""Change of the margin across the window, in units of the sample's own margin, that counts as a jump. An even slope
from the sample to its mirror image at the other side of the boundary changes it by less than 0.25."""
LIMIT = 0.1
"""Smallest share of samples whose margin jumps that is red. In 91 records of one label it is 0.08 or less where bits
are dropped, 0.06 or less in trained models, and 0.21 to 1 in six broken controls; others of these stay under 0.1."""
MANY_JUMP, MANY_LIMIT, MANY = 1.5, 0.3, 128
"""The same change and share, and how many are looked at, of pixels of label maps and of several labels. A pixel depends
on few values, so that dropped bits move its margin far: by more than 1.5 of itself for 0.11 of the pixels of a U-Net on
MSD Hippocampus behind 3 bits and 0.14 on generated images, for 0.24 or less in small networks, and for nearly all
behind another's margin."""
SLOPE = linf(1 / 255)
"""Ball of the steps along the gradient at the boundary. In 51 records of honest models a step of a quarter of it
gains 0.74 to 1.01 of what the gradient promises, a step of all of it 0.34 to 1.02."""
MOST = 64
"""Samples that are looked at."""
MOST_TOLD = 1e6
"""Largest median that is told; a record keeps no infinite number."""


def jump_finding(
    victim: ModelVictim,
    batch: Batch,
    rows: Tensor,
    outputs: Outputs,
    source: ModelVictim | None = None,
    *,
    slope: bool = True,
) -> Finding:
    """Bisects between each sample and an image whose answer is wrong for it, and compares the margin on both sides.

    A margin that follows the decision passes through zero there. Outputs that are constant but for the decided class,
    with a smooth function of something else on top, have an honest gradient that leads nowhere near a wrong answer; at
    the boundary they change by twice the sample's own margin, at once or on a ramp that is too steep to be met. Each
    sample is measured by itself, so that neither large logits elsewhere nor a class that nobody is hide it. On a gentle
    ramp nothing jumps; but its gradient at the boundary is not that of what lies on top. Random draws are held fixed.

    Args:
        victim: The defended model, unprepared.
        batch: All samples of the cell.
        rows: int64 (n,), the clean-correct ones. Of label maps and of several labels single decisions are looked at,
            see `decisions`.
        outputs: Outputs of the victim on all samples.
        source: Whose margin it is; the victim's by default.
        slope: Whether the margin has a gradient that claims to be its own, which is then followed at the boundary.
    """
    source = source or victim
    if has_many_decisions(victim.task):
        jump, limit = MANY_JUMP, MANY_LIMIT
        samples, other = decisions(victim.task, batch, rows, outputs, MANY)
        victim, source = one_decision(victim), one_decision(source)
    else:
        jump, limit, rows = JUMP, LIMIT, rows[:MOST]
        samples, other = batch.take(rows), witnesses(victim, batch, rows, outputs)
    if len(samples):
        samples, others = _pairs(victim, samples, batch.inputs, other)
    if len(samples):
        before, after = _sides(copy_of(victim, copy.deepcopy(victim.model)), samples, others)
        far = (before - samples.inputs).abs().flatten(1).amax(1) > NEAR
        samples, others, before, after = samples.take(far.nonzero()[:, 0]), others[far], before[far], after[far]
    if not len(samples):
        evidence = "no sample has another image whose answer is wrong for it, farther than 2/255 away"
        return Finding(name="jumping-margin", red=False, evidence=evidence, values={"share": 0.0, "n": 0.0})
    jumps = _jumps(copy_of(source, copy.deepcopy(source.model)), samples, others, before, after)
    share = float((~(jumps <= jump)).double().mean())  # NaN, too
    median = float(jumps.nan_to_num(MOST_TOLD).clamp(max=MOST_TOLD).median())
    finding = Finding(
        name="jumping-margin",
        red=share >= limit,
        evidence=f"where the answer turns wrong on the way to another image, {share:.0%} of {len(samples)} margins "
        f"jump by more than {jump:g} of themselves (limit {limit:.0%}; median {median:.2g})",
        values={"share": share, "jump": median, "n": float(len(samples))},
    )
    return _with_slope(finding, source, samples.with_inputs(before)) if slope else finding


def _with_slope(finding: Finding, source: ModelVictim, boundary: Batch) -> Finding:
    """Returns the finding, red too where a step along the gradient at the boundary does not do what it promises."""
    ball = ball_for(ThreatModel(), SLOPE, boundary.inputs)
    there = delivered(source, boundary, ball, "margin")
    return replace(
        finding,
        red=finding.red or there.red,
        evidence=f"{finding.evidence}; there, in a ball of {SLOPE.label}, {there.evidence} "
        f"({LIMITS['dishonest-gradient']})",
        values=finding.values | {f"boundary {name}": value for name, value in there.values.items()},
    )


def _pairs(victim: ModelVictim, samples: Batch, inputs: Tensor, other: Tensor) -> tuple[Batch, Tensor]:
    """Returns samples with an image whose answer is wrong for each; where the cell holds none, one that nobody took.

    Negatives, noise and even grey images may be answered otherwise where all images of a cell are of one class.

    Args:
        victim: The victim.
        samples: The samples in question.
        inputs: Images of all samples of the cell.
        other: int64 (n,), places of likely ones in the cell; -1 for none.
    """
    others = inputs[other.clamp(min=0)]
    found = (other >= 0) & _is_wrong(victim, samples, others)  # under the sample's own noise
    keys = KeyedRandom(seed=0, stream=1).keys(samples.sample_ids)
    noise = KeyedRandom.uniform(keys, samples.inputs.shape[1:]).to(samples.inputs)
    for made in (1 - samples.inputs, noise, *(torch.full_like(samples.inputs, level) for level in (0.0, 0.5, 1.0))):
        if bool(found.all()):
            break
        wrong = ~found & _is_wrong(victim, samples, made)
        others = torch.where(wrong.reshape(-1, *[1] * (others.ndim - 1)), made, others)
        found = found | wrong
    return samples.take(found.nonzero()[:, 0]), others[found]


def _is_wrong(victim: ModelVictim, samples: Batch, points: Tensor) -> Tensor:
    """Returns whether the answers at other points are wrong for the samples, bool (n,)."""
    outputs = victim.outputs(samples.with_inputs(points))
    return victim.task.score(victim.task.decode(outputs, samples), samples) < victim.task.fail_below


def _jumps(source: ModelVictim, samples: Batch, others: Tensor, before: Tensor, after: Tensor) -> Tensor:
    """Returns by how much of itself each sample's margin changes across the window around the boundary, (n,)."""
    step = others - samples.inputs
    step = WINDOW * step / step.abs().flatten(1).amax(1).clamp(min=1e-12).reshape(-1, *[1] * (step.ndim - 1))
    right, wrong = (before - step).clamp(0, 1), (after + step).clamp(0, 1)
    own = _margin(source, samples, samples.inputs).abs().clamp(min=1e-12)
    return (_margin(source, samples, wrong) - _margin(source, samples, right)).abs() / own


def _sides(victim: ModelVictim, samples: Batch, others: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the last right and the first wrong image on the way to the others, as near as float32 tells."""
    right, wrong = samples.inputs, others
    for _ in range(HALVINGS):
        middle = (right + wrong) / 2
        broken = _is_wrong(victim, samples, middle).reshape(-1, *[1] * (middle.ndim - 1))
        right, wrong = torch.where(broken, right, middle), torch.where(broken, middle, wrong)
    return right, wrong


def _margin(victim: ModelVictim, samples: Batch, points: Tensor) -> Tensor:
    objective, progress = objective_for(victim.task, "margin"), torch.zeros(len(samples), device=points.device)
    return victim.answer(samples.with_inputs(points), objective, progress, gradient=False).objective
