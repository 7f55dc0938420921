"""Probes of effort: does more of it still lower the score, and does an attack without bounds reach the truth?"""

from __future__ import annotations

from dataclasses import replace

import torch
from scipy.stats import binomtest
from torch import Tensor

from attacks.engine import BudgetOutcome
from attacks.objectives import objective_for
from attacks.soundness.comparisons import RESTARTS, STEPS
from attacks.soundness.finding import Finding
from attacks.soundness.fresh import Cell, FreshRun, knowledge_of, run_fresh, worse
from attacks.soundness.views import View
from attacks.soundness.witness import witnesses
from attacks.victim import Draws
from datasets.batch import Batch
from datasets.tasks.base import Task
from registry import CellFacts, Knowledge, Member, Need, Norm, Randomness, linf, settling_limit
from registry.threat_model import EVERYTHING

WALKS = (0.025, 0.1)
"""Step sizes of the walks from the original at eps = 1, before APGD begins at random."""
AGREEING = 0.5
"""Cosine of two independent EOT gradients under which they are noise."""
MOST_DRAWS = 16
"""Draws of a gradient up to which noise is answered with more draws."""


def largest_option(main: BudgetOutcome, name: str, default: int) -> int:
    """Returns the largest value of an option among the gradient attacks of a run, e.g. of "steps".

    Whatever model's gradient they follow, the defense's own or one through which a view transfers; what searches only
    the features that a defense lives on is no view.
    """
    values = [
        int(m.member.options[name])
        for m in main.members
        if name in m.member.options
        and m.member.source != Need.MECHANISM
        and knowledge_of(m.member) is Knowledge.WHITE_BOX
    ]
    return max(values, default=default)


def continues(facts: CellFacts) -> bool:
    """Returns whether a longer run begins at the worst case: graded scores and those of noise came from many runs, each
    from the worst point of the one before, so that a single run from scratch is less effort and no more."""
    return facts.graded or facts.randomness is not Randomness.NONE


def not_converged(
    cell: Cell, view: View, objectives: tuple[str, ...], rows: Tensor, main: BudgetOutcome, fresh: FreshRun, salt: int
) -> tuple[Finding, list[tuple[Tensor, FreshRun]]]:
    """Doubles the effort on what the main run left: fresh restarts, then a run of twice the steps and draws.

    Twice the steps of the longest gradient attack so far, the long run of an escalation among them.

    Args:
        cell: The evaluated cell.
        view: The gradient that is judged.
        objectives: What the gradient attacks ascend.
        rows: int64 (n,), the audit set.
        main: What has been found at the ranked budget so far.
        fresh: The fresh restarts on the audit set, which the comparisons use as well.
        salt: Number that keeps the draws of two examinations apart.

    Returns:
        The finding, red where the score falls by more than max(3 samples, 0.5 points), and the run behind it with the
        places of its samples. The fall is taken over all samples of the cell; graded scores: the sum of what they lose.
    """
    victim, batch = view.access.victim, cell.batch
    points, scores = main.points.clone(), main.scores.clone()
    steps = 2 * largest_option(main, "steps", STEPS)
    double = replace(view, eot_samples=2 * view.eot_samples) if victim.randomness is not Randomness.NONE else view
    lowered = [_take_worse(victim, batch, points, scores, rows, fresh)]
    left = (scores > victim.task.stop_at).nonzero()[:, 0]
    errors, runs = [fresh.errors], []
    if len(left):
        members = double.members(cell.facts, objectives, steps, 1)
        starts = points[left] if continues(cell.facts) else None
        run = run_fresh(cell, view.access, left, members, salt=100 * salt + 5, starts=starts)
        errors.append(run.errors)
        runs.append((left, run))
        lowered.append(_take_worse(victim, batch, points, scores, left, run))
    limit, total = settling_limit(len(batch)), sum(lowered)
    draws = f" and {double.eot_samples} draws a gradient" if double.eot_samples > 1 else ""
    failed = "; ".join(filter(None, errors))
    finding = Finding(
        name="not-converged",
        red=total > limit or bool(failed),
        evidence=f"{RESTARTS} more restarts of {STEPS} steps on {len(rows)} samples and one run of {steps} steps"
        f"{draws} ({view.name}) on all {len(left)} that were left lowered the score by {total:.4g} of {len(batch)} "
        f"samples (limit {limit:.4g})" + (f"; {failed}" if failed else ""),
        values={"lowered": total, "limit": limit, "n": float(len(batch)), "steps": float(steps)},
    )
    return finding, runs


def _take_worse(victim, batch: Batch, points: Tensor, scores: Tensor, rows: Tensor, run: FreshRun) -> float:
    """Writes a run's worse candidates over the known ones of its rows; returns by how many samples the score fell."""
    chosen = worse(victim, batch.take(rows), (points[rows], scores[rows]), (run.points, run.scores))
    places, weights = rows[chosen], batch.weights
    falls = scores[places] - run.scores[chosen]
    fall = float((falls if weights is None else falls * (weights / weights.mean())[places]).sum())
    points[places], scores[places] = run.points[chosen], run.scores[chosen]
    return max(fall, 0.0)


