"""Evaluates adversarials that somebody hands in, and lowers the best-known number where they do better."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor

from attacks.engine import BudgetOutcome, Outcome
from attacks.judging import FINAL, SELECTION, judge_scores
from attacks.member_run import MemberOutcome
from attacks.victim import ModelVictim
from benchmark.access import Subject, marked
from benchmark.assessment import check_model, full_precision
from benchmark.cells import key_digest
from benchmark.environment import provenance
from benchmark.evaluation_cell import load_dataset
from benchmark.obstacles import base_chain
from benchmark.oracles import seen_by
from benchmark.selection import foreign_sources, source_revision
from benchmark.stored_adversarials import balls, certify
from benchmark.submission import Submission, check_ball, read_submission
from benchmark.summary import Summary
from datasets.batch import Batch, Dataset
from datasets.tasks.base import task_for
from defenses.build import CheckpointInfo, defended_model
from registry import DATASETS, DEFENSES, TASKS, AttackProtocol, Budget, DefenseEntry, Member, Randomness, ThreatModel
from registry.errors import InputContractError
from results.adversarials import Adversarials
from results.best_known import BestKnown, best_known, same_question
from results.budgets import budget_index
from results.record import Checkpoint, EvaluationRecord, RecordStatus
from results.store import RecordStore

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,39}")


@dataclass(frozen=True, kw_only=True)
class Challenge:
    """What is claimed: these adversarials fool this defense within this budget."""

    path: Path
    defense: str
    dataset: str
    budget: Budget
    seed: int = 0
    """Training seed of the weights."""
    by: str = ""
    """Who hands them in."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """What a challenge came to."""

    record: EvaluationRecord
    table: pd.DataFrame
    adversarials: Adversarials
    ranked: EvaluationRecord | None
    """The ranking record of the same weights at the same budget, or None."""
    before: BestKnown | None
    after: BestKnown | None

    @property
    def lowered(self) -> int:
        """Samples whose best-known score it lowers; all it lowers at all where there is no ranking record."""
        if self.before is None or self.after is None:
            return int((self.table["score_0"] < self.table["clean_score"]).sum())
        return int((self.after.scores < self.before.scores).sum())


def evaluate_challenge(
    challenge: Challenge, store: RecordStore, *, data_root: Path, checkpoints: Path, device: str
) -> Result:
    """Returns what a challenge came to; nothing is written.

    Args:
        challenge: The adversarials and what they are said to do.
        store: The records whose best-known number they may lower.
        data_root: The data folder.
        checkpoints: Local folder of weights.
        device: Torch device.

    Raises:
        InputContractError: The file or the name is refused, or a point leaves its ball.
        UnknownEntryError: No such defense or data set.
        CheckpointError: Weights are absent, refused or damaged.
        DataError: The data cannot be read.
    """
    if challenge.by and not _NAME.fullmatch(challenge.by):
        raise InputContractError(f"--by: expected up to 40 letters, digits and . _ + -, got {challenge.by!r}")
    entry, spec = DEFENSES[challenge.defense], DATASETS[challenge.dataset]
    submission = read_submission(challenge.path, spec.input_shape, spec.splits["test"])
    dataset = load_dataset(spec.name, data_root)
    model, info = defended_model(entry, spec, challenge.seed, checkpoints)
    subject = Subject(
        model=model.to(device), task=task_for(spec, detects=entry.detects), spec=spec, randomness=entry.randomness
    )
    protocol = protocol_of(challenge, spec.task)
    with full_precision():
        record, table, adversarials = _assess(challenge, submission, subject, dataset, entry, info, protocol, device)
    ranked, before, after = _compare(record, table, store)
    return Result(record=record, table=table, adversarials=adversarials, ranked=ranked, before=before, after=after)


def protocol_of(challenge: Challenge, task: str) -> AttackProtocol:
    """Returns the protocol that a challenge's record names; it never ranks."""
    return AttackProtocol(
        name=f"challenge:{challenge.by}" if challenge.by else "challenge",
        title="Adversarials handed in" + (f" by {challenge.by}" if challenge.by else ""),
        threat_model=ThreatModel(norm=challenge.budget.norm),
        budgets=(challenge.budget,),
        tasks=(task,),
        members="benchmark.challenge:members",
    )


def members(facts: object, budget: Budget) -> tuple[Member, ...]:
    """Returns the one member of a challenge: whoever found the adversarials, by whatever means."""
    return (Member(name="challenge", attack="benchmark.challenge:evaluate_challenge"),)


