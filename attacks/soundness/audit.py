"""Probes of a defended model: does it keep state, hide randomness, or return gradients that do not tell the truth?

Every probe works on a copy of the model, so that one model never flags the next.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import nullcontext

import torch
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

from attacks.ball import Ball
from attacks.draws import KeyedNoise, KeyedRandom
from attacks.log_probabilities import LogProbabilities, are_probabilities
from attacks.shell import modules_in_training_mode
from attacks.soundness.finding import Finding
from attacks.soundness.gradient_probe import copy_of, flattened, gradient_findings, in_float64
from attacks.victim import ModelVictim
from datasets.batch import Batch
from datasets.tasks.base import model_outputs
from registry import Randomness

AUDIT_SAMPLES = 256
"""Largest number of clean-correct samples that probes look at."""


def audit(
    victim: ModelVictim,
    batch: Batch,
    clean_scores: Tensor,
    ball: Ball,
    objective_name: str,
    *,
    backward: str = "true",
) -> tuple[Finding, ...]:
    """Returns the findings of all probes of a model; torch's global generators stay as they were.

    Args:
        victim: The defended model, unprepared.
        batch: The samples of the cell.
        clean_scores: (n,), scores of the originals; gradients are probed where they are clean-correct.
        ball: Balls of the ranked budget.
        objective_name: What the gradient is taken of; "margin" exists for labels and for label maps.
        backward: Which gradient is judged: "true", or "bpda", through stand-ins.
    """
    devices = [batch.inputs.device] if batch.inputs.is_cuda else []
    with torch.random.fork_rng(devices=devices):
        findings = _findings(victim, batch, clean_scores, ball, objective_name, backward)
    return tuple(finding for finding in findings if finding is not None)


def _findings(
    victim: ModelVictim, batch: Batch, clean_scores: Tensor, ball: Ball, objective_name: str, backward: str
) -> list[Finding | None]:
    correct = (clean_scores >= victim.task.fail_below).nonzero()[:AUDIT_SAMPLES, 0]
    some = batch.take(slice(0, victim.slots))
    findings = [_training_mode(victim), _declared_randomness(victim, some), _state(victim, some)]
    copied = copy_of(victim, copy.deepcopy(victim.model))
    outputs = copied.outputs(batch.take(slice(0, AUDIT_SAMPLES)))
    if isinstance(outputs, Tensor):
        findings += [_probabilities(victim, outputs), _constant(copied, batch.take(slice(0, AUDIT_SAMPLES)))]
    if len(correct):
        rows = batch.take(correct)
        findings += gradient_findings(victim, rows, ball.take(correct), objective_name, backward=backward)
    return findings


def _training_mode(victim: ModelVictim) -> Finding:
    """Looks for modules that stay in training mode; dropout may, as noise that is declared."""
    model = victim.model
    names = modules_in_training_mode(copy.deepcopy(model).eval()) + modules_in_training_mode(model)
    if victim.randomness is not Randomness.NONE:
        modules = dict(model.named_modules())
        names = tuple(name for name in names if not isinstance(modules.get(name), _DropoutNd))
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
        first, second = flattened(model_outputs(model, some)), flattened(model_outputs(model, some))
    difference = float((first - second).abs().max())
    declared = victim.randomness is not Randomness.NONE
    return Finding(
        name="stochastic-undeclared",
        red=difference > 0 and not declared,
        evidence=f"repeated predictions differ by {difference:.3g}; randomness is declared as {victim.randomness}",
        values={"difference": difference},
    )


def _state(victim: ModelVictim, some: Batch) -> Finding:
    """Compares a row alone, in a shuffled batch, and while a gradient is wanted, with the row in its place.

    Looks for tensors that a forward pass changes, too. Noise of a sample's own is the same in all places, and of noise
    for the whole model all places see one draw.
    """
    shrunk = 0.0
    difference, limit = _row_difference(victim, copy.deepcopy(victim.model), some)
    if difference > limit:  # rounding shrinks in float64, dependence on the batch does not
        shrunk = _row_difference(victim, copy.deepcopy(victim.model).double(), in_float64(some))[0]
    changed = _changed_tensors(copy.deepcopy(victim.model), some)
    depends = difference > limit and shrunk > difference / 100
    buffers = f"buffers or parameters changed by a forward pass: {', '.join(changed[:3]) or 'none'}"
    return Finding(
        name="stateful",
        red=depends or bool(changed),
        evidence=f"a row's outputs differ by {difference:.3g} with its batch, or while a gradient is wanted (limit "
        f"{limit:.3g}); {buffers}",
        values={"difference": difference, "limit": limit, "buffers": float(len(changed))},
    )


def _row_difference(victim: ModelVictim, model: nn.Module, some: Batch) -> tuple[float, float]:
    def outputs(batch: Batch) -> Tensor:
        keyed = victim.randomness is Randomness.SAMPLE
        if victim.randomness is Randomness.MODEL:
            torch.manual_seed(0)  # within the fork of `audit`
        with KeyedNoise(KeyedRandom(seed=0).keys(batch.sample_ids)) if keyed else nullcontext():
            return flattened(model_outputs(model, batch))

    order = torch.arange(len(some) - 1, -1, -1, device=some.inputs.device)
    with torch.no_grad():
        together, shuffled = outputs(some), outputs(some.take(order))[order]
        alone = torch.cat([outputs(some.take(slice(row, row + 1))) for row in range(min(4, len(some)))])
    others = [together - shuffled, together[: len(alone)] - alone, together - _while_wanted(outputs, some, together)]
    difference = max(float(other.abs().max()) for other in others)
    spread = float((together.amax(1) - together.amin(1)).median())
    return difference, max(1e-4 * spread, 1e-5 * float(together.abs().max()))


def _while_wanted(outputs: Callable[[Batch], Tensor], some: Batch, otherwise: Tensor) -> Tensor:
    """Returns the outputs while a gradient is wanted; where the model then raises, its attacks will say so."""
    with torch.enable_grad():
        try:
            return outputs(some.with_inputs(some.inputs.detach().requires_grad_().clone())).detach()
        except torch.OutOfMemoryError:  # says nothing of the model
            raise
        except RuntimeError:
            return otherwise


def _changed_tensors(model: nn.Module, some: Batch) -> tuple[str, ...]:
    def tensors() -> dict[str, Tensor]:
        return {**dict(model.named_buffers()), **dict(model.named_parameters())}

    before = {name: tensor.detach().clone() for name, tensor in tensors().items()}
    with torch.no_grad():
        model_outputs(model, some)
    return tuple(name for name, tensor in tensors().items() if not torch.equal(tensor, before[name]))


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
