"""Whether a gradient vanishes, and whether it delivers what it promises."""

from __future__ import annotations

import copy
from dataclasses import replace

import torch
from torch import Tensor, nn

from attacks.ball import Ball
from attacks.draws import KeyedRandom
from attacks.objectives import objective_for
from attacks.soundness.answers import ULPS, distance, flattened, moved
from attacks.soundness.finding import Finding
from attacks.victim import Answer, ModelVictim, Objective
from datasets.batch import Batch
from datasets.tasks.base import Outputs

LARGEST_RATIO = 1e6
"""Beyond it a ratio of gains says no more, and a record keeps no infinite one."""
UNDERSTATED = 2.5
"""Gain of the shortest step, in units of the prediction, beyond which the gradient understates what is there."""
LIMITS = {
    "zero-gradient": "limit 10%",
    "dishonest-gradient": "red when all of one place are under 0.3, one is under 0.02, or that of eps/4 is over "
    f"{UNDERSTATED:g}",
}
"""What turns a flag red, for its evidence."""


def gradient_findings(
    source: ModelVictim,
    batch: Batch,
    ball: Ball,
    objective_name: str,
    *,
    backward: str = "true",
    judge: ModelVictim | None = None,
) -> list[Finding]:
    """Returns whether a gradient vanishes, and whether it delivers what it promises, at samples or inside their balls.

    Args:
        source: Whose gradient it is.
        batch: Clean-correct samples.
        ball: Balls of the ranked budget around them.
        objective_name: What the gradient is taken of.
        backward: "true", or "bpda": through stand-ins.
        judge: Who must gain; by default the source itself. Another model's gradient is read in units of its own
            median logit spread.
    """
    if says_the_same(judge or source, batch):
        evidence = "outputs are the same for all samples, their negatives and noise: nothing depends on the input"
        return [Finding(name=name, red=False, evidence=evidence) for name in ("zero-gradient", "dishonest-gradient")]
    probes = (
        _GradientProbe(source, place, ball, objective_name, backward, judge) for place in (batch, moved(batch, ball))
    )
    at_samples, inside = ((probe.zero_gradient(), probe.dishonest_gradient()) for probe in probes)
    return [_joined(*pair) for pair in zip(at_samples, inside, strict=True)]


def delivered(source: ModelVictim, batch: Batch, ball: Ball, objective_name: str) -> Finding:
    """Returns whether a gradient delivers what it promises at some points; as `gradient_findings` of one place."""
    return _GradientProbe(source, batch, ball, objective_name, "true", None).dishonest_gradient()


def _joined(at_samples: Finding, inside: Finding) -> Finding:
    """Returns one finding of two places, red where one of them is."""
    return replace(
        at_samples,
        red=at_samples.red or inside.red,
        evidence=f"{at_samples.evidence}; at one random point of each ball: {inside.evidence} "
        f"({LIMITS[at_samples.name]})",
        values=at_samples.values | {f"inside {name}": value for name, value in inside.values.items()},
    )


def says_the_same(victim: ModelVictim, batch: Batch) -> bool:
    """Returns whether outputs do not depend on the input at all: equal bits for samples, their negatives and noise."""
    copied = copy_of(victim, copy.deepcopy(victim.model))
    keys = KeyedRandom(seed=0, stream=0).keys(batch.sample_ids, torch.zeros_like(batch.sample_ids))
    noise = KeyedRandom(seed=0, stream=0).uniform(keys, batch.inputs.shape[1:])
    first = flattened(copied.outputs(batch))[:1]
    others = (batch.inputs, 1 - batch.inputs, noise.to(batch.inputs.dtype))
    return all(bool((flattened(copied.outputs(batch.with_inputs(points))) == first).all()) for points in others)


