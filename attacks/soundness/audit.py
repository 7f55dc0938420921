"""Probes of a defended model: does it keep state, hide randomness, or return gradients that do not tell the truth?

Every probe works on a copy of the model, so that one model never flags the next. Those of state, randomness and
gradients ask at the samples, and once more at one random point of each sample's ball.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

from attacks.ball import Ball
from attacks.draws import KeyedRandom
from attacks.log_probabilities import LogProbabilities, are_probabilities
from attacks.queries import Draws
from attacks.shell import modules_in_training_mode
from attacks.soundness.answers import distance, flattened, places
from attacks.soundness.finding import Finding
from attacks.soundness.gradient_probe import copy_of, gradient_findings, says_the_same
from attacks.soundness.state import state_finding
from attacks.victim import ModelVictim
from datasets.batch import Batch
from datasets.tasks.base import model_outputs
from registry import Randomness

AUDIT_SAMPLES = 256
"""Largest number of clean-correct samples that probes look at."""
MOVE, TORN = 1e-5, 0.05
"""By how much values move where nothing should change, and change of outputs, in units of their spread, that counts."""
DRAWS = 4
"""Draws of declared randomness of which one must differ from the others."""


def audit(
    victim: ModelVictim,
    batch: Batch,
    clean_scores: Tensor,
    ball: Ball,
    objective_name: str,
    *,
    backward: str = "true",
    untouched: nn.Module | None = None,
    original: nn.Module | None = None,
) -> tuple[Finding, ...]:
    """Returns the findings of all probes of a model; torch's global generators stay as they were.

    Args:
        victim: The defended model, unprepared.
        batch: The samples of the cell.
        clean_scores: (n,), scores of the originals; gradients are probed where they are clean-correct.
        ball: Balls of the ranked budget.
        objective_name: What the gradient is taken of; "margin" exists for labels and for label maps.
        backward: Which gradient is judged: "true", or "bpda", through stand-ins.
        untouched: A copy of the model from before its first answer, see `untouched_copy`; None where there is none.
        original: The model itself, of which the victim's is a copy; None where that is not here.
    """
    devices = [batch.inputs.device] if batch.inputs.is_cuda else []
    with torch.random.fork_rng(devices=devices):
        return tuple(_findings(victim, batch, clean_scores, ball, objective_name, backward, untouched, original))


def _findings(
    victim: ModelVictim,
    batch: Batch,
    clean_scores: Tensor,
    ball: Ball,
    objective_name: str,
    backward: str,
    untouched: nn.Module | None,
    original: nn.Module | None,
) -> list[Finding]:
    correct = (clean_scores >= victim.task.fail_below).nonzero()[:AUDIT_SAMPLES, 0]
    first = slice(0, AUDIT_SAMPLES)
    where = places(batch.take(first), ball.take(first))
    findings = [_training_mode(victim), _declared_randomness(victim, where)]
    findings.append(state_finding(victim, where, untouched, original))
    copied = copy_of(victim, copy.deepcopy(victim.model))
    outputs = copied.outputs(where[0])
    findings.append(discontinuity(copied, where[0]))
    if isinstance(outputs, Tensor):
        findings += [_probabilities(victim, outputs), _constant(copied, where[0])]
    if len(correct):
        rows = batch.take(correct)
        findings += gradient_findings(victim, rows, ball.take(correct), objective_name, backward=backward)
    return findings


def discontinuity(victim: ModelVictim, some: Batch) -> Finding:
    """Looks whether outputs change when each value of a stored image moves by less than anybody can see or store.

    Stored images lie on multiples of 1/255, and where attacks end does not: a model that answers otherwise off the
    grid is attacked there and judged there, and nobody asks what it says of images as people have them.
    """
    keys = KeyedRandom(seed=0, stream=3).keys(some.sample_ids)
    noise = (KeyedRandom.uniform(keys, some.inputs.shape[1:]) * 2 - 1).to(some.inputs)
    outputs = flattened(victim.outputs(some))
    spread = (outputs.amax(1) - outputs.amin(1)).median()
    apart = distance(outputs, flattened(victim.outputs(some.with_inputs((some.inputs + MOVE * noise).clamp(0, 1)))))
    share = float((apart > TORN * spread).double().mean())
    return Finding(
        name="discontinuous",
        red=share >= 0.1,
        evidence=f"outputs of {share:.0%} of {len(some)} samples change by over {TORN:.0%} of the median spread where "
        f"every value moves by up to {MOVE:g} (limit 10%)",
        values={"share": share, "n": float(len(some))},
    )


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


def _declared_randomness(victim: ModelVictim, where: tuple[Batch, ...]) -> Finding:
    """Compares two predictions of the same batch by the raw module, outside of any keyed noise.

    Where randomness is declared, it also looks whether the evaluation's draws differ at all: declared noise makes
    comparisons of attacks wait for clear gaps, which a deterministic model must not profit from.
    """
    model, difference = copy.deepcopy(victim.model), 0.0
    with torch.no_grad():
        for batch in (batch.take(slice(0, victim.slots)) for batch in where):
            first, second = flattened(model_outputs(model, batch)), flattened(model_outputs(model, batch))
            difference = max(difference, float(distance(first, second).max()))
    declared = victim.randomness is not Randomness.NONE
    silent = declared and difference == 0 and not says_the_same(victim, where[0])
    absent = declared and _draws_agree(victim, where)
    text = f"repeated predictions differ by {difference:.3g}; randomness is declared as {victim.randomness}"
    if absent:
        text += f", yet {DRAWS} draws give the same outputs bit for bit, where none must be declared"
    elif silent:
        text += ": the model repeats itself, though the evaluation's draws differ, where none must be declared"
    return Finding(
        name="stochastic-undeclared",
        red=absent or silent or (difference > 0 and not declared),
        evidence=text,
        values={"difference": difference} | ({"draws_agree": float(absent)} if declared else {}),
    )


def _draws_agree(victim: ModelVictim, where: tuple[Batch, ...]) -> bool:
    """Returns whether all draws give the same bits everywhere, although the outputs depend on the input."""
    copied = copy_of(victim, copy.deepcopy(victim.model))
    for batch in where:
        first, *others = (Draws(first=torch.full_like(batch.sample_ids, draw)) for draw in range(DRAWS))
        outputs = flattened(copied.outputs(batch, first))
        if not all(torch.equal(flattened(copied.outputs(batch, draws)), outputs) for draws in others):
            return False
    return not says_the_same(victim, where[0])


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
