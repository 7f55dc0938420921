"""Further processes that work through the same plan: the results folder keeps two of them off one cell."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TextIO

from benchmark.environment import JOBS
from registry import ROOT

PARENT = "MEDROBUST_HELPS"
"""Environment variable of a helper: the process that it helps."""
NO_NEWS = (None, 0, 1, 130)
"""Exit codes of a helper that need no word: it runs, all is done, a cell failed (which has a record), Ctrl-C."""
LOOK = 1.0
"""Seconds between two looks whether that process still lives."""


@contextmanager
def helpers(words: Sequence[str], count: int, threads: int) -> Iterator[None]:
    """Runs `count` further processes of a command while active, each with so many threads.

    They take cells that nobody works on, and end here, when the plan is done or the run is interrupted. What a helper
    leaves unfinished then was finished by another process, or is done again by the next run. Cells that failed in an
    earlier run are repeated by this process alone: a helper could not tell that failure from a new one.

    Args:
        words: The command line after `python -m benchmark`.
        count: Number of processes beside this one.
        threads: Threads of each on a CPU.
    """
    before = os.environ.get(JOBS, "1")
    os.environ[JOBS] = str(count + 1)
    paths = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), PARENT: str(os.getpid()), "PYTHONPATH": paths}
    words = [word for word in words if word != "--retry-failed"]
    command = [sys.executable, "-m", "benchmark", *words, "--jobs", "1", "--quiet"]
    with ExitStack() as files:
        said = [files.enter_context(tempfile.TemporaryFile("w+")) for _ in range(count)]
        quiet = {"stdout": subprocess.DEVNULL, "stdin": subprocess.DEVNULL, "env": environment}
        running = [subprocess.Popen(command, stderr=file, **quiet) for file in said]
        try:
            yield
        finally:
            for process, file in zip(running, said, strict=True):
                _tell_of_a_death(process, file)
                process.terminate()
            for process in running:
                process.wait()
            os.environ[JOBS] = before


def _tell_of_a_death(process: subprocess.Popen, said: TextIO) -> None:
    """Says on standard error that a helper ended otherwise than with all cells done or one failed."""
    if process.poll() in NO_NEWS:
        return
    said.seek(0)
    last = (said.read().strip().splitlines() or ["no message"])[-1]
    print(f"a helper of this run ended with code {process.returncode}: {last}", file=sys.stderr)


def end_with_parent() -> None:
    """Ends this process soon after the one that it helps has died; does nothing in any other process."""
    parent = os.environ.get(PARENT)
    if parent is None:
        return

    def look() -> None:
        while os.getppid() == int(parent):
            time.sleep(LOOK)
        os._exit(1)

    threading.Thread(target=look, daemon=True).start()