class _GradientProbe:
    """Compares what the gradient promises with what a step really gains, in float64 where the models allow it."""

    def __init__(self, source, batch: Batch, ball: Ball, objective_name: str, backward: str, judge) -> None:
        self._objective: Objective = objective_for(source.task, objective_name)
        self._ball, self._backward = ball, backward
        judge = judge or source
        own = judge is source
        self._understated = UNDERSTATED if own else LARGEST_RATIO  # another model's gradient has its own units
        stands = answers_in_float64(source, batch) and (own or answers_in_float64(judge, batch))
        if not (stands and self._takes_float64(source, judge, batch)):
            self._take_models(source, judge, batch, copy.deepcopy)
            self._precision = "float32"

    def _takes_float64(self, source: ModelVictim, judge: ModelVictim, batch: Batch) -> bool:
        try:
            self._take_models(source, judge, in_float64(batch), lambda model: copy.deepcopy(model).double())
        except torch.OutOfMemoryError:
            raise
        except RuntimeError:  # a model whose gradient insists on float32
            return False
        self._precision = "float64"
        return True

    def _take_models(self, source: ModelVictim, judge: ModelVictim, batch: Batch, copied) -> None:
        self._batch = batch
        self._source = copy_of(source, copied(source.model))
        self._judge = self._source if judge is source else copy_of(judge, copied(judge.model))
        self._answer = self._ask(self._source, batch.inputs, gradient=True)
        self._before = self._ask(self._judge, batch.inputs, gradient=False).objective
        self._spread = _spread(self._source.outputs(batch))
        self._scale = 1.0 if judge is source else _spread(self._judge.outputs(batch)) / max(self._spread, 1e-300)

    def zero_gradient(self) -> Finding:
        """Counts inputs whose gradient is exactly zero, not finite, or vanishes against the outputs' spread."""
        largest = self._answer.gradient.abs().flatten(1).amax(1)
        share = float((~(largest > 1e-6 * self._spread)).double().mean())
        return Finding(
            name="zero-gradient",
            red=share >= 0.10,
            evidence=f"{share:.1%} of {len(largest)} clean-correct inputs have no usable gradient",
            values={"share": share, "n": float(len(largest))},
        )

    def dishonest_gradient(self) -> Finding:
        """Compares real with predicted gain of one step of eps/4, eps/2 and eps in the steepest direction of the norm.

        Honest models that a step of eps carries far beyond their boundary are curved there: trained ones without any
        defense gain 0.3 of the prediction at eps, down to 0.06 behind a median filter, but 0.4 to 1.35 at eps/4.
        Rounding and ripples finer than eps/4 gain nothing at any length; ripples of the size of eps gain nothing, or
        lose, at eps. So the limit of 0.3 must be missed at every length, or next to nothing be gained at one of them.
        Steps from random points of the ball gain what those from samples do, within 0.1 for most trained models on
        phantom2 and 0.17 at most, so that both have one limit.

        A gradient that promises far less than the shortest step gains is that of outputs which saturate: what is left
        of it may point elsewhere. In 155 records of this suite a step of eps/4 gains 1.35 of the prediction or less,
        except for broken controls (up to 3.7 for distilled logits, far more for saturated ones).
        """
        ratios = {}
        for divisor in (4, 2, 1):
            step = self._ball.eps.to(self._batch.inputs.dtype) / divisor * self._ball.steepest(self._answer.gradient)
            stepped = (self._batch.inputs + step).clamp(0, 1)
            predicted = self._scale * (self._answer.gradient * (stepped - self._batch.inputs)).sum()
            gained = (self._ask(self._judge, stepped, gradient=False).objective - self._before).sum()
            ratio = (gained / predicted).nan_to_num().clamp(-LARGEST_RATIO, LARGEST_RATIO)  # NaN: nothing gained
            ratios[f"eps/{divisor}"] = float(ratio) if float(predicted) > 0 else 0.0
        lowest, highest = min(ratios.values()), max(ratios.values())
        listed = ", ".join(f"{name}: {value:.2f}" for name, value in ratios.items())
        return Finding(
            name="dishonest-gradient",
            red=not (highest >= 0.3 and lowest >= 0.02 and ratios["eps/4"] <= self._understated),
            evidence=f"real over predicted gain of one step, {self._precision}: {listed}",
            values=ratios,
        )

    def _ask(self, victim: ModelVictim, inputs: Tensor, *, gradient: bool) -> Answer:
        progress = torch.zeros(len(inputs), device=inputs.device)
        rows = self._batch.with_inputs(inputs)
        return victim.answer(rows, self._objective, progress, gradient=gradient, backward=self._backward)


def _spread(outputs: Outputs) -> float:
    values = flattened(outputs)
    return float((values.amax(1) - values.amin(1)).median())


def copy_of(victim: ModelVictim, model: nn.Module) -> ModelVictim:
    """Returns a victim of the same kind around another module, with draws and counts of its own."""
    return type(victim)(model, victim.task, slots=victim.slots, randomness=victim.randomness)


def answers_in_float64(victim: ModelVictim, batch: Batch) -> bool:
    """Returns whether a copy in float64 stands for the model: it runs, and its outputs are the same but for rounding.

    A model can tell in which precision it is asked. What rounds within may turn another way for some images; half of
    them must agree within 1 % of the median spread, or within what float32 resolves of their largest output.
    """
    try:
        finer = copy_of(victim, copy.deepcopy(victim.model).double()).outputs(in_float64(batch))
    except torch.OutOfMemoryError:  # says nothing of the model
        raise
    except RuntimeError:  # a model that insists on float32
        return False
    one, other = flattened(copy_of(victim, copy.deepcopy(victim.model)).outputs(batch)), flattened(finer)
    allowed = 0.01 * (one.amax(1) - one.amin(1)).median() + ULPS * torch.finfo(one.dtype).eps * one.abs().amax(1)
    return (
        one.shape == other.shape and float((distance(one.double(), other.double()) <= allowed).double().mean()) >= 0.5
    )


def in_float64(batch: Batch) -> Batch:
    """Returns a batch in float64."""
    context = None if batch.context is None else batch.context.double()
    return replace(batch, inputs=batch.inputs.double(), context=context)
