"""Asks a recorded model what probes ask that are younger than its record; no attack runs."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from attacks.soundness.audit import AUDIT_SAMPLES, discontinuity
from attacks.soundness.finding import Finding
from attacks.soundness.fresh import audit_rows
from attacks.soundness.gradient_probe import gradient_findings
from attacks.soundness.jump import jump_finding
from benchmark.access import Subject, marked
from benchmark.assessment import check_model, full_precision
from benchmark.environment import provenance
from benchmark.recompute import victim_of
from benchmark.recorded import Place, Recorded, Skip
from benchmark.soundness_summary import flags_of
from benchmark.stored_adversarials import balls
from datasets.batch import Batch
from registry import Norm
from results.budgets import as_budget, as_threat_model
from results.consistency import CLEAN
from results.later_probes import INSIDE, JUMP, SLOPE, TORN, lacking_probes, with_later
from results.record import EvaluationRecord, RecordStatus
from results.sample_table import SAMPLE_ID
from results.store import RecordStore


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What a record has been told."""

    text: str
    """For people."""
    red: bool
    """Whether a flag is red that had not been asked for before."""


class LaterProbes:
    """Completes the records of one store; the last model stays in memory.

    Args:
        store: The records.
        place: Where data and weights are.
    """

    def __init__(self, store: RecordStore, place: Place) -> None:
        self._store, self._place, self._recorded = store, place, Recorded(place)

    def ask(self, key: str) -> Asked | None:
        """Asks what the record of this key lacks and writes the answers into it; None where it lacks nothing.

        Raises:
            Skip: Only a new run can tell, its data or weights are not here, or the device is too small.
            WrongRecord: Data or weights are not those that it names.
            BenchmarkError: It cannot be read or written.
        """
        record = self._store.read(key)
        lacking = lacking_probes(record) if record.status is RecordStatus.DONE else ()
        if not lacking:
            return None
        _refuse(record, lacking)
        table = self._store.samples(record)
        subject = self._recorded.subject(record)
        batch = self._recorded.batch(record, table[SAMPLE_ID].to_numpy())
        clean = torch.tensor(table[CLEAN].to_numpy(), dtype=torch.float32, device=self._place.device)
        try:
            with full_precision():
                findings = _findings(subject, batch, record, clean, lacking)
        except torch.OutOfMemoryError as error:
            raise Skip("the device is out of memory; try --device cpu") from error
        where = provenance(self._place.device)
        commit = f"commit {where.commit[:12]}{' with changes' if where.dirty else ''}" if where.commit else "no commit"
        self._store.write(with_later(record, flags_of(findings), f"{where.started_at[:10]}, {commit}"))
        red = any(finding.red for finding in findings)
        return Asked(text="; ".join(f"{own.name}: {own.evidence}" for own in findings), red=red)


def _refuse(record: EvaluationRecord, lacking: tuple[str, ...]) -> None:
    """Raises `Skip` where the probe's question depends on what attacks found."""
    if set(lacking) == {TORN}:
        return
    if record.escalation is not None:
        raise Skip(f"was escalated, and probes judge what it ended with ({record.escalation.strongest}); run it again")
    threat_model = as_threat_model(record.protocol["threat_model"])
    if INSIDE in lacking and (
        record.dataset["task"] != "classification" or threat_model.norm not in (Norm.LINF, Norm.L2)
    ):
        raise Skip("its gradients are probed by what its attacks ascended; run it again")


def _findings(
    subject: Subject, batch: Batch, record: EvaluationRecord, clean: torch.Tensor, lacking: tuple[str, ...]
) -> tuple[Finding, ...]:
    """Returns what the examination of a cell would have found at the ranked budget, on the same samples."""
    subject = check_model(subject, batch)
    batch = marked(subject, batch)
    victim = victim_of(subject, batch, record)
    findings: list[Finding] = []
    with torch.random.fork_rng(devices=[batch.inputs.device] if batch.inputs.is_cuda else []):
        if INSIDE in lacking:
            threat_model = as_threat_model(record.protocol["threat_model"])
            ranked = as_budget(record.protocol.get("ranked_budget") or record.dataset["ranked_budget"])
            correct = (clean >= subject.task.fail_below).nonzero()[:AUDIT_SAMPLES, 0]
            probed = batch.take(correct)
            if len(correct):
                findings += gradient_findings(victim, probed, balls(threat_model, ranked, probed), "margin")
        if TORN in lacking:
            findings.append(discontinuity(victim, batch.take(slice(0, AUDIT_SAMPLES))))
        if JUMP in lacking or SLOPE in lacking:
            rows = audit_rows(batch, clean, subject.task.fail_below, AUDIT_SAMPLES)
            slope = bool(record.defense.get("differentiable", True))
            findings.append(jump_finding(victim, batch, rows, victim.outputs(batch), slope=slope))
    return tuple(findings)
