"""The decision table of a row's status, rule by rule, and the best known worst case."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from registry import Budget, Norm, linf
from registry.errors import InputContractError
from results.best_known import best_known
from results.record import Checkpoint, Escalation, EvaluationRecord, Failure, Flag, RecordStatus
from results.serialize import from_json, to_json
from results.store import RecordStore
from results.verdict import VerdictStatus, verdict
from tests.example_records import example_budget, example_record, example_samples

RANKED = linf(4 / 255)
VERIFIED, CONTESTED, UNVERIFIED = VerdictStatus


def _flag(name: str, red: bool = True) -> Flag:
    return Flag(name=name, red=red, evidence=f"evidence of {name}")


def _record(robust: float = 0.25, flags: tuple[Flag, ...] = (), **changes: object) -> EvaluationRecord:
    clear = _flag("zero-gradient", red=False)
    return example_record(**{"budgets": (example_budget(robust),), "flags": (clear, *flags), **changes})


def _escalation(**changes: object) -> Escalation:
    before = Escalation(
        budget=RANKED.card(),
        flags=(_flag("zero-gradient"),),
        members=(),
        strongest="BPDA",
        why="of 8 audited samples, each from scratch, break by: true gradient 0, BPDA 6",
        robust_before=0.75,
        robust_after=0.25,
    )
    return replace(before, **changes)


def _with_members(**changes: object) -> EvaluationRecord:
    budget = example_budget()
    return _record(budgets=(replace(budget, members=(budget.members[0], replace(budget.members[1], **changes))),))


def _of_family(family: str, randomness: str = "none", robust: float = 0.25) -> EvaluationRecord:
    record = _record(robust)
    return replace(record, defense={**record.defense, "family": family, "randomness": randomness})


@pytest.mark.parametrize(
    ("record", "tried", "status"),
    [
        pytest.param(_of_family("purification"), {"paper:tsai": None}, VerdictStatus.CONTESTED, id="purifier"),
        pytest.param(
            _of_family("purification"),
            {"adaptive:purifier": example_budget()},
            VerdictStatus.VERIFIED,
            id="adapted purifier",
        ),
        pytest.param(
            _of_family("purification", robust=0.01),
            {"adaptive:purifier": None},
            VerdictStatus.VERIFIED,
            id="broken where it was not attacked",
        ),
        pytest.param(_of_family("purification"), None, VerdictStatus.VERIFIED, id="nobody asks"),
        pytest.param(_of_family("purification", robust=0.0), {}, VerdictStatus.VERIFIED, id="broken anyway"),
        pytest.param(_of_family("noise injection", "sample"), {}, VerdictStatus.CONTESTED, id="noise"),
        pytest.param(_of_family("noise injection"), {}, VerdictStatus.VERIFIED, id="noise off"),
        pytest.param(_of_family("adversarial training"), {}, VerdictStatus.VERIFIED, id="no trick"),
        pytest.param(_of_family("input transformation"), {}, VerdictStatus.VERIFIED, id="a filter"),
        pytest.param(_of_family("input transformation", "sample"), {}, VerdictStatus.CONTESTED, id="a random filter"),
        pytest.param(_of_family("certified", "sample"), {}, VerdictStatus.CONTESTED, id="smoothing"),
        pytest.param(_of_family("own", "model"), {}, VerdictStatus.CONTESTED, id="random weights"),
    ],
)
def test_a_defense_with_a_trick_needs_the_protocol_that_knows_it(record, tried, status):
    found = verdict([record], RANKED, tried=None if tried is None else [tried])
    assert found.status is status
    if status is VerdictStatus.CONTESTED:
        assert "--defense" in found.reasons[0] and "adaptive:" in found.reasons[0]


def test_noise_that_no_sweep_met_at_a_budget_says_what_would_settle_it():
    found = verdict([_of_family("noise injection", "sample")], RANKED, tried=[{"adaptive:eot-sweep": None}])
    (reason,) = found.reasons
    assert "adaptive:eot-sweep did not attack it at Linf 4/255" in reason and "what would settle it" in reason


def test_a_purifier_is_settled_by_an_adaptive_attack_at_its_own_budget_alone():
    found = verdict([_of_family("purification", robust=0.02)], RANKED, tried=[{"adaptive:purifier": None}])
    assert found.status is VerdictStatus.CONTESTED
    (reason,) = found.reasons
    assert "adaptive:purifier, which knows its trick, did not attack it at Linf 4/255" in reason
    assert "what would settle it" in reason


def _sweep(*after: float, n: int = 156, empty: float = 0.0) -> dict:
    """What the sweep of draws did to a row of n samples: three stages of two members, as the protocol has them."""
    spent = (320, 320, 1600, 1600, 6400, 6400)
    first = example_budget().members[0]
    members = tuple(
        replace(first, robust_after=a, backwards=b, no_gradient=int(empty * b))
        for a, b in zip(after, spent, strict=True)
    )
    return {"adaptive:eot-sweep": example_budget(after[-1], n=n, members=members)}


@pytest.mark.parametrize(
    ("tried", "status"),
    [
        pytest.param(_sweep(0.65, 0.62, 0.60, 0.58, 0.575, 0.57), VerdictStatus.VERIFIED, id="flat"),
        pytest.param(_sweep(*[0.57] * 6, empty=1.0), VerdictStatus.CONTESTED, id="flat along gradients that are zero"),
        pytest.param(_sweep(0.65, 0.62, 0.60, 0.58, 0.55, 0.53), VerdictStatus.CONTESTED, id="falls by 8 samples"),
        pytest.param(_sweep(0.65, 0.62, 0.60, 0.58, 0.57, 0.565, n=2000), VerdictStatus.CONTESTED, id="by 30 of 2000"),
        pytest.param({"adaptive:eot-sweep": None}, VerdictStatus.CONTESTED, id="at another budget"),
        pytest.param({"adaptive:eot-sweep": example_budget(0.57, n=156)}, VerdictStatus.CONTESTED, id="no gradient"),
    ],
)
def test_a_noise_defense_is_an_upper_bound_while_more_draws_lower_it(tried, status):
    found = verdict([_of_family("noise injection", "sample", robust=0.57)], RANKED, tried=[tried])
    assert found.status is status
    assert status is VerdictStatus.VERIFIED or "draws" in found.reasons[0]


FLAT = _sweep(0.30, 0.28, 0.26, 0.25, 0.25, 0.25)


@pytest.mark.parametrize(
    ("tried", "missing"),
    [
        ({}, ["adaptive:purifier", "adaptive:eot-sweep"]),
        ({"adaptive:purifier": example_budget()}, ["adaptive:eot-sweep"]),
        (FLAT, ["adaptive:purifier"]),
        ({"adaptive:purifier": example_budget(), **FLAT}, []),
    ],
    ids=["nobody", "purifier", "sweep", "both"],
)
def test_a_purifier_that_draws_is_settled_by_both_protocols_that_know_its_tricks(tried, missing):
    found = verdict([_of_family("purification", "sample")], RANKED, tried=[tried])
    assert found.status is (VerdictStatus.CONTESTED if missing else VerdictStatus.VERIFIED)
    assert [reason.split(", which")[0] for reason in found.reasons] == missing


@pytest.mark.parametrize("randomness", ["none", "sample"])
def test_no_adaptive_protocol_is_asked_for_where_there_is_none(randomness):
    budget = Budget(norm=Norm.L0, eps=3)
    record = _of_family("purification", randomness)
    record = replace(record, budgets=(replace(example_budget(), budget=budget.card()),))
    assert verdict([record], budget, tried=[{}]).status is VerdictStatus.VERIFIED


FAILED = _record(
    status=RecordStatus.FAILED, budgets=(), failure=Failure(kind="MemoryError", message="too large", traceback="")
)
ONE_MEMBER = replace(example_budget(), members=example_budget().members[:1])


@pytest.mark.parametrize(
    ("record", "status", "reason"),
    [
        pytest.param(_record(), VERIFIED, None, id="clean bill"),
        pytest.param(FAILED, UNVERIFIED, "the cell failed: MemoryError: too large", id="failed"),
        pytest.param(_record(budgets=()), UNVERIFIED, "no result at Linf 4/255", id="no budget"),
        pytest.param(
            _record(budgets=(example_budget(eps=8 / 255),)), UNVERIFIED, "no result at Linf 4/255", id="other budget"
        ),
        pytest.param(
            _record(budgets=(ONE_MEMBER,)), UNVERIFIED, "members that did not run: square", id="missing member"
        ),
        pytest.param(
            _record(budgets=(example_budget(members=(), planned=()),)), UNVERIFIED, "no attack ran", id="no members"
        ),
        pytest.param(
            _with_members(errors=3), UNVERIFIED, "square ended with an error on 3 of 8 samples", id="member errors"
        ),
        pytest.param(_record(budgets=(example_budget(n=7),)), UNVERIFIED, "7 samples of 8 planned", id="fewer samples"),
        pytest.param(
            _record(flags=(_flag("not-monotone"),)),
            UNVERIFIED,
            "red flags were not escalated: not-monotone",
            id="red flag without escalation",
        ),
        pytest.param(
            _record(flags=(_flag("not-monotone"),), escalation=_escalation(failure="MemoryError: too large")),
            UNVERIFIED,
            "the escalation did not finish: MemoryError",
            id="unfinished",
        ),
        pytest.param(
            _record(escalation=_escalation(failure="MemoryError: too large")),
            UNVERIFIED,
            "the escalation did not finish: MemoryError",
            id="unfinished without a red flag",
        ),
        pytest.param(
            _record(flags=(_flag("not-monotone"),), escalation=_escalation()),
            CONTESTED,
            "not-monotone: evidence of",
            id="red flag persists",
        ),
        pytest.param(
            _record(flags=(_flag("not-converged"),), escalation=_escalation()),
            CONTESTED,
            "the last doubling still lowered the score, not-converged",
            id="last doubling",
        ),
        pytest.param(
            _record(escalation=_escalation()),
            VERIFIED,
            "escalated from 75.0% to 25.0% after zero-gradient; no flag is red under BPDA",
            id="escalated",
        ),
        pytest.param(
            _record(0.0, escalation=_escalation(robust_after=0.0)), VERIFIED, "flags can only mean", id="escalated to 0"
        ),
        pytest.param(
            _record(0.0, flags=(_flag("stateful"),), escalation=_escalation()),
            UNVERIFIED,
            "declare it and run again",
            id="escalation does not excuse an undeclared state",
        ),
        pytest.param(_record(flags=(_flag("not-converged", red=False),)), VERIFIED, None, id="flag that is not red"),
        pytest.param(_record(flags=(_flag("below-constant", red=False),)), VERIFIED, None, id="note"),
        pytest.param(
            _record(0.01, flags=(_flag("zero-gradient"),)), VERIFIED, "flags can only mean", id="flag on a broken one"
        ),
        pytest.param(
            _record(0.011, flags=(_flag("zero-gradient"),), escalation=_escalation()),
            CONTESTED,
            "zero-gradient",
            id="just above 1 %",
        ),
        pytest.param(_record(flags=(), budgets=(example_budget(0.0),)), VERIFIED, None, id="broken without flags"),
        pytest.param(replace(_record(), flags=()), UNVERIFIED, "soundness probes were not run", id="no probes"),
        pytest.param(
            replace(_record(), flags=(_flag("constant", red=False),)),
            UNVERIFIED,
            "soundness probes were not run",
            id="notes but no probes",
        ),
        *(
            pytest.param(_record(0.0, flags=(_flag(name),)), UNVERIFIED, "declare it and run again", id=name)
            for name in ("stateful", "train-mode", "stochastic-undeclared")
        ),
    ],
)
def test_rule(record: EvaluationRecord, status: VerdictStatus, reason: str | None) -> None:
    answer = verdict([record], RANKED)
    assert answer.status is status
    assert (reason is None and answer.reasons == ()) or reason in answer.reasons[0]
    assert answer.flags == tuple(flag for flag in record.flags if flag.red)
    assert verdict([from_json(to_json(record), "memory")], RANKED) == answer


@pytest.mark.parametrize("after", [0.25, 0.75])
def test_other_budgets_are_not_escalated(after: float) -> None:
    """A gradient that was flagged at the ranked budget is no better at the others, where less was spent."""
    smaller = example_budget(0.75, eps=2 / 255, n=500)
    record = _record(budgets=(smaller, example_budget(after, n=500)), n_planned=500)
    record = replace(record, escalation=_escalation(robust_after=after))
    answer = verdict([record], linf(2 / 255))
    assert answer.status is CONTESTED
    assert verdict([record], RANKED).status is VERIFIED
    assert "the escalation ran at Linf 4/255 only" in answer.reasons[0]


def test_first_match_wins() -> None:
    record = _record(0.0, flags=(_flag("stateful"), _flag("zero-gradient")), budgets=(example_budget(0.0, n=5),))
    assert verdict([record], RANKED).reasons == ("5 samples of 8 planned",)
    assert len(verdict([record], RANKED).flags) == 2


def test_budget_may_come_as_a_rounded_card() -> None:
    assert verdict([_record()], {"norm": "Linf", "eps": 0.01568627451}).status is VERIFIED
    assert verdict([_record()], {"norm": "L2", "eps": 0.01568627451}).status is UNVERIFIED
    each = Budget(norm=Norm.LINF, eps=(4 / 255, 0.0))
    record = _record(budgets=(example_budget(budget=each.card()),))
    assert verdict([record], each).status is VERIFIED
    assert verdict([record], RANKED).reasons == ("no result at Linf 4/255",)


def test_nothing_to_judge() -> None:
    assert verdict([], RANKED).status is UNVERIFIED


def test_seeds_take_the_worst_status_with_its_reasons() -> None:
    good = _record()
    flagged = _record(
        flags=(_flag("not-converged"),), checkpoint=Checkpoint(sha256="e" * 64, seed=1), escalation=_escalation()
    )
    short = _record(budgets=(example_budget(n=5),), checkpoint=Checkpoint(sha256="f" * 64, seed=2))
    assert verdict([good, flagged], RANKED).status is CONTESTED
    answer = verdict([flagged, good, short], RANKED)
    assert (answer.status, answer.reasons) == (UNVERIFIED, ("seed 2: 5 samples of 8 planned",))
    assert [flag.name for flag in answer.flags] == ["not-converged"]


def test_member_that_only_one_seed_ran_is_missing_in_the_other() -> None:
    other = _record(budgets=(replace(ONE_MEMBER, planned=()),), checkpoint=Checkpoint(sha256="e" * 64, seed=1))
    assert verdict([_record(), other], RANKED).reasons == ("seed 1: members that did not run: square",)
    assert verdict([other], RANKED).status is VERIFIED


@pytest.fixture
def store(tmp_path: Path) -> RecordStore:
    return RecordStore(tmp_path)


def _keep(store: RecordStore, protocol: str, scores: list[float], ids: list[int] | None = None, **changes: object):
    card = {**example_record().protocol, "name": protocol}
    if "threat_model" in changes:
        card["threat_model"] = changes.pop("threat_model")
    key = f"phantom/Undefended/{protocol}-s0-{len(store.keys()):012x}"
    samples = example_samples(scores)
    if ids is not None:
        samples["sample_id"] = ids
    store.write(example_record(**{"key": key, "protocol": card, **changes}), samples)
    return store.read(key)


def test_best_known_is_the_minimum_per_sample(store: RecordStore) -> None:
    ranked = _keep(store, "standard", [1, 1, 0, 1])
    _keep(store, "adaptive:a", [0, 1, 1, 1])
    _keep(store, "reference:b", [1, 1, 1, 1])
    best = best_known(ranked, RANKED, store.records(), store.samples)
    assert best.scores.tolist() == [0, 1, 0, 1]
    assert (best.estimate.value, best.estimate.n) == (0.5, 4)
    assert best.lowered_by == ("adaptive:a",)


def test_best_known_joins_by_sample_id(store: RecordStore) -> None:
    ranked = _keep(store, "standard", [1, 0.5, 0.75], ids=[4, 7, 9])
    _keep(store, "adaptive:subset", [0.25, 0], ids=[9, 100])
    best = best_known(ranked, RANKED.card(), store.records(), store.samples)
    assert best.scores.tolist() == [1, 0.5, 0.25]
    assert best.estimate.n == 3


@pytest.mark.parametrize(
    "changes",
    [
        {"defense": {"name": "Other"}},
        {"dataset": {"name": "other"}},
        {"checkpoint": Checkpoint(sha256="e" * 64, seed=0)},
        {"data_sha256": "e" * 64},
        {"split": "val"},
        {"revisions": {"dataset": 1, "task": 1, "defense": 2, "protocol": 1, "engine": 1}},
        {"threat_model": {**example_record().protocol["threat_model"], "support": "outside-mask"}},
        {"budgets": (example_budget(eps=8 / 255),)},  # a larger ball
        {"status": RecordStatus.FAILED},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_best_known_leaves_other_questions_alone(store: RecordStore, changes: dict) -> None:
    ranked = _keep(store, "standard", [1, 1])
    _keep(store, "adaptive:other", [0, 0], **changes)
    assert best_known(ranked, RANKED, store.records(), store.samples).scores.tolist() == [1, 1]


def test_best_known_spans_revisions_of_attackers_and_budgets_by_place(store: RecordStore) -> None:
    ranked = _keep(store, "standard", [1, 1])
    budgets = (example_budget(eps=2 / 255), example_budget())
    revisions = {"dataset": 1, "task": 1, "defense": 1, "protocol": 5, "engine": 3, "twin": 1}
    samples = example_samples([1, 1]).assign(score_1=[0.0, 1.0])
    key = "phantom/Undefended/adaptive-s0-ff"
    card = {**ranked.protocol, "name": "adaptive"}
    store.write(example_record(key=key, protocol=card, budgets=budgets, revisions=revisions), samples)
    assert best_known(ranked, RANKED, store.records(), store.samples).scores.tolist() == [0, 1]


def test_best_known_needs_the_ranked_budget(store: RecordStore) -> None:
    with pytest.raises(InputContractError, match="no scores at Linf 8/255"):
        best_known(_keep(store, "standard", [1, 1]), linf(8 / 255), [], store.samples)


def test_best_known_counts_what_was_found_in_smaller_balls(store: RecordStore) -> None:
    ranked = _keep(store, "standard", [1, 1], budgets=(example_budget(eps=8 / 255),))
    _keep(store, "challenge", [0, 1], budgets=(example_budget(eps=4 / 255),))
    _keep(store, "larger", [0, 0], budgets=(example_budget(eps=16 / 255),))
    assert best_known(ranked, linf(8 / 255), store.records(), store.samples).scores.tolist() == [0, 1]


def test_best_known_of_a_stochastic_defense_is_one_record_as_a_whole(store: RecordStore) -> None:
    """A minimum of noisy means would be [0.2, 0.3, 0.1], lower than any record says."""
    noisy = {"defense": {"name": "Noise", "randomness": "sample"}}
    ranked = _keep(store, "standard", [0.6, 0.3, 0.1], **noisy)
    _keep(store, "adaptive:a", [0.2, 0.4, 0.3], **noisy)
    _keep(store, "adaptive:b", [0.9, 0.9, 0.0], **noisy)
    _keep(store, "smaller", [0.0, 0.0, 0.0], budgets=(example_budget(eps=2 / 255),), **noisy)
    best = best_known(ranked, RANKED, store.records(), store.samples)
    assert best.scores.tolist() == pytest.approx([0.2, 0.4, 0.3]) and best.lowered_by == ("adaptive:a",)


def test_a_part_of_the_samples_stands_for_all_with_the_scores_of_the_ranked_record(store: RecordStore) -> None:
    noisy = {"defense": {"name": "Noise", "randomness": "sample"}}
    ranked = _keep(store, "standard", [0.6, 0.3, 0.1], **noisy)
    _keep(store, "adaptive:a", [0.5, 0.3, 0.1], **noisy)
    _keep(store, "challenge", [0.0], ids=[0], **noisy)
    best = best_known(ranked, RANKED, store.records(), store.samples)
    assert best.scores.tolist() == pytest.approx([0.0, 0.3, 0.1]) and best.lowered_by == ("challenge",)
