"""Who may import whom: every import of the repository against the table of layers, and what loads without torch."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import datasets
from registry import ROOT

LAYERS = {
    "registry": set(),
    "datasets": {"registry"},
    "attacks": {"registry", "datasets"},
    "defenses": {"registry", "datasets", "attacks"},
    "results": {"registry"},
    "reports": {"registry", "results"},
    "benchmark": {"registry", "datasets", "attacks", "defenses", "results", "reports"},
}
"""What each package may import, beside itself."""
WITHOUT_TORCH = ("registry", "results", "reports")
HEAVY = {"torch", "torchvision", "timm", "monai", "torchattacks", "pyautoattack", "medmnist"}


def imports(text: str) -> list[tuple[int, str]]:
    """Returns line and top-level package of every absolute import, wherever it stands, type checking included."""
    found = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name.split(".")[0]) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            name = node.module.split(".")[0] if node.module and not node.level else "."
            found.append((node.lineno, name))
    return found


def offences(package: str, text: str, *, entry: bool = False) -> list[str]:
    """Returns the imports of a file that its layer does not allow, as "line: name"."""
    allowed = {"registry"} if entry else LAYERS[package] | {package}
    bad = []
    for line, name in imports(text):
        stranger = name in LAYERS and name not in allowed
        beyond = (package == "registry" or entry) and name not in allowed | set(sys.stdlib_module_names)
        heavy = package in WITHOUT_TORCH and name in HEAVY
        if stranger or beyond or heavy or name == ".":
            bad.append(f"{line}: {name}")
    return bad


def typing_only(path: Path) -> set[int]:
    """Returns the lines of imports that only a type checker sees."""
    lines = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            lines |= {part.lineno for part in ast.walk(node) if isinstance(part, (ast.Import, ast.ImportFrom))}
    return lines


FILES = sorted(path for package in LAYERS for path in (ROOT / package).rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_a_file_imports_only_what_lies_below_it(path):
    package = path.relative_to(ROOT).parts[0]
    entry = "entries" in path.relative_to(ROOT).parts and path.name != "__init__.py"
    bad = offences(package, path.read_text(encoding="utf-8"), entry=entry)
    unseen = typing_only(path)
    assert [text for text in bad if int(text.partition(":")[0]) not in unseen] == []


@pytest.mark.parametrize(
    ("package", "text", "entry"),
    [
        ("registry", "import torch", False),
        ("registry", "import numpy", False),
        ("registry", "def f():\n    from datasets.batch import Batch", False),
        ("datasets", "from attacks.engine import run_protocol", False),
        ("attacks", "import defenses.train", False),
        ("results", "import torch.nn", False),
        ("reports", "from benchmark import plan", False),
        ("defenses", "import torch", True),
        ("datasets", "from datasets.batch import Batch", True),
        ("benchmark", "from . import plan", False),
    ],
)
def test_the_check_sees_an_offence(package, text, entry):
    assert len(offences(package, text, entry=entry)) == 1


def test_every_folder_is_a_package():
    assert [name for name in (*LAYERS, "tests") if not (ROOT / name / "__init__.py").is_file()] == []


def test_our_datasets_package_wins_over_any_installed_one():
    assert Path(datasets.__file__).is_relative_to(ROOT)


def test_records_and_pages_need_no_torch():
    modules = sorted(
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for package in WITHOUT_TORCH
        for path in (ROOT / package).rglob("*.py")
    )
    script = (
        "import importlib, sys\n"
        "class Blocked:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name in {HEAVY}: raise ImportError(name + ' is blocked')\n"
        "sys.meta_path.insert(0, Blocked())\n"
        f"for name in {modules}: importlib.import_module(name)\n"
        "from registry import load_entries; assert not load_entries(), load_entries()\n"
    )
    ended = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
