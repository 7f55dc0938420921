"""The benchmark's own score: which controls count as caught, accepted or missed, and where pages show them."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from benchmark.cli import main
from registry import Budget, Family, KnownBy, Norm, Truth
from registry.errors import InvalidEntryError, ViolatedCertificateError
from reports.exam import Exam, Outcome
from reports.site import build_site
from reports.standings import build_standings
from results.record import Estimate, Flag
from results.store import RecordStore
from tests.synthetic_records import (
    RED,
    make_dataset,
    make_defense,
    make_failure,
    make_protocol,
    make_record,
    write_store,
)

GRID = make_protocol(budgets=[Budget(norm=Norm.LINF, eps=eps / 255) for eps in (4, 8)])
BARE = make_protocol("adaptive:bare", budgets=[Budget(norm=Norm.LINF, eps=4 / 255)])
PROBED_RED = (RED,)
STATE = Flag(name="stateful", red=True, evidence="outputs differ with the batch")


def truth(known_by: KnownBy = KnownBy.ATTACK) -> Truth:
    return Truth(known_by=known_by, statement="known")


def broken(name: str = "ControlSine", known_by: KnownBy = KnownBy.ATTACK, **changes):
    family = {"family": Family.CONTROL_BROKEN, "base": "Undefended", "truth": truth(known_by)}
    return make_defense(name, **(family | changes))


def honest(name: str = "ControlLinear", **changes):
    return make_defense(name, **({"family": Family.CONTROL_HONEST, "truth": truth()} | changes))


def record_of(defense, robust: float = 0.02, **arguments):
    return make_record(defense=defense, protocol=GRID, robust=(robust, 0.0), **arguments)


def exam_of(folder, *made) -> Exam:
    (exam,) = build_standings(write_store(folder, made)).exams
    return exam


def outcome_of(folder, *made) -> Outcome:
    rows = {row.defense.name: row.outcome for row in exam_of(folder, *made).rows}
    return rows[made[0].record.defense["name"]]


@pytest.mark.parametrize(
    ("measured", "outcome"), [(0.03, Outcome.CAUGHT), (0.04, Outcome.NOT_GRADED), (0.5, Outcome.NOT_GRADED)]
)
def test_a_broken_control_that_only_its_own_attacks_met_is_caught_near_0_alone(tmp_path, measured, outcome):
    exam = exam_of(tmp_path, record_of(broken(), measured, n=100, dataset=make_dataset(n_test=100)))
    (row,) = exam.rows
    assert row.measured == pytest.approx(measured) == row.truth
    assert (row.outcome, row.exact) == (outcome, False)
    assert exam.in_words.startswith(f"{int(measured == 0.03)} of 1 broken controls caught, 0 false alarms on 0 honest")
    assert exam.in_words.endswith("1 broken ones not graded") is (measured != 0.03)


def test_a_broken_control_of_an_exact_truth_is_caught_within_3_points_of_it(tmp_path):
    data = make_dataset(n_test=100)
    base = record_of(make_defense(), 0.2, dataset=data)
    for measured, outcome in ((0.23, Outcome.CAUGHT), (0.24, Outcome.MISSED)):
        made = record_of(broken("ControlLargeLogits", KnownBy.BASE), measured, dataset=data)
        exam = exam_of(tmp_path / str(measured), made, base)
        (row,) = exam.rows
        assert (row.outcome, row.exact, row.truth) == (outcome, True, pytest.approx(0.2))
        assert exam.truths_in_words == (
            "1 against an exact truth, 0 against the lowest score of any attack on the same weights, their own included"
        )


def test_the_truth_of_a_wrapper_is_of_its_own_training_seeds(tmp_path):
    bases = [record_of(make_defense(), robust, seed=seed) for seed, robust in ((0, 0.1), (1, 0.4), (2, 0.7))]
    wrapper = broken("ControlLargeLogits", KnownBy.BASE)
    (row,) = exam_of(tmp_path / "one", record_of(wrapper, 0.5, seed=1), *bases).rows
    assert (row.truth, row.seeds) == (pytest.approx(row_mean(bases[1])), (1,))
    two = [record_of(wrapper, 0.5, seed=seed) for seed in (0, 2)]
    (row,) = exam_of(tmp_path / "two", *two, *bases).rows
    assert (row.truth, row.seeds) == (pytest.approx((row_mean(bases[0]) + row_mean(bases[2])) / 2), (0, 2))


def test_a_wrapper_whose_base_has_no_such_seed_is_left_to_its_own_attacks(tmp_path):
    made = record_of(broken("ControlLargeLogits", KnownBy.BASE), 0.5, seed=3)
    (row,) = exam_of(tmp_path, made, record_of(make_defense(), 0.1, seed=0)).rows
    assert (row.truth, row.exact, row.outcome) == (pytest.approx(row_mean(made)), False, Outcome.NOT_GRADED)


def test_flags_that_the_escalation_settled_stand_beside_those_that_are_red(tmp_path):
    began = record_of(broken(), 0.2, flags=(RED,)).record.escalation
    began = replace(began, flags=(RED, replace(RED, name="zero-gradient")))
    settled = record_of(broken("ControlA"), 0.2, escalation=began)
    partly = record_of(broken("ControlB"), 0.2, flags=(RED,), escalation=began)
    unfinished = record_of(broken("ControlC"), 0.2, escalation=replace(began, failure="MemoryError: too large"))
    rows = exam_of(tmp_path, settled, partly, unfinished, record_of(broken("ControlD"), 0.2)).rows
    assert [row.flags_in_words for row in rows] == [
        "dishonest-gradient, zero-gradient, settled under BPDA",
        "dishonest-gradient; zero-gradient, settled under BPDA",
        "none",
        "none",
    ]


def test_a_broken_control_that_is_verified_too_high_is_missed(tmp_path):
    known = make_record(defense=broken(), protocol=BARE, robust=(0.0,))
    assert outcome_of(tmp_path, record_of(broken(), 0.5), known) is Outcome.MISSED


@pytest.mark.parametrize(("flag", "status"), [(RED, "contested"), (STATE, "unverified")])
def test_a_broken_control_that_a_flag_doubts_is_caught(tmp_path, flag, status):
    known = make_record(defense=broken(), protocol=BARE, robust=(0.0,))
    exam = exam_of(tmp_path, record_of(broken(), 0.5, flags=(flag,)), known)
    (row,) = exam.rows
    assert (row.status, row.outcome, row.flags) == (status, Outcome.CAUGHT, (flag.name,))
    assert exam.in_words == "1 of 1 broken controls caught, 0 false alarms on 0 honest ones"


def test_the_truth_of_a_wrapper_is_what_its_base_is_known_to_hold(tmp_path):
    wrapper = broken("ControlLargeLogits", KnownBy.BASE)
    base = record_of(make_defense(), 0.1)
    made = record_of(wrapper, 0.5)
    (row,) = exam_of(tmp_path, made, base).rows
    assert row.truth == pytest.approx(row_mean(base), abs=1e-6)
    assert row.outcome is Outcome.MISSED


def row_mean(made) -> float:
    return float(made.samples["score_0"].mean())


def test_only_the_samples_that_were_evaluated_count_for_the_truth(tmp_path):
    base = record_of(make_defense(), 0.5)
    few = record_of(broken("ControlLargeLogits", KnownBy.BASE), 0.5, n=40)
    (row,) = exam_of(tmp_path, few, base).rows
    assert row.n == 40
    assert row.truth == pytest.approx(float(base.samples["score_0"][:40].mean()))


def test_an_honest_control_is_accepted_doubted_or_measured_too_high(tmp_path):
    exact = {"certificate": "defenses.certified.closed_form:certify_linear", "truth": truth(KnownBy.CERTIFICATE)}
    for number, (flags, proven, expected) in enumerate(
        [((), 0.5, Outcome.ACCEPTED), (PROBED_RED, 0.5, Outcome.FALSE_ALARM), ((), 0.3, Outcome.TOO_HIGH)]
    ):
        arguments = {"flags": flags} if flags else {}
        made = with_certificate(record_of(honest(**exact), 0.5, **arguments), proven)
        exam = exam_of(tmp_path / str(number), made)
        assert exam.rows[0].outcome is expected
        assert exam.rows[0].truth == pytest.approx(proven, abs=0.01)
        assert exam.count(expected) == exam.n_honest == 1


def test_an_honest_control_without_an_exact_truth_is_at_best_not_contested(tmp_path):
    made = record_of(honest(), 0.5)
    assert outcome_of(tmp_path / "alone", made) is Outcome.NOT_CONTESTED
    lower = make_record(defense=honest(), protocol=BARE, robust=(0.1,))
    assert outcome_of(tmp_path / "lowered", made, lower) is Outcome.TOO_HIGH


def with_certificate(made, share: float):
    """Returns the record with the lowest samples of `share` proven at the first budget."""
    scores = made.samples["score_0"].to_numpy()
    bounds = np.zeros(len(scores))
    bounds[np.flatnonzero(scores == 1)[: round(share * len(scores))]] = 1
    first = made.record.budgets[0]
    value = Estimate(value=float(bounds.mean()), low=0.0, high=1.0, n=len(bounds))
    budgets = (replace(first, metrics=first.metrics | {"certified": value}), *made.record.budgets[1:])
    return replace(made, record=replace(made.record, budgets=budgets), samples=made.samples.assign(certified_0=bounds))


def test_ordinary_defenses_with_a_truth_count_as_honest_beside_controls_only(tmp_path):
    reference = record_of(make_defense("Madry2018PGDAT", truth=truth()), 0.6)
    assert build_standings(write_store(tmp_path / "alone", [reference])).exams == ()
    exam = exam_of(tmp_path / "both", record_of(broken()), reference)
    assert [(row.defense.name, row.broken) for row in exam.rows] == [("ControlSine", True), ("Madry2018PGDAT", False)]


def test_controls_are_on_no_board_and_have_no_say_in_its_ranks(tmp_path):
    ordinary = [record_of(make_defense(), 0.05), record_of(make_defense("Madry2018PGDAT"), 0.6)]
    alone = build_standings(write_store(tmp_path / "alone", ordinary))
    beside = build_standings(write_store(tmp_path / "both", [*ordinary, record_of(broken()), record_of(honest(), 0.8)]))
    assert beside.boards == alone.boards
    only = build_standings(write_store(tmp_path / "only", [record_of(broken())]))
    assert only.boards == ()


def test_a_failed_control_is_listed_as_incomplete(tmp_path):
    failed = make_failure(defense=broken("ControlVotes"), protocol=GRID)
    exam = exam_of(tmp_path, record_of(broken()), failed)
    assert exam.in_words.endswith("1 not evaluated to the end")
    row = exam.rows[1]
    assert (row.outcome, row.measured, row.reasons) == (
        Outcome.INCOMPLETE,
        None,
        ("ModelContractError: the model returns NaN",),
    )


def test_pages_and_exports_show_the_exam(tmp_path):
    store = write_store(tmp_path / "records", [record_of(broken()), record_of(make_defense(), 0.05)])
    build_site(store, tmp_path / "site")
    page = (tmp_path / "site/methodology.html").read_text()
    assert "BreastMNIST: 1 of 1 broken controls caught, 0 false alarms" in page
    assert "defenses/ControlSine.html" in page
    assert (tmp_path / "site/defenses/ControlSine.html").is_file()
    assert "ControlSine" not in (tmp_path / "site/index.html").read_text()
    assert "ControlSine" not in (tmp_path / "site/boards/breastmnist-linf-4-255.html").read_text()
    (line,) = json.loads((tmp_path / "site/leaderboard.json").read_text())["controls"]
    assert (line["defense"], line["outcome"], line["known_by"]) == ("ControlSine", "caught", "attack")
    assert (line["exact"], line["settled_flags"]) == (False, [])
    assert "0 against an exact truth, 1 against the lowest score of any attack on the same weights" in page


def test_the_command_prints_the_exam_and_fails_where_the_benchmark_was_fooled(tmp_path, capsys):
    write_store(tmp_path / "good", [record_of(broken())])
    assert main(["controls", "--results", str(tmp_path / "good")]) == 0
    out = capsys.readouterr().out
    assert "1 of 1 broken controls caught" in out and "their own included" in out
    known = make_record(defense=broken(), protocol=BARE, robust=(0.0,))
    write_store(tmp_path / "bad", [record_of(broken(), 0.5), known])
    assert main(["controls", "--results", str(tmp_path / "bad")]) == 1
    assert "missed" in capsys.readouterr().out
    assert main(["controls", "--results", str(tmp_path / "bad"), "--dataset", "phantom2"]) == 2
    assert "run --suite controls" in capsys.readouterr().err


def test_certificates_stand_beside_empirical_scores_on_a_board(tmp_path):
    made = with_certificate(record_of(make_defense("Certified2026", certificate="m:certify"), 0.5), 0.4)
    store = write_store(tmp_path / "records", [made])
    build_site(store, tmp_path / "site")
    board = (tmp_path / "site/boards/breastmnist-linf-4-255.html").read_text()
    assert "Certified beside empirical" in board
    assert "Certified beside empirical" not in (tmp_path / "site/boards/breastmnist-linf-8-255.html").read_text()
    (row, _) = json.loads((tmp_path / "site/leaderboard.json").read_text())["rows"]
    assert row["certified"] == pytest.approx(0.4, abs=0.01)


@pytest.mark.parametrize("defense", [make_defense("Certified2026"), honest("ControlCertified")], ids=["row", "control"])
def test_no_page_is_built_where_any_record_goes_under_a_certificate(tmp_path, defense):
    made = with_certificate(record_of(defense, 0.5), 0.4)
    lower = make_record(defense=defense, protocol=BARE, robust=(0.1,))
    store = write_store(tmp_path, [made, lower])
    with pytest.raises(ViolatedCertificateError, match="best-known score at Linf 4/255 below their certificate"):
        build_standings(store)
    assert main(["report", "--results", str(tmp_path), "--out", str(tmp_path / "site")]) == 1


def test_a_control_must_state_a_truth_that_can_be_known():
    with pytest.raises(InvalidEntryError, match="family control-broken: state its truth"):
        make_defense("ControlMute", family=Family.CONTROL_BROKEN)
    with pytest.raises(InvalidEntryError, match="known by its certificate; give one"):
        make_defense("ControlNone", truth=truth(KnownBy.CERTIFICATE))
    with pytest.raises(InvalidEntryError, match="known by its base; give one"):
        make_defense("ControlNone", truth=truth(KnownBy.BASE))


def test_cards_of_older_records_have_no_truth(tmp_path):
    made = record_of(make_defense())
    made.record.defense.pop("truth")
    assert len(build_standings(write_store(tmp_path, [made])).boards) == 2
    assert RecordStore(tmp_path).keys()


def test_training_seeds_of_fewer_samples_are_graded_in_a_row_of_their_own(tmp_path):
    """They are on no board, but what is known of them counts: a control is caught with all of its rows only."""
    full, fewer = record_of(broken()), record_of(broken(), 0.0, seed=1, n=50)
    exam = exam_of(tmp_path / "caught", full, fewer)
    assert [(row.seeds, row.n, row.outcome) for row in exam.rows] == [
        ((0,), 156, Outcome.CAUGHT),
        ((1,), 50, Outcome.CAUGHT),
    ]
    assert exam.in_words == "1 of 1 broken controls caught, 0 false alarms on 0 honest ones"
    exam = exam_of(tmp_path / "high", full, record_of(broken(), 0.2, seed=1, n=50))
    assert exam.in_words == "0 of 1 broken controls caught, 0 false alarms on 0 honest ones, 1 broken ones not graded"


def test_controls_without_a_row_are_named(tmp_path):
    exam = exam_of(tmp_path, record_of(broken()))
    here, other = honest("ControlOther"), honest("ControlElsewhere", datasets=("phantom*",))
    labels = honest("ControlMaps", tasks=("segmentation",))
    assert exam.unexamined([broken(), other, here, make_defense(), labels]) == ("ControlOther",)
    assert exam.unexamined([broken()]) == ()
