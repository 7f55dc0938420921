"""`show`: a record as text, finished or failed."""

from __future__ import annotations

from dataclasses import replace

from benchmark.record_text import describe
from registry import Norm
from results.record import Escalation, Estimate, Failure, Flag, RecordStatus
from tests.example_records import KEY, example_budget, example_record


def test_a_finished_record_tells_result_interval_count_and_attacks():
    text = describe(example_record())
    assert text.startswith(KEY)
    assert "clean  87.5%  [53.0%, 98.0%]  n = 8" in text
    assert "Worst case at Linf 4/255 (accuracy)" in text and "robust  25.0%  [0.0%, 100.0%]  n = 8" in text
    assert "apgd-margin  8          2        1      25.0%" in text
    assert "ok  zero-gradient" in text


def test_an_escalation_tells_what_it_tried_and_lowered():
    flag = Flag(name="zero-gradient", red=True, evidence="no gradient")
    tried = Escalation(
        budget=example_budget().budget,
        flags=(flag,),
        members=example_budget().members,
        strongest="BPDA",
        why="BPDA 6",
        robust_before=0.75,
        robust_after=0.25,
        failure="MemoryError",
    )
    text = describe(example_record(escalation=tried))
    assert "Escalation at Linf 4/255, after zero-gradient" in text
    assert "robust      75.0% before, 25.0% after" in text
    assert "UNFINISHED  MemoryError" in text
    note = Flag(name="constant", red=False, noted=True, evidence="all predictions are the same")
    assert "note  constant" in describe(example_record(flags=(note,)))


def test_a_red_flag_stands_out():
    flag = Flag(name="stateful", red=True, evidence="outputs differ")
    assert "RED  stateful  outputs differ" in describe(example_record(flags=(flag,)))


def test_a_failed_record_tells_why():
    failure = Failure(kind="ValueError", message="bad luck", traceback="Traceback ...\nValueError: bad luck\n")
    record = replace(
        example_record(),
        status=RecordStatus.FAILED,
        failure=failure,
        clean={},
        budgets=(),
        checkpoint=None,
        cost=None,
        samples=None,
        flags=(),
        data_sha256="",
    )
    text = describe(record)
    assert "FAILED: ValueError: bad luck" in text and "Traceback ..." in text and "data sha256  not read" in text


def test_pixels_are_no_percent_and_modalities_have_a_budget_each():
    metrics = {"hd95": Estimate(value=3.25, low=1.0, high=9.0, n=8)}
    card = {"norm": str(Norm.LINF), "eps": [4 / 255, 0]}
    text = describe(example_record(clean=metrics, budgets=(replace(example_budget(), budget=card),)))
    assert "hd95  3.25  [1.00, 9.00]  n = 8" in text
    assert "Worst case at Linf (4/255, 0)" in text
