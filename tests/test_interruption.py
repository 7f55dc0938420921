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
