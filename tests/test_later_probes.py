"""`examine`: a record gets the flags of younger probes, the same as an evaluation today would give it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from safetensors.torch import load_file, save_file

from benchmark import later_probes
from benchmark.cli import main
from benchmark.weights import checkpoints_folder
from registry import load_entries
from results.later_probes import INSIDE, JUMP, SLOPE, TORN, lacking_probes
from results.record import Escalation, EvaluationRecord, Flag
from results.store import RecordStore
from tests import tiny_board


@pytest.fixture(scope="module", autouse=True)
def entries():
    load_entries()
    tiny_board.register()
    yield
    tiny_board.unregister()


def of_before(record: EvaluationRecord) -> EvaluationRecord:
    """Returns the record as it would be without the younger probes."""
    flags = []
    for flag in record.flags:
        values = {name: value for name, value in flag.values.items() if not name.startswith("inside ")}
        if flag.name not in (JUMP, TORN):
            flags.append(replace(flag, values=values))
    return replace(record, flags=tuple(flags))


@pytest.fixture
def store(tmp_path_factory, tmp_path) -> RecordStore:
    return tiny_board.copied(tmp_path_factory, tmp_path / "records")


def the_record(store: RecordStore) -> EvaluationRecord:
    (record,) = store.records()
    return record


def examine(store: RecordStore) -> int:
    return main(["examine", "--results", str(store.folder), "--device", "cpu"])


def by_name(record: EvaluationRecord) -> dict[str, Flag]:
    return {flag.name: flag for flag in record.flags}


def test_a_record_gets_what_an_evaluation_of_today_finds(store, capsys):
    today = the_record(store)
    assert lacking_probes(today) == ()
    store.write(of_before(today))
    assert lacking_probes(the_record(store)) == (INSIDE, JUMP, TORN)
    assert examine(store) == 0
    assert "1 records lacked a probe: 1 have it now, 0 have a red flag" in capsys.readouterr().out
    later = the_record(store)
    assert by_name(later).keys() == by_name(today).keys()
    for name, flag in by_name(today).items():
        assert by_name(later)[name].values == pytest.approx(flag.values), name
        assert by_name(later)[name].red == flag.red
    asked = by_name(later)[JUMP].evidence
    assert "asked later of the same weights, 2" in asked and "commit" in asked
    assert "asked later" not in by_name(later)["stateful"].evidence
    assert replace(later, flags=()) == replace(today, flags=())


def test_a_probe_that_has_grown_is_asked_again(store):
    today = the_record(store)
    jump = by_name(today)[JUMP]
    older = replace(jump, values={name: value for name, value in jump.values.items() if "boundary" not in name})
    assert older.values != jump.values
    store.write(replace(today, flags=tuple(older if flag is jump else flag for flag in today.flags)))
    assert lacking_probes(the_record(store)) == (SLOPE,)
    assert examine(store) == 0
    assert by_name(the_record(store))[JUMP].values == pytest.approx(jump.values)


def test_a_complete_record_stays_as_it_is(store, capsys):
    before = store.path_of(the_record(store).key).read_bytes()
    assert examine(store) == 0
    assert "0 records lacked a probe" in capsys.readouterr().out
    assert store.path_of(the_record(store).key).read_bytes() == before


def test_a_red_answer_is_written_and_said(store, capsys, monkeypatch):
    store.write(of_before(the_record(store)))
    red = later_probes.jump_finding
    monkeypatch.setattr(later_probes, "jump_finding", lambda *args, **more: replace(red(*args, **more), red=True))
    assert examine(store) == 0
    printed = capsys.readouterr().out
    assert "1 have a red flag" in printed and "run their cells again" in printed
    assert by_name(the_record(store))[JUMP].red


def test_an_escalated_record_is_left_to_a_new_run(store, capsys):
    record = of_before(the_record(store))
    tried = Escalation(
        budget=record.budgets[0].budget,
        flags=record.flags[:1],
        members=record.budgets[0].members,
        strongest="BPDA",
        why="",
        robust_before=0.5,
        robust_after=0.4,
    )
    store.write(replace(record, escalation=tried))
    assert examine(store) == 1
    assert "was escalated, and probes judge what it ended with (BPDA)" in capsys.readouterr().out
    assert JUMP not in by_name(the_record(store))


def test_other_weights_answer_for_nobody(store, capsys):
    store.write(of_before(the_record(store)))
    (path,) = checkpoints_folder(store.folder).rglob("*.safetensors")
    save_file({name: 2 * value for name, value in load_file(path).items()}, path)
    assert examine(store) == 1
    assert "0 have it now, 0 have a red flag now, 0 skipped, 1 failed" in capsys.readouterr().out
    assert JUMP not in by_name(the_record(store))


def test_a_damaged_record_is_told_and_the_others_are_asked(store, capsys):
    today = the_record(store)
    store.write(of_before(today))
    damaged = store.path_of(today.key.replace("-s0-", "-s1-"))
    damaged.write_text("{ torn", encoding="utf-8")
    assert examine(store) == 1
    printed = capsys.readouterr().out
    assert "1 have it now" in printed and "1 failed" in printed
    damaged.unlink()
    assert lacking_probes(the_record(store)) == ()


@pytest.mark.parametrize("changes", [{"task": "segmentation"}, {"multi_label": True}])
def test_other_decisions_than_one_label_are_asked_later_too(store, changes):
    record = of_before(the_record(store))
    assert JUMP in lacking_probes(replace(record, dataset={**record.dataset, **changes}))
    assert JUMP not in lacking_probes(replace(record, dataset={**record.dataset, "task": "landmark"}))
