"""Probes of a defended model: does it keep state, hide randomness, or return gradients that do not tell the truth?

Every probe works on a copy of the model, so that one model never flags the next.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from attacks.ball import Ball
from attacks.log_probabilities import LogProbabilities, are_probabilities
from attacks.objectives import objective_for
from attacks.shell import modules_in_training_mode
from attacks.victim import Answer, ModelVictim, Objective
from datasets.batch import Batch
from datasets.tasks.base import Outputs, model_outputs
from registry import Randomness

AUDIT_SAMPLES = 256
"""Largest number of clean-correct samples that probes look at."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What one probe measured."""

    name: str
    red: bool
    evidence: str
    values: dict[str, float] = field(default_factory=dict)
    noted: bool = False
    """A note that holds: worth reading, without effect on the status."""


def audit(
    victim: ModelVictim, batch: Batch, clean_scores: Tensor, ball: Ball, objective_name: str
) -> tuple[Finding, ...]:
    """Returns the findings of all probes of a model; torch's global generators stay as they were.

    Args:
        victim: The defended model, unprepared.
        batch: The samples of the cell.
        clean_scores: (n,), scores of the originals; gradients are probed where they are clean-correct.
        ball: Balls of the ranked budget.
        objective_name: What the gradient is taken of; "margin" exists for labels and for label maps.
    """
    devices = [batch.inputs.device] if batch.inputs.is_cuda else []
    with torch.random.fork_rng(devices=devices):
        findings = _findings(victim, batch, clean_scores, ball, objective_name)
    return tuple(finding for finding in findings if finding is not None)


def _findings(
    victim: ModelVictim, batch: Batch, clean_scores: Tensor, ball: Ball, objective_name: str
) -> list[Finding | None]:
    correct = (clean_scores >= victim.task.fail_below).nonzero()[:AUDIT_SAMPLES, 0]
    some = batch.take(slice(0, victim.slots))
    findings = [_training_mode(victim.model), _declared_randomness(victim, some), _state(victim, some)]
    copied = _copy_of(victim, copy.deepcopy(victim.model))
    outputs = copied.outputs(batch.take(slice(0, AUDIT_SAMPLES)))
    if isinstance(outputs, Tensor):
        findings += [_probabilities(victim, outputs), _constant(copied, batch.take(slice(0, AUDIT_SAMPLES)))]
    if len(correct):
        findings += gradient_findings(victim, batch.take(correct), ball.take(correct), objective_name)
    return findings


def gradient_findings(
    source: ModelVictim,
    batch: Batch,
    ball: Ball,
    objective_name: str,
    *,
    backward: str = "true",
    judge: ModelVictim | None = None,
) -> list[Finding]:
    """Returns whether a gradient vanishes, and whether it delivers what it promises.

    Args:
        source: Whose gradient it is.
        batch: Clean-correct samples.
        ball: Balls of the ranked budget around them.
        objective_name: What the gradient is taken of.
        backward: "true", or "bpda": through stand-ins.
        judge: Who must gain; by default the source itself. Another model's gradient is read in units of its own
            median logit spread.
    """
    probe = _GradientProbe(source, batch, ball, objective_name, backward, judge)
    return [probe.zero_gradient(), probe.dishonest_gradient()]


def _training_mode(model: nn.Module) -> Finding:
    names = modules_in_training_mode(copy.deepcopy(model).eval()) + modules_in_training_mode(model)
    return Finding(
        name="train-mode",
        red=bool(names),
        evidence=f"{len(names)} submodules are in training mode after eval() ({', '.join(names[:3]) or 'none'})",
        values={"modules": float(len(names))},
    )


def _declared_randomness(victim: ModelVictim, some: Batch) -> Finding:
    """Compares two predictions of the same batch by the raw module, outside of any keyed noise."""
    model = copy.deepcopy(victim.model)
    with torch.no_grad():
        first, second = _flat(model_outputs(model, some)), _flat(model_outputs(model, some))
    difference = float((first - second).abs().max())
    declared = victim.randomness is not Randomness.NONE
    return Finding(
        name="stochastic-undeclared",
        red=difference > 0 and not declared,
        evidence=f"repeated predictions differ by {difference:.3g}; randomness is declared as {victim.randomness}",
        values={"difference": difference},
    )


def _state(victim: ModelVictim, some: Batch) -> Finding | None:
    """Compares a row alone, in a shuffled batch and in its place; looks for buffers that a forward pass changes."""
    if victim.randomness is not Randomness.NONE:
        return None
    difference, limit = _row_difference(copy.deepcopy(victim.model), some)
    shrunk = 0.0
    if difference > limit:  # rounding shrinks in float64, dependence on the batch does not
        shrunk = _row_difference(copy.deepcopy(victim.model).double(), _double(some))[0]
    changed = _changed_buffers(copy.deepcopy(victim.model), some)
    depends = difference > limit and shrunk > difference / 100
    buffers = f"buffers changed by a forward pass: {', '.join(changed[:3]) or 'none'}"
    return Finding(
        name="stateful",
        red=depends or bool(changed),
        evidence=f"a row's outputs differ by {difference:.3g} with its batch (limit {limit:.3g}); {buffers}",
        values={"difference": difference, "limit": limit, "buffers": float(len(changed))},
    )