def unbounded_survivors(
    cell: Cell, view: View, objectives: tuple[str, ...], rows: Tensor, fresh: FreshRun, clean_outputs, salt: int
) -> Finding | None:
    """Attacks without bounds: at Linf eps = 1 every image lies in the ball, so the truth is 0.

    A sample is eligible where some image of the cell gets an answer that is wrong for it: that image is a witness. The
    gradient attack does not get to see it; that it finds no such image by itself is the finding. What it found at the
    ranked budget lies in the larger ball, too: a trained model can be flat far from its data, where steps at eps = 1
    are lost, and hides nothing by that.

    Args:
        cell: The evaluated cell.
        view: The gradient that is judged.
        objectives: What the gradient attacks ascend.
        rows: int64 (n,), the audit set.
        fresh: The fresh restarts on it at the ranked budget.
        clean_outputs: Outputs of the victim on all samples of the cell.
        salt: Number that keeps the draws of two examinations apart.
    """
    threat_model = cell.protocol.threat_model
    if threat_model.norm is not Norm.LINF or threat_model.support != EVERYTHING:
        return None
    found = witnesses(view.access.victim, cell.batch, rows, clean_outputs)
    eligible, left = rows[found >= 0], rows[(found >= 0) & ~fresh.broken]
    if not len(eligible):
        text = "no image of the data set gets an answer that is wrong for another: nothing to ask"
        return Finding(name="unbounded-survivors", red=False, evidence=text, values={"n": 0.0})
    survivors, errors = 0, ""
    if len(left):
        walks = tuple(_walk(view, objectives[0], step_size) for step_size in WALKS)
        members = (*walks, *view.members(cell.facts, objectives, STEPS, 1))
        run = run_fresh(cell, view.access, left, members, salt=100 * salt + 6, budget=linf(1.0))
        survivors, errors = int((~run.broken).sum()), run.errors
    share = survivors / len(eligible)
    return Finding(
        name="unbounded-survivors",
        red=share > 0.05,
        evidence=f"{share:.1%} of {len(eligible)} eligible samples survive the fresh restarts at {cell.budget.label} "
        f"and, at Linf eps = 1, where the truth is 0, {len(WALKS)} runs of PGD and one of APGD, {STEPS} steps each "
        f"({view.name}; limit 5%)" + (f"; {errors}" if errors else ""),
        values={"share": share, "n": float(len(eligible)), "left": float(len(left))},
    )


def _walk(view: View, objective: str, step_size: float) -> Member:
    """Returns PGD that leaves the original in small steps: at eps = 1 a random start is an image of noise."""
    options: dict[str, object] = {"steps": STEPS, "step_size": step_size, "random_start": False}
    if view.eot_samples > 1:
        options["eot_samples"] = view.eot_samples
    return Member(
        name=f"walk-{step_size}",
        attack="attacks.gradient:PGD",
        options=options,
        objective=objective,
        source=view.source,
        backward=view.backward,
    )


def noisy_gradient(cell: Cell, view: View, objective: str, rows: Tensor) -> tuple[int, Finding] | None:
    """A note on stochastic models: do two independent EOT gradients agree? Returns the draws that they need, too.

    The draws are doubled until the mean cosine reaches 0.5, up to 16; fresh gradient attacks then use as many.
    """
    source = view.gradient_of
    if view.access.victim.randomness is Randomness.NONE:
        return None
    some = cell.batch.take(rows[:64])
    task: Task = view.access.victim.task
    progress = torch.zeros(len(some), device=some.inputs.device)
    ascend = objective_for(task, objective)
    if hasattr(ascend, "aim"):
        some = ascend.aim(source.outputs(some), some, torch.zeros_like(some.sample_ids))

    def gradient(first: int, count: int) -> Tensor:
        draws = Draws(torch.full_like(some.sample_ids, first), count)
        answer = source.answer(some, ascend, progress, gradient=True, backward=view.backward, draws=draws)
        return answer.gradient.flatten(1)

    count, first_cosine = view.eot_samples, None
    while True:
        cosine = float(torch.cosine_similarity(gradient(1 << 42, count), gradient(1 << 43, count), dim=1).mean())
        first_cosine = cosine if first_cosine is None else first_cosine
        if cosine >= AGREEING or count >= MOST_DRAWS:
            break
        count *= 2
    text = f"two independent gradients of {view.eot_samples} draws have a mean cosine of {first_cosine:.3f}"
    if count > view.eot_samples:
        text += f"; of {count} draws, which the probes use, {cosine:.3f}"
    values = {"cosine": first_cosine, "draws": float(count), "cosine_used": cosine}
    noted = first_cosine < AGREEING
    return count, Finding(name="noisy-gradient", red=False, noted=noted, evidence=f"{text} (limit 0.5)", values=values)


def below_constant(cell: Cell, scores: Tensor) -> Finding | None:
    """A note on classification: does the interval of the robust score lie under always answering one class?"""
    label = cell.batch.targets.get("label")
    if label is None or not len(label):
        return None
    line = float(label.bincount().max()) / len(label)
    right = int((scores >= 0.5).sum())
    high = float(binomtest(right, len(label)).proportion_ci(method="wilson").high)
    return Finding(
        name="below-constant",
        red=False,
        noted=high < line,
        evidence=f"the interval of the robust score ends at {high:.1%}, always answering one class scores {line:.1%}",
        values={"high": high, "constant_predictor": line},
    )
