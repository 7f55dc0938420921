"""Helpers of a run share its plan and never outlive it."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time

import pytest
import torch

from benchmark import helpers as module
from benchmark.cli import main
from benchmark.helpers import PARENT, helpers
from benchmark.runner import Run
from registry import ROOT
from results.store import RecordStore

ASLEEP = [sys.executable, "-c", "import sys, time; print(sys.argv[1:], flush=True); time.sleep(600)"]


@pytest.fixture
def started(monkeypatch):
    """Puts sleeping processes in the place of helpers, and keeps their commands and environments."""
    real, made = subprocess.Popen, []

    def popen(command, **options):
        made.append((command, options["env"], real(ASLEEP, **options)))
        return made[-1][2]

    monkeypatch.setattr(module.subprocess, "Popen", popen)
    return made


def test_helpers_repeat_the_command_quietly_and_end_with_it(started):
    with helpers(["run", "--suite", "smoke", "--retry-failed", "--jobs", "3"], 2, threads=4):
        assert [process.poll() for _, _, process in started] == [None, None]
    for command, environment, process in started:
        assert command[2:] == ["benchmark", "run", "--suite", "smoke", "--jobs", "3", "--jobs", "1", "--quiet"]
        assert environment["OMP_NUM_THREADS"] == "4" and environment[PARENT] == str(os.getpid())
        assert process.poll() is not None


def test_helpers_end_when_the_run_is_interrupted(started):
    with pytest.raises(KeyboardInterrupt), helpers(["run"], 1, threads=1):
        raise KeyboardInterrupt
    assert started[0][2].poll() is not None


def test_a_helper_ends_when_its_parent_is_killed():
    helper = "from benchmark.helpers import end_with_parent; end_with_parent(); print(1, flush=True); input()"
    parent = (
        "import os, subprocess, sys, time\n"
        f"os.environ[{PARENT!r}] = str(os.getpid())\n"
        f"child = subprocess.Popen([sys.executable, '-c', {helper!r}], stdin=subprocess.PIPE, stdout=subprocess.PIPE)\n"
        "child.stdout.readline()\n"
        "print(child.pid, flush=True)\n"
        "time.sleep(600)"
    )
    process = subprocess.Popen([sys.executable, "-c", parent], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    child = int(process.stdout.readline())
    process.kill()
    process.wait()
    deadline = time.monotonic() + 20
    while _lives(child) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not _lives(child)


def _lives(pid: int) -> bool:
    """Returns whether a process runs; one that has ended and waits for its parent does not."""
    try:
        with open(f"/proc/{pid}/stat") as file:  # noqa: PTH123
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_helpers_do_the_work_of_a_run(tmp_path, monkeypatch):
    """This process only waits: every record is a helper's."""

    def wait(self):
        deadline = time.monotonic() + 200
        while len(tuple(self._store.keys())) < len(self._evaluations) and time.monotonic() < deadline:
            time.sleep(0.2)
        return self.outcome

    before = torch.get_num_threads()
    words = ["run", "--suite", "smoke", "--dataset", "phantom2", "--protocol", "clean", "--n", "4", "--device", "cpu"]
    assert main([*words, "--quiet", "--results", str(tmp_path / "alone")]) == 0
    monkeypatch.setattr(Run, "walk", wait)
    assert main([*words, "--jobs", "2", "--quiet", "--results", str(tmp_path / "helped")]) == 0
    assert torch.get_num_threads() == before
    scores = [
        {record.key: record.clean["clean"].value for record in RecordStore(tmp_path / name).records()}
        for name in ("alone", "helped")
    ]
    assert scores[0] == scores[1] and len(scores[0]) == 3
    devices = {record.provenance.device.split("; ")[0] for record in RecordStore(tmp_path / "helped").records()}
    assert all("2 jobs side by side" in device for device in devices)


def test_the_death_of_a_helper_is_told(capsys):
    """A command line that no process understands: it ends with 2."""
    ended = subprocess.Popen([sys.executable, "-c", "import sys; sys.exit('no such thing')"])
    ended.wait()
    for code, told in ((0, False), (1, False), (130, False), (2, True), (-9, True)):
        ended.returncode = code
        with tempfile.TemporaryFile("w+") as said:
            said.write("Traceback\nMemoryError: too large\n")
            module._tell_of_a_death(ended, said)
        assert ("MemoryError: too large" in capsys.readouterr().err) is told
