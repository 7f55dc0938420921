"""One slip for each attack and objective, and the test beside an independent reference that has to see it.

    python -m tests.mutations            tries all, about 6 s each
    python -m tests.mutations PGD FAB    tries these

The code is copied, a line of it changed, and the test run on the copy, where it must fail; unchanged it must pass.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
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


MUTATIONS = (
    Mutation(
        "PGD",
        "attacks/gradient.py",
        "rows.ball.project(query.points + step)",
        "rows.ball.project(query.points - step)",
        "tests/test_momentum.py::test_they_end_where_torchattacks_ends",
    ),
    Mutation(
        "FGSM",
        "attacks/gradient.py",
        "PGD(steps=1, step_size=1.0,",
        "PGD(steps=1, step_size=0.9,",
        "tests/test_momentum.py::test_they_end_where_torchattacks_ends",
    ),
    Mutation(
        "MIM",
        "attacks/momentum.py",
        'self._decay * memory["momentum"] + unit',
        "unit",
        "tests/test_momentum.py::test_they_end_where_torchattacks_ends",
    ),
    Mutation(
        "RandomSearch",
        "attacks/gradient.py",
        "ball.random(noise)",
        "ball.project(ball.originals + 0 * noise)",
        "tests/test_momentum.py::test_random_search_asks_for_new_points_at_the_edge",
    ),
    Mutation(
        "APGD",
        "attacks/apgd.py",
        'torch.where(halve, memory["step_size"] / 2, memory["step_size"])',
        'torch.where(halve, memory["step_size"] * 1, memory["step_size"])',
        "tests/test_apgd.py",
    ),
    Mutation(
        "APGD on DLR",
        "attacks/objectives/classification.py",
        "(ordered[:, 0] - ordered[:, 2] + 1e-12)",
        "(ordered[:, 0] - ordered[:, 1] + 1e-12)",
        "tests/test_objectives.py",
    ),
    Mutation(
        "APGD on targeted DLR",
        "attacks/objectives/classification.py",
        "ordered[:, 0] - (ordered[:, 2] + ordered[:, 3]) / 2",
        "ordered[:, 0] - ordered[:, 2] + ordered[:, 3] / 2",
        "tests/test_objectives.py",
    ),
    Mutation(
        "APGD on the margin",
        "attacks/objectives/classification.py",
        "return logits.scatter(1, label, -torch.inf).amax(1) - true",
        "return logits.amax(1) - true",
        "tests/test_objectives.py",
    ),
    Mutation(
        "APGD on targets",
        "attacks/objectives/classification.py",
        "(restart % (logits.shape[1] - 1))[:, None]",
        "(restart * 0)[:, None]",
        "tests/test_objectives.py",
    ),
    Mutation(
        "APGDL1",
        "attacks/apgd_l1.py",
        "(share * gradient.shape[2] + 1e-4)",
        "(share * 0)",
        "tests/test_apgd_l1.py",
    ),
    Mutation(
        "ShrinkingAPGD",
        "attacks/shrinking.py",
        'part.ball.project(part.memory["best_point"])',
        "part.ball.originals",
        "tests/test_shrinking.py",
    ),
    Mutation(
        "FAB",
        "attacks/fab.py",
        "_where(answer.objective > 0, self._beta * kept, kept)",
        "kept",
        "tests/test_fab.py",
    ),
    Mutation(
        "FAB, last search",
        "attacks/fab.py",
        "back = 0.95 * memory",
        "back = 0.5 * memory",
        "tests/test_fab.py",
    ),
    Mutation(
        "Square",
        "attacks/square.py",
        "torch.where(uniform < 0.5, -1.0, 1.0)",
        "torch.where(uniform < 2, -1.0, 1.0)",
        "tests/test_square.py",
    ),
    Mutation(
        "SquareL2",
        "attacks/square_l2.py",
        "new / _length(new).clamp(min=1e-12) * available",
        "new / _length(new).clamp(min=1e-12) * available / 2",
        "tests/test_square_l2.py",
    ),
    Mutation(
        "SparseRS",
        "attacks/sparse_rs.py",
        "return share / next(divisor for bound, divisor in SCHEDULE if place <= bound)",
        "return share",
        "tests/test_sparse_rs.py",
    ),
    Mutation(
        "OnePixel",
        "attacks/one_pixel.py",
        "return index // colours, index % colours",
        "return index // colours, index * 0",
        "tests/test_one_pixel.py",
    ),
    Mutation(
        "OnePixelDE",
        "attacks/one_pixel_de.py",
        "(first + self._weight * (second - third))",
        "(first + self._weight * (second + third))",
        "tests/test_one_pixel_de.py",
    ),
    Mutation(
        "PGD0",
        "attacks/pgd_l0.py",
        "rows.ball.project(query.points + step)",
        "rows.ball.project(query.points - step)",
        "tests/test_pgd_l0.py",
    ),
    Mutation(
        "DeepFool",
        "attacks/deepfool.py",
        "(1 + self._overshoot) * rows",
        "1.0 * rows",
        "tests/test_deepfool.py",
    ),
    Mutation(
        "CarliniWagner",
        "attacks/carlini_wagner.py",
        'middle = (memory["low"] + memory["high"]) / 2',
        'middle = memory["high"]',
        "tests/test_carlini_wagner.py",
    ),
    Mutation(
        "HopSkipJump",
        "attacks/hop_skip_jump.py",
        "sign = torch.where(wrong, 1.0, -1.0)",
        "sign = torch.where(wrong, -1.0, 1.0)",
        "tests/test_hop_skip_jump.py",
    ),
    Mutation(
        "Admix",
        "attacks/admix.py",
        "points + self._eta * rows",
        "points + 0 * rows",
        "tests/test_transformed.py",
    ),
    Mutation(
        "DeCoWA",
        "attacks/decowa.py",
        "shifts.detach() - self._rho * bend",
        "shifts.detach() + self._rho * bend",
        "tests/test_transformed.py",
    ),
    Mutation(
        "FiniteDifferences",
        "attacks/finite_differences.py",
        'memory["estimate"] + gained.reshape(shape) * tried',
        'memory["estimate"] + tried',
        "tests/test_comparisons.py",
    ),
    Mutation(
        "Crafted",
        "attacks/crafted.py",
        "access.search if self._surrogate is None else access.source(self._surrogate)",
        "access.search",
        "tests/test_crafted.py",
    ),
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
