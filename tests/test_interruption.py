"""Runs that are interrupted, killed or doubled end with the records of an undisturbed one."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from registry import ROOT
from results.store import RecordStore

pytestmark = pytest.mark.slow
COMMAND = ["run", "--suite", "smoke", "--dataset", "phantom2", "--defense", "Undefended", "--defense", "JPEG"]
TIMES = {"seconds", "latency_ms_1", "latency_ms_64", "peak_memory_mb", "training_seconds", "provenance"}


def start(results: Path) -> subprocess.Popen:
    """Starts a small run as a user would."""
    command = [sys.executable, "-m", "benchmark", *COMMAND, "--n", "16", "--results", str(results), "--quiet"]
    heed = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # a background shell hands down an ignored SIGINT
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, preexec_fn=heed)


def finish(results: Path) -> None:
    """Runs to the end."""
    process = start(results)
    _, errors = process.communicate()
    assert process.returncode == 0, errors.decode()


def without_times(value):
    """Returns a record's document without what differs between two equal runs."""
    if isinstance(value, dict):
        return {name: without_times(part) for name, part in value.items() if name not in TIMES}
    return [without_times(part) for part in value] if isinstance(value, list) else value


def contents(results: Path) -> dict[str, object]:
    """Returns all records without times, and the names of the side files, which are checksums."""
    documents = {
        path.relative_to(results).as_posix(): without_times(json.loads(path.read_text()))
        for path in results.rglob("*.json")
    }
    return documents | {path.name: None for ending in ("parquet", "npz") for path in results.rglob(f"*.{ending}")}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> tuple[dict[str, object], float]:
    results = tmp_path_factory.mktemp("undisturbed") / "records"
    started = time.monotonic()
    finish(results)
    return contents(results), time.monotonic() - started


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_interrupted_five_times(how, undisturbed, tmp_path):
    expected, duration = undisturbed
    results, moments, codes = tmp_path / "records", random.Random(int(how)), []
    for _ in range(5):
        process = start(results)
        time.sleep(moments.uniform(0.05, 0.95) * duration)
        process.send_signal(how)
        process.communicate()
        codes.append(process.returncode)
        store = RecordStore(results)
        list(store.records())
        assert not store.damaged
    assert {130, -signal.SIGINT, -signal.SIGKILL} & set(codes), f"no run was stopped: exit codes {codes}"
    finish(results)
    assert contents(results) == expected


def test_two_runs_at_once(undisturbed, tmp_path):
    results = tmp_path / "records"
    both = [start(results), start(results)]
    for process in both:
        _, errors = process.communicate()
        assert process.returncode == 0, errors.decode()
    assert contents(results) == undisturbed[0]


NOISY = ["run", "--suite", "controls", "--dataset", "phantom2", "--defense", "ControlLogitNoise"]
"""A defense whose every answer is drawn."""
KEEPING = """
import sys
import benchmark.journal_folder
from benchmark.cli import main
benchmark.journal_folder.LEAST_SECONDS = 0.0  # so that steps of a small cell are worth a file, too
sys.exit(main(sys.argv[1:]))
"""


def start_noisy(results: Path) -> subprocess.Popen:
    """Starts a run on a stochastic defense that keeps each of its steps."""
    options = ["--protocol", "adaptive:bare", "--n", "4", "--results", str(results), "--quiet"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen([sys.executable, "-c", KEEPING, *NOISY, *options], cwd=ROOT, env=environment)


def written_at(path: Path) -> int | None:
    """Returns when a file was written, in nanoseconds; None once it is gone, as steps are when their cell has ended."""
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return None


def test_a_stochastic_cell_killed_between_its_steps_ends_as_if_nothing_had_been(tmp_path):
    """kill -9 right after a step was kept; the next run takes it up, and draws what the killed one would have drawn."""
    undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
    assert start_noisy(undisturbed).wait() == 0
    process = start_noisy(killed)
    while process.poll() is None and not list((killed / ".unfinished").glob("*/*/*/*.safetensors")):
        time.sleep(0.05)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert not list(RecordStore(killed).records())
    kept = {path: written_at(path) for path in killed.glob(".unfinished/*/*/*/*.safetensors")}
    assert kept
    process = start_noisy(killed)
    rewritten = set()
    while process.poll() is None:  # as a step that ran again would be
        rewritten |= {path for path, then in kept.items() if written_at(path) not in (None, then)}
        time.sleep(0.2)
    assert process.returncode == 0
    assert not rewritten
    assert contents(killed) == contents(undisturbed)
