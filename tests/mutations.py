"""One slip for each attack and objective, and the test beside an independent reference that has to see it.

    python -m tests.mutations            tries all, some seconds each
    python -m tests.mutations PGD FAB    tries these

The code is copied, a line of it changed, and the test run on the copy, where it must fail; unchanged it must pass.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from registry import ROOT

FOLDERS = ("attacks", "benchmark", "datasets", "defenses", "registry", "reports", "results", "tests")
"""What a copy holds, without records, pages and weights."""


class Mutation(NamedTuple):
    """A slip and who sees it."""

    name: str
    """Attack or objective."""
    path: str
    """File of the slip."""
    old: str
    """A text that stands there once."""
    new: str
    """What the slip makes of it."""
    test: str
    """Test that must fail then."""


MUTATIONS = tuple(
    Mutation(**fields) for fields in tomllib.loads((Path(__file__).parent / "mutations.toml").read_text())["mutation"]
)


def copied(folder: Path) -> Path:
    """Copies the code and its tests, and returns the copy."""
    for name in FOLDERS:
        ignored = shutil.ignore_patterns("__pycache__", "records", "site", "weights")
        shutil.copytree(ROOT / name, folder / name, ignore=ignored)
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


def outcome(folder: Path, test: str) -> int:
    """Returns pytest's exit status of one file or test in a copy: 0 passed, 1 failed."""
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", test]
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, check=False).returncode


def caught(mutation: Mutation, folder: Path) -> bool:
    """Returns whether the test fails in a copy with the slip; the copy is as before afterwards.

    Raises:
        ValueError: The text does not stand in the file exactly once.
    """
    path = folder / mutation.path
    before = path.read_text(encoding="utf-8")
    if before.count(mutation.old) != 1:
        raise ValueError(f"{mutation.name}: {mutation.old!r} should stand once in {mutation.path}; change the mutation")
    try:
        path.write_text(before.replace(mutation.old, mutation.new), encoding="utf-8")
        return outcome(folder, mutation.test) == 1
    finally:
        path.write_text(before, encoding="utf-8")


def main(names: Sequence[str]) -> int:
    """Tries the mutations of these names, or all, and returns how many nobody saw."""
    wanted = [mutation for mutation in MUTATIONS if not names or mutation.name in names]
    missed = 0
    with tempfile.TemporaryDirectory() as temporary:
        folder = copied(Path(temporary) / "copy")
        for mutation in wanted:
            seen = caught(mutation, folder)
            missed += not seen
            print(f"{'caught' if seen else 'MISSED'}  {mutation.name}: {mutation.test}", flush=True)
    print(f"{len(wanted) - missed} of {len(wanted)} caught")
    return missed


if __name__ == "__main__":
    sys.exit(min(main(sys.argv[1:]), 1))