def _assess(
    challenge: Challenge,
    submission: Submission,
    subject: Subject,
    dataset: Dataset,
    entry: DefenseEntry,
    info: CheckpointInfo,
    protocol: AttackProtocol,
    device: str,
) -> tuple[EvaluationRecord, pd.DataFrame, Adversarials]:
    """Returns record, sample table and certificates of the samples that were handed in."""
    where, began = provenance(device), time.perf_counter()
    batch = seen_by(entry, dataset.splits["test"].take(submission.sample_ids), dataset.spec).to(device)
    points = submission.adversarials.to(device)
    check_ball(points, submission.sample_ids, balls(protocol.threat_model, challenge.budget, batch), challenge.budget)
    subject = check_model(subject, batch)
    batch = marked(subject, batch)
    seed = 0 if subject.randomness is Randomness.NONE else int(submission.sha256[:8], 16)  # draws that nobody knew
    slots = subject.slots(batch)
    victim = ModelVictim(subject.model, subject.task, slots=slots, randomness=subject.randomness, seed=seed)
    clean = judge_scores(victim, batch, FINAL)
    points, scores = _worse(victim, batch, points, clean)
    outcome = _outcome(challenge, subject, batch, scores, points, clean, victim, time.perf_counter() - began)
    outcome, adversarials = certify(victim, batch, protocol, outcome, subject.spec.ranked_budget)
    summary = Summary(victim, batch, subject.spec, outcome)
    revisions = _revisions(entry, subject, protocol)
    digest = key_digest({"file": submission.sha256, "budget": challenge.budget.card(), "weights": info.sha256})
    record = EvaluationRecord(
        key=f"{subject.spec.name}/{entry.name}/{protocol.name}-s{challenge.seed}-{digest}",
        status=RecordStatus.DONE,
        dataset=subject.spec.card(),
        data_sha256=dataset.sha256,
        split="test",
        n_planned=len(batch),
        defense=entry.card(),
        checkpoint=Checkpoint(
            sha256=info.sha256, seed=info.seed, files=tuple(path.name for path in info.files), card=dict(info.card)
        ),
        protocol=protocol.card(),
        attack_seed=seed,
        revisions=revisions,
        quality=subject.task.spec.quality,
        clean=summary.clean,
        constant_predictor=summary.constant_predictor,
        clean_class_recall=summary.clean_class_recall,
        clean_confusions=summary.clean_confusions,
        budgets=summary.budgets,
        provenance=where,
    )
    return record, summary.table(), adversarials


def _worse(victim: ModelVictim, batch: Batch, points: Tensor, clean: Tensor) -> tuple[Tensor, Tensor]:
    """Returns, of each submitted point and its original, the worse one and its final score; NaN lowers nothing.

    Of a stochastic victim all draws depend on the submission, so that no point can have been fitted to them. The worse
    one is selected on draws of selection: the minimum of two final means, each over 100 draws, would be lower than
    either.
    """
    if victim.randomness is Randomness.NONE:
        scores = judge_scores(victim, batch.with_inputs(points), FINAL)
        return points, torch.where(scores.isnan(), clean, torch.minimum(scores, clean))
    submitted = judge_scores(victim, batch.with_inputs(points), SELECTION)
    lower = submitted < judge_scores(victim, batch, SELECTION)
    chosen = torch.where(lower.reshape(-1, *[1] * (points.ndim - 1)), points, batch.inputs)
    return chosen, judge_scores(victim, batch.with_inputs(chosen), FINAL)


def _outcome(
    challenge: Challenge, subject: Subject, batch: Batch, scores, points, clean, victim, seconds: float
) -> Outcome:
    """Returns the submission as if one attack had found it."""
    lower = scores < clean
    broken = lower & (scores < subject.task.fail_below) & (clean >= subject.task.fail_below)
    (member,) = members(None, challenge.budget)
    done = MemberOutcome(
        member=member,
        attempted=len(clean),
        lowered=int(lower.sum()),
        broken=int(broken.sum()),
        robust_after=batch.mean(scores),
        errors=int(scores.isnan().sum()),
        violations=0,
        unmoved=0,
        no_gradient=0,
        forwards=victim.spent.forwards,
        backwards=0,
        seconds=seconds,
        error=None,
    )
    budget = BudgetOutcome(
        budget=challenge.budget,
        scores=scores,
        points=points,
        found_by=tuple(member.name if low else "" for low in lower.tolist()),
        step=torch.where(lower, 0, -1),
        members=(done,),
    )
    return Outcome(clean_scores=clean, budgets=(budget,))


def _revisions(entry: DefenseEntry, subject: Subject, protocol: AttackProtocol) -> dict[str, int]:
    """Returns the revisions that the score depends on; no engine found the adversarials."""
    chain = base_chain(entry, DEFENSES)
    own = {"dataset": subject.spec.revision, "task": TASKS[subject.spec.task].revision, "defense": entry.revision}
    own |= {f"base:{part.name}": part.revision for part in chain[1:]} | source_revision(chain, foreign_sources())
    return own | {"protocol": protocol.revision}


def _compare(record: EvaluationRecord, table: pd.DataFrame, store: RecordStore):
    """Returns the ranking record that the challenge is about, with its best-known scores before and after."""
    budget = record.budgets[0].budget
    others = [other for other in store.records() if other.key != record.key and same_question(other, record)]
    ranked = [other for other in others if other.protocol.get("ranks") and budget_index(other, budget) is not None]
    if not ranked:
        return None, None, None
    chosen = max(ranked, key=lambda other: (other.n_planned, other.provenance.started_at))

    def samples_of(found: EvaluationRecord) -> pd.DataFrame:
        return table if found.key == record.key else store.samples(found)

    handed_in = replace(record, samples=chosen.samples)  # its own table is not on disk yet
    before = best_known(chosen, budget, others, samples_of)
    return chosen, before, best_known(chosen, budget, [*others, handed_in], samples_of)
