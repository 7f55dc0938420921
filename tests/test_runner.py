"""The runner: missing cells only, one record per cell, failures kept, interruption and company survived."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pandas as pd
import pytest

import benchmark.runner
from benchmark.cells import EvaluationCell, TrainingCell
from benchmark.estimate import Costs
from benchmark.plan import Plan
from benchmark.runner import Outcome, Run
from benchmark.states import CellState, states_of
from registry import ROOT
from registry.errors import NewerSchemaError, ResultsError
from results.record import SCHEMA, Checkpoint, EvaluationRecord, Failure, Provenance, RecordStatus
from results.store import RecordStore

PROVENANCE = Provenance(
    started_at="2026-01-01T00:00:00+00:00",
    commit=None,
    dirty=False,
    python="3",
    platform="x",
    device="cpu",
    packages={},
)


def evaluation(defense: str, protocol: str, *needs: str) -> EvaluationCell:
    return EvaluationCell(
        key=f"toy/{defense}/{protocol}-s0-0123456789",
        defense=defense,
        dataset="toy",
        protocol=protocol,
        training=needs[0] if needs else None,
        training_seed=0,
        n_samples=3,
        needs=needs,
    )


PLAN = Plan(
    trainings=(
        TrainingCell(key="toy/Base-s0-1", defense="Base", dataset="toy", seed=0),
        TrainingCell(key="toy/Top-s0-2", defense="Top", dataset="toy", seed=0, after=("toy/Base-s0-1",)),
    ),
    evaluations=(
        evaluation("Base", "clean", "toy/Base-s0-1"),
        evaluation("Base", "standard", "toy/Base-s0-1"),
        evaluation("Free", "clean"),
        evaluation("Top", "clean", "toy/Base-s0-1", "toy/Top-s0-2"),
        evaluation("Top", "standard", "toy/Top-s0-2"),
    ),
    skips=(),
)
TOP = [cell.key for cell in PLAN.evaluations if cell.defense == "Top"]


class FakeWork:
    """Trains by remembering a name; fails or is interrupted where it is told to."""

    def __init__(self, *, fails: set[str] = frozenset(), interrupts: int = -1, weights: str = "w") -> None:
        self.fails, self.interrupts, self.weights = fails, interrupts, weights
        self.trained: set[str] = set()
        self.calls: list[str] = []

    def train(self, cell, inside):
        self._call(cell)
        inside(0.5, "epoch 1")
        self.trained.add(cell.key)

    def evaluate(self, cell, inside):
        self._call(cell)
        inside(0.5, "apgd")
        missing = set(cell.needs) - self.trained
        assert not missing, f"evaluated before {missing}"
        table = pd.DataFrame({"sample_id": [0, 1, 2], "clean_score": [1.0, 0.0, 1.0]})
        return record(cell, self.weights), table, None

    def failed_record(self, cell, failure):
        return record(cell, self.weights, failure)

    def is_trained(self, cell):
        return cell.key in self.trained

    def weights_of(self, cell):
        return self.weights

    def _call(self, cell):
        if len(self.calls) == self.interrupts:
            raise KeyboardInterrupt
        self.calls.append(cell.key)
        if cell.key in self.fails:
            raise ValueError(f"bad luck with {cell.key}\nand more")


def record(cell: EvaluationCell, weights: str, failure: Failure | None = None) -> EvaluationRecord:
    return EvaluationRecord(
        key=cell.key,
        status=RecordStatus.FAILED if failure else RecordStatus.DONE,
        dataset={"name": cell.dataset},
        data_sha256="",
        split=cell.split,
        n_planned=cell.n_samples,
        defense={"name": cell.defense},
        checkpoint=None if failure else Checkpoint(sha256=weights, seed=0),
        protocol={"name": cell.protocol},
        attack_seed=0,
        revisions={},
        quality="accuracy",
        provenance=PROVENANCE,
        failure=failure,
    )


def run(folder: Path, work: FakeWork, *, retry_failed: bool = False) -> Outcome:
    return Run(PLAN, RecordStore(folder), work, Costs(), retry_failed=retry_failed, quiet=True).walk()


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and ".locks" not in path.parts
    }


def test_everything_is_done_in_the_order_of_the_plan(tmp_path):
    work = FakeWork()
    outcome = run(tmp_path, work)
    assert work.calls == [cell.key for cell in (*PLAN.trainings, *PLAN.evaluations)]
    assert outcome.done == [cell.key for cell in PLAN.evaluations]
    assert outcome.exit_code == 0
    assert set(RecordStore(tmp_path).keys()) == set(outcome.done)


def test_a_second_run_does_nothing_and_changes_no_byte(tmp_path):
    run(tmp_path, FakeWork())
    before = contents(tmp_path)
    work = FakeWork()  # its weights are gone, and nothing needs them any more
    outcome = run(tmp_path, work)
    assert work.calls == [] and len(outcome.reused) == len(PLAN.evaluations)
    assert contents(tmp_path) == before


def test_other_weights_make_a_record_stale(tmp_path):
    run(tmp_path, FakeWork(weights="old"))
    work = FakeWork(weights="new")
    assert set(states_of(PLAN, RecordStore(tmp_path), work.weights_of).values()) == {CellState.STALE}
    outcome = run(tmp_path, work)
    assert len(outcome.done) == len(PLAN.evaluations)
    assert {found.checkpoint.sha256 for found in RecordStore(tmp_path).records()} == {"new"}


def test_absent_weights_leave_a_finished_record_alone(tmp_path):
    run(tmp_path, FakeWork())
    work = FakeWork(weights=None)
    assert set(states_of(PLAN, RecordStore(tmp_path), work.weights_of).values()) == {CellState.DONE}


def test_a_failing_cell_leaves_a_record_and_the_others_go_on(tmp_path):
    key = PLAN.evaluations[1].key
    outcome = run(tmp_path, FakeWork(fails={key}))
    assert len(outcome.done) == len(PLAN.evaluations) - 1
    assert outcome.failed == {key: f"ValueError: bad luck with {key}"}
    assert outcome.exit_code == 1
    failure = RecordStore(tmp_path).read(key).failure
    assert failure.kind == "ValueError" and "Traceback" in failure.traceback


def test_failed_cells_are_repeated_only_when_asked(tmp_path):
    key = PLAN.evaluations[1].key
    run(tmp_path, FakeWork(fails={key}))
    again = run(tmp_path, FakeWork())
    assert again.failed_before == [key] and again.done == [] and again.exit_code == 1
    retried = run(tmp_path, FakeWork(), retry_failed=True)
    assert retried.done == [key] and retried.exit_code == 0


def test_a_failing_training_fails_what_depends_on_it_and_nothing_else(tmp_path):
    work = FakeWork(fails={"toy/Top-s0-2"})
    outcome = run(tmp_path, work)
    assert set(outcome.failed) == {"toy/Top-s0-2", *TOP}
    assert len(outcome.done) == 3
    assert "bad luck with toy/Top-s0-2" in RecordStore(tmp_path).read(TOP[0]).failure.message


def test_a_failing_base_fails_the_training_on_top_of_it(tmp_path):
    work = FakeWork(fails={"toy/Base-s0-1"})
    outcome = run(tmp_path, work)
    assert "toy/Top-s0-2" not in work.calls
    assert outcome.done == ["toy/Free/clean-s0-0123456789"]


def test_weights_that_another_process_trains_meanwhile_will_do(tmp_path):
    """The training failed here, for want of memory say; elsewhere it went well."""
    base = PLAN.trainings[0].key

    class LuckyElsewhere(FakeWork):
        def train(self, cell, inside):
            try:
                super().train(cell, inside)
            finally:
                self.trained.add(cell.key)

    work = LuckyElsewhere(fails={base})
    outcome = run(tmp_path, work)
    assert list(outcome.failed) == [base]
    assert outcome.done == [cell.key for cell in PLAN.evaluations]


def test_what_another_process_trains_is_waited_for(tmp_path, monkeypatch):
    base, store = PLAN.trainings[0].key, RecordStore(tmp_path)
    work = FakeWork(fails={base})
    walk = Run(PLAN, store, work, Costs(), retry_failed=False, quiet=True)
    claim = store.claim(f"training/{base}")

    def let_go(seconds):
        work.trained.add(base)
        claim.__exit__(None, None, None)

    real = walk._train

    def train_then_hold(cell):
        done = real(cell)
        if cell.key == base:
            assert claim.__enter__() is not None
        return done

    monkeypatch.setattr(walk, "_train", train_then_hold)
    monkeypatch.setattr(benchmark.runner.time, "sleep", let_go)
    outcome = walk.walk()
    assert {cell.key for cell in PLAN.evaluations if cell.defense == "Base"} <= set(outcome.done)


@pytest.mark.parametrize("moment", range(7))
def test_an_interrupted_run_goes_on_to_the_same_records(tmp_path, moment):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    run(whole, FakeWork())
    work = FakeWork(interrupts=moment)
    with pytest.raises(KeyboardInterrupt):
        run(parts, work)
    assert len(RecordStore(parts).keys()) == max(0, moment - len(PLAN.trainings))
    work.interrupts = -1
    outcome = run(parts, work)
    assert len(work.calls) == len(PLAN.trainings) + len(PLAN.evaluations), "a finished cell was repeated"
    assert len(outcome.reused) == max(0, moment - len(PLAN.trainings))
    assert contents(parts) == contents(whole)


def test_records_of_weights_that_are_trained_anew_are_made_again(tmp_path):
    run(tmp_path, FakeWork(weights="old"))
    gone = RecordStore(tmp_path).path_of("toy/Base/standard-s0-0123456789")
    gone.unlink()

    class OtherMachine(FakeWork):
        """Has no weights until it trains some, which differ."""

        def weights_of(self, cell):
            return self.weights if cell.needs and set(cell.needs) <= self.trained else None

    work = OtherMachine(weights="new")
    outcome = run(tmp_path, work)
    trained_anew = [cell.key for cell in PLAN.evaluations if cell.needs == ("toy/Base-s0-1",)]
    assert sorted(outcome.done) == sorted(trained_anew)
    assert set(outcome.reused) == {cell.key for cell in PLAN.evaluations} - set(trained_anew)
    weights = {one.key: one.checkpoint.sha256 for one in RecordStore(tmp_path).records()}
    assert {key for key, sha in weights.items() if sha == "new"} == set(trained_anew)


def test_a_killed_run_goes_on_to_the_same_records(tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    run(whole, FakeWork())
    script = (
        "import os, signal, sys; from pathlib import Path; from tests import test_runner as t\n"
        "class Killed(t.FakeWork):\n"
        "    def evaluate(self, cell, inside):\n"
        "        if len(self.calls) == 4: os.kill(os.getpid(), signal.SIGKILL)\n"
        "        return super().evaluate(cell, inside)\n"
        "t.run(Path(sys.argv[1]), Killed())\n"
    )
    ended = subprocess.run([sys.executable, "-c", script, str(parts)], cwd=ROOT, env=os.environ | {"PYTHONPATH": "."})
    assert ended.returncode == -signal.SIGKILL
    assert len(RecordStore(parts).keys()) == 2
    run(parts, FakeWork())
    assert contents(parts) == contents(whole)


def test_two_runs_at_once_share_the_work(tmp_path, monkeypatch):
    monkeypatch.setattr(benchmark.runner, "WAIT", 0.01)
    meet = threading.Barrier(2, timeout=30)

    class Slow(FakeWork):
        def evaluate(self, cell, inside):
            if cell.key not in TOP:
                meet.wait()  # both are inside a cell at the same time
            return super().evaluate(cell, inside)

    plan = Plan(trainings=(), evaluations=tuple(evaluation(f"D{k}", "clean") for k in range(4)), skips=())
    outcomes: list[Outcome] = []

    def start():
        one = Run(plan, RecordStore(tmp_path), Slow(), Costs(), retry_failed=False, quiet=True)
        meet.wait()
        outcomes.append(one.walk())

    threads = [threading.Thread(target=start) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    done = [key for outcome in outcomes for key in outcome.done]
    assert sorted(done) == sorted(cell.key for cell in plan.evaluations), "each cell is done once, by one of them"
    assert [len(outcome.done) + len(outcome.reused) for outcome in outcomes] == [4, 4]
    assert len(list(RecordStore(tmp_path).records())) == 4


def test_a_cell_held_by_another_process_is_done_after_it_lets_go(tmp_path, monkeypatch, capsys):
    store, work = RecordStore(tmp_path), FakeWork()
    held = store.claim(PLAN.evaluations[0].key)
    held.__enter__()
    monkeypatch.setattr(benchmark.runner.time, "sleep", lambda seconds: held.__exit__(None, None, None))
    outcome = Run(PLAN, store, work, Costs(), retry_failed=False, quiet=True).walk()
    assert outcome.done[-1] == PLAN.evaluations[0].key, "the others come first"
    assert "waiting for another process" in capsys.readouterr().err


def test_a_training_held_by_another_process_is_taken_over_from_it(tmp_path, monkeypatch):
    store, work = RecordStore(tmp_path), FakeWork()
    held = store.claim("training/toy/Base-s0-1")
    held.__enter__()

    def release(seconds):
        work.trained.add("toy/Base-s0-1")
        held.__exit__(None, None, None)

    monkeypatch.setattr(benchmark.runner.time, "sleep", release)
    outcome = Run(PLAN, store, work, Costs(), retry_failed=False, quiet=True).walk()
    assert "toy/Base-s0-1" not in work.calls and "toy/Top-s0-2" in work.calls
    assert len(outcome.done) == len(PLAN.evaluations)


def test_a_record_of_a_newer_version_stops_the_run(tmp_path):
    run(tmp_path, FakeWork())
    path = RecordStore(tmp_path).path_of(PLAN.evaluations[0].key)
    path.write_text(path.read_text().replace(f'"schema": {SCHEMA}', '"schema": 99'))
    with pytest.raises(NewerSchemaError):
        run(tmp_path, FakeWork())


def test_a_torn_record_is_written_anew(tmp_path):
    run(tmp_path, FakeWork())
    before = contents(tmp_path)
    path = RecordStore(tmp_path).path_of(PLAN.evaluations[0].key)
    path.write_bytes(path.read_bytes()[:100])
    assert run(tmp_path, FakeWork()).done == [PLAN.evaluations[0].key]
    assert contents(tmp_path) == before


def test_a_results_folder_that_cannot_be_made_is_the_users_mistake(tmp_path):
    (tmp_path / "file").write_text("in the way")
    work = FakeWork()
    with pytest.raises(ResultsError, match="cannot write results"):
        run(tmp_path / "file", work)
    assert work.calls == [], "nothing is computed that could not be kept"


def test_progress_is_told_in_lines_where_there_is_no_terminal(tmp_path, capsys):
    Run(PLAN, RecordStore(tmp_path), FakeWork(), Costs(), retry_failed=False, quiet=False).walk()
    text = capsys.readouterr().err
    assert "[0/7] train Base on toy, seed 0 ... (left: unknown (7 cells of unknown length))" in text
    assert "[7/7] Top on toy under standard, seed 0: done" in text