def _row_difference(model: nn.Module, some: Batch) -> tuple[float, float]:
    order = torch.arange(len(some) - 1, -1, -1, device=some.inputs.device)
    with torch.no_grad():
        together = _flat(model_outputs(model, some))
        shuffled = _flat(model_outputs(model, some.take(order)))[order]
        singles = [some.take(slice(row, row + 1)) for row in range(min(4, len(some)))]
        alone = torch.cat([_flat(model_outputs(model, single)) for single in singles])
    difference = max(float((together - shuffled).abs().max()), float((together[: len(alone)] - alone).abs().max()))
    spread = float((together.amax(1) - together.amin(1)).median())
    return difference, max(1e-4 * spread, 1e-5 * float(together.abs().max()))


def _changed_buffers(model: nn.Module, some: Batch) -> tuple[str, ...]:
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    with torch.no_grad():
        model_outputs(model, some)
    return tuple(name for name, buffer in model.named_buffers() if not torch.equal(buffer, before[name]))


def _probabilities(victim: ModelVictim, outputs: Tensor) -> Finding:
    """A note: the model returns probabilities and is attacked through their logarithm."""
    found = isinstance(victim.model, LogProbabilities) or are_probabilities(outputs)
    text = "the model returns probabilities and was attacked through their logarithm" if found else "raw logits"
    values = {"probabilities": float(found)}
    return Finding(name="probabilities", red=False, noted=found, evidence=text, values=values)


def _constant(victim: ModelVictim, some: Batch) -> Finding:
    """A note: predictions that do not depend on the input."""
    predictions = victim.task.decode(victim.outputs(some), some)
    name = next(iter(predictions))
    values = predictions[name]
    same = bool((values == values[:1]).all())
    text = f"all {len(some)} predictions are the same" if same else "predictions differ between inputs"
    return Finding(name="constant", red=False, noted=same, evidence=text, values={"constant": float(same)})


class _GradientProbe:
    """Compares what the gradient promises with what a step really gains, in float64 where the models allow it."""

    def __init__(self, source, batch: Batch, ball: Ball, objective_name: str, backward: str, judge) -> None:
        self._objective: Objective = objective_for(source.task, objective_name)
        self._ball, self._backward = ball, backward
        judge = judge or source
        try:
            self._take_models(source, judge, _double(batch), lambda model: copy.deepcopy(model).double())
            self._precision = "float64"
        except RuntimeError:  # a model that insists on float32
            self._take_models(source, judge, batch, copy.deepcopy)
            self._precision = "float32"

    def _take_models(self, source: ModelVictim, judge: ModelVictim, batch: Batch, copied) -> None:
        self._batch = batch
        self._source = _copy_of(source, copied(source.model))
        self._judge = self._source if judge is source else _copy_of(judge, copied(judge.model))
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
            evidence=f"{share:.1%} of {len(largest)} clean-correct inputs have no usable gradient (limit 10%)",
            values={"share": share, "n": float(len(largest))},
        )

    def dishonest_gradient(self) -> Finding:
        """Compares real with predicted gain of one sign step of eps/4, eps/2 and eps."""
        ratios = {}
        for divisor in (4, 2, 1):
            step = self._ball.eps.to(self._batch.inputs.dtype) / divisor * self._answer.gradient.sign()
            moved = (self._batch.inputs + step).clamp(0, 1)
            predicted = self._scale * (self._answer.gradient * (moved - self._batch.inputs)).sum()
            gained = (self._ask(self._judge, moved, gradient=False).objective - self._before).sum()
            ratios[f"eps/{divisor}"] = float(gained / predicted) if float(predicted) > 0 else 0.0
        lowest = min(ratios.values())
        listed = ", ".join(f"{name}: {value:.2f}" for name, value in ratios.items())
        return Finding(
            name="dishonest-gradient",
            red=not lowest >= 0.3,
            evidence=f"real over predicted gain of one sign step, {self._precision}: {listed} (limit 0.3)",
            values=ratios,
        )

    def _ask(self, victim: ModelVictim, inputs: Tensor, *, gradient: bool) -> Answer:
        progress = torch.zeros(len(inputs), device=inputs.device)
        rows = self._batch.with_inputs(inputs)
        return victim.answer(rows, self._objective, progress, gradient=gradient, backward=self._backward)


def _spread(outputs: Outputs) -> float:
    flat = _flat(outputs)
    return float((flat.amax(1) - flat.amin(1)).median())


def _copy_of(victim: ModelVictim, model: nn.Module) -> ModelVictim:
    return ModelVictim(model, victim.task, slots=victim.slots, randomness=victim.randomness)


def _double(batch: Batch) -> Batch:
    context = None if batch.context is None else batch.context.double()
    return replace(batch, inputs=batch.inputs.double(), context=context)


def _flat(outputs: Outputs) -> Tensor:
    """Returns outputs as (N, values)."""
    tensor = torch.cat([o.flatten(1) for o in outputs.values()], 1) if isinstance(outputs, dict) else outputs
    return tensor.flatten(1)
