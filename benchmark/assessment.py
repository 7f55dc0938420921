"""Evaluates one model on one batch under one protocol: what a cell of a plan and `evaluate` have in common."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

from attacks.engine import Outcome, run_protocol
from attacks.journal import Journal
from attacks.log_probabilities import LogProbabilities, are_probabilities
from attacks.shell import admit_inputs
from attacks.soundness.escalation import Escalation
from attacks.soundness.examination import examine
from attacks.soundness.finding import Finding
from attacks.soundness.untouched import untouched_copy
from attacks.victim import Access
from benchmark.access import Subject, access_to, described, marked
from benchmark.environment import provenance
from benchmark.measure import model_cost, peak_memory_mb
from benchmark.restoration import with_restored_images
from benchmark.soundness_summary import escalation_of, flags_of, with_lost
from benchmark.stored_adversarials import certify
from benchmark.summary import Summary
from datasets.batch import Batch
from registry import AttackProtocol, CellFacts, Randomness
from registry.errors import ModelContractError
from results.adversarials import Adversarials
from results.record import BudgetResult, Card, Checkpoint, Cost, EvaluationRecord, RecordStatus

_log = logging.getLogger(__name__)

Progress = Callable[[float, str], None]


@dataclass(frozen=True, kw_only=True)
class Identity:
    """What a record says about a cell apart from its results."""

    key: str
    data_sha256: str
    split: str
    defense: Card
    checkpoint: Checkpoint
    attack_seed: int = 0
    revisions: Mapping[str, int] = field(default_factory=dict)


def assess(
    subject: Subject,
    batch: Batch,
    protocol: AttackProtocol,
    identity: Identity,
    *,
    device: str,
    progress: Progress,
    journal: Journal | None = None,
) -> tuple[EvaluationRecord, pd.DataFrame, Adversarials | None]:
    """Returns the record of one evaluation, its sample table and its certificates.

    Args:
        subject: The model.
        batch: The samples, on the CPU.
        protocol: How it is attacked.
        identity: What the record says beside results.
        device: Torch device.
        progress: Told the share that is done, and what is running.
        journal: What the cell has done before it was interrupted; kept up to date.

    Raises:
        ModelContractError: The model's outputs are not what its task scores.
        InputContractError: Inputs or targets lie outside their range.
    """
    began, where = time.perf_counter(), provenance(device)
    batch = batch.to(device)
    admit_inputs(batch)
    subject.task.check_targets(batch)
    with full_precision():
        defended, (subject, untouched) = subject.model, _checked(subject, batch, protocol)
        batch = marked(subject, batch)
        told = {"seed": identity.attack_seed, "watch": progress, "journal": journal}
        run = _in_memory(subject, batch, protocol, subject.slots(batch), told, untouched)
        access, facts, (outcome, findings, escalation) = run
        found = outcome
        outcome, adversarials = certify(access.victim, batch, protocol, found, facts.ranked_budget)
        if access.victim.randomness is Randomness.NONE:
            findings = with_lost(findings, found, outcome)
        summary = Summary(access.victim, batch, subject.spec, outcome)
        clean, budgets = with_restored_images(summary, defended, access.victim, batch, outcome)
        budgets = _with_planned(budgets, outcome, protocol, facts)
        seconds = time.perf_counter() - began + (journal.recovered_seconds if journal else 0.0)
        cost = _cost(subject.model, batch, access, identity.checkpoint, seconds, device)
    record = EvaluationRecord(
        key=identity.key,
        status=RecordStatus.DONE,
        dataset=subject.spec.card(),
        data_sha256=identity.data_sha256,
        split=identity.split,
        n_planned=len(batch),
        defense=identity.defense,
        checkpoint=identity.checkpoint,
        protocol=protocol.card(),
        attack_seed=identity.attack_seed,
        revisions=dict(identity.revisions),
        quality=subject.task.spec.quality,
        clean=clean,
        constant_predictor=summary.constant_predictor,
        clean_class_recall=summary.clean_class_recall,
        clean_confusions=summary.clean_confusions,
        budgets=budgets,
        flags=flags_of(findings),
        escalation=escalation_of(escalation, facts.ranked_budget),
        cost=cost,
        provenance=replace(where, device=f"{where.device}; {described(access)}"),
    )
    return record, summary.table(), adversarials


def _in_memory(
    subject: Subject,
    batch: Batch,
    protocol: AttackProtocol,
    slots: int,
    told: Mapping[str, Any],
    untouched: nn.Module | None,
) -> tuple[Access, CellFacts, tuple[Outcome, tuple[Finding, ...], Escalation | None]]:
    """Attacks and examines the model; where the device runs out of memory, once more with half of the slots.

    The cell begins again, so that all of its verdicts come from physical batches of one size, which the record names.

    Args:
        subject: The model, as it is attacked.
        batch: The samples, on the device.
        protocol: How it is attacked.
        slots: Rows of a physical batch, to begin with.
        told: What both are told: "seed" of the attacks, "watch" and "journal".
        untouched: A copy of the model from before its first answer, or None.
    """
    while True:
        try:
            access, facts = access_to(subject, batch, protocol, slots=slots, seed=told["seed"])
            if told["journal"] is not None:
                told["journal"].begin(slots)
            outcome = run_protocol(access, batch, protocol, facts, **told)
            return access, facts, examine(access, batch, protocol, facts, outcome, untouched=untouched, **told)
        except torch.OutOfMemoryError:
            if slots <= 2:
                raise
            slots //= 2
            _log.warning("the device is out of memory; the cell begins again with %d slots", slots)
        torch.cuda.empty_cache()  # after the traceback, which holds the tensors of the failed attempt, is gone


def _with_planned(
    budgets: Sequence[BudgetResult], outcome: Outcome, protocol: AttackProtocol, facts: CellFacts
) -> tuple[BudgetResult, ...]:
    """Returns the budgets with the members that the protocol calls for, whether they ran or not."""
    return tuple(
        replace(result, planned=tuple(member.name for member in protocol.ensemble(facts, own.budget)))
        for result, own in zip(budgets, outcome.budgets, strict=True)
    )


def _checked(subject: Subject, batch: Batch, protocol: AttackProtocol) -> tuple[Subject, nn.Module | None]:
    """Returns the subject as it is attacked, and a copy of its model from before its first answer.

    The copy is None where the protocol does not rank, since nothing is examined then, and where the model cannot be
    copied. What `check_model` raises is raised here, too.
    """
    untouched = untouched_copy(subject.model) if protocol.ranks else None
    checked = check_model(subject, batch)
    if untouched is not None and checked.model is not subject.model:
        untouched = LogProbabilities(untouched)
    return checked, untouched


def check_model(subject: Subject, batch: Batch) -> Subject:
    """Returns the subject as it is attacked: one that returns probabilities is attacked through their logarithm.

    Raises:
        ModelContractError: The model is in training mode, or its outputs on a sample are not what its task scores.
    """
    if subject.model.training:
        raise ModelContractError("the model is in training mode; call model.eval() before it is evaluated")
    probabilities = subject.task.spec.name == "classification"
    with torch.no_grad():
        for start in range(0, len(batch), 64):
            part = batch.take(slice(start, start + 64))
            outputs = subject.task.check_outputs(subject.model(part.inputs), part)
            probabilities = probabilities and isinstance(outputs, Tensor) and are_probabilities(outputs)
    if not probabilities:
        return subject
    _log.warning("the model returns probabilities, expected raw logits; it is attacked through their logarithm")
    return replace(subject, model=LogProbabilities(subject.model))


@contextmanager
def full_precision() -> Iterator[None]:
    """While active, CUDA computes in float32 as IEEE defines it, without TF32, and by deterministic kernels."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = (matmul.allow_tf32, cudnn.allow_tf32, cudnn.deterministic)
    matmul.allow_tf32, cudnn.allow_tf32, cudnn.deterministic = False, False, True
    try:
        yield
    finally:
        matmul.allow_tf32, cudnn.allow_tf32, cudnn.deterministic = before


def _cost(model: nn.Module, batch: Batch, access: Access, checkpoint: Checkpoint, seconds: float, device: str) -> Cost:
    spent, own = access.victim.spent, model_cost(model, batch.inputs)
    return Cost(
        seconds=seconds,
        forwards=spent.forwards,
        backwards=spent.backwards,
        parameters=own.parameters,
        flops=own.flops,
        latency_ms_1=own.latency_ms_1,
        latency_ms_64=own.latency_ms_64,
        training_seconds=checkpoint.card.get("seconds"),
        peak_memory_mb=peak_memory_mb(device),
    )
