"""Digests of the source behind every revision, so that a change of meaning cannot keep an old number on a board.

A digest covers the code without comments and docstrings. When it changes, either the part's revision is raised, or the
change is declared to have no effect on any number:

    python -m tests.revisions "why this change has no effect"
"""

from __future__ import annotations

import ast
import hashlib
import json
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from registry import DATASETS, DEFENSES, PROTOCOLS, ROOT, TASKS, load_entries
from registry.lazy import reference_name
from registry.revisions import ENGINE_REVISION

STATE = Path(__file__).with_name("revisions.json")
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef)


@dataclass(frozen=True)
class Part:
    """A part of the code with a revision of its own."""

    name: str
    revision: int
    digest: str


def parts() -> dict[str, Part]:
    """Returns the engine, every task, and every entry file, by name."""
    load_entries()
    found = [
        _part(
            "engine",
            ENGINE_REVISION,
            [*_python("attacks"), *_python("attacks/objectives"), *_python("attacks/soundness")],
        )
    ]
    scores = [*_python("datasets/metrics"), ROOT / "datasets/tasks/base.py"]
    for task in TASKS:
        detectors = [ROOT / "datasets/tasks/detector.py"] if task.name == "classification" else []
        sources = [*_with_imports([_module(task.build), *detectors]), *scores]
        found.append(_part(f"task {task.name}", task.revision, sources))
    for kind, registry in (("dataset", DATASETS), ("defense", DEFENSES), ("protocol", PROTOCOLS)):
        by_file: dict[Path, list] = {}
        for entry in registry:
            by_file.setdefault(Path(registry.origin(entry.name).rpartition(":")[0]), []).append(entry)
        for file, entries in sorted(by_file.items()):
            if file.is_relative_to(ROOT):
                revision = sum(entry.revision for entry in entries)
                sources = [file, *(path for entry in entries for path in _implementation(kind, entry, file))]
                found.append(_part(f"{kind} {file.stem}", revision, sources))
    return {part.name: part for part in found}


def problems(now: Mapping[str, Part], state: Mapping[str, Mapping]) -> list[str]:
    """Returns one sentence for each part whose code changed without a word."""
    said = []
    for name, part in now.items():
        known = state.get(name)
        if known is None:
            said.append(f"{name} is new: run python -m tests.revisions")
        elif known["digest"] != part.digest and known["revision"] == part.revision:
            said.append(
                f"the code of {name} changed, its revision is still {part.revision}: raise it, which drops its numbers "
                'from the boards, or run python -m tests.revisions "why this has no effect on any number"'
            )
        elif known["revision"] != part.revision:
            said.append(
                f"{name} has revision {part.revision}, {known['revision']} is noted: run python -m tests.revisions"
            )
    said += [f"{name} is gone: run python -m tests.revisions" for name in state if name not in now]
    return said


def read_state() -> dict[str, dict]:
    """Returns the committed digests, empty where there are none yet."""
    return json.loads(STATE.read_text()) if STATE.is_file() else {}


def accept(reason: str) -> None:
    """Writes the present digests; a part that changed under the same revision keeps the reason."""
    state, fresh = read_state(), {}
    for name, part in sorted(parts().items()):
        known = state.get(name, {})
        reasons = list(known.get("no_effect", [])) if known.get("revision") == part.revision else []
        if known.get("revision") == part.revision and known.get("digest") != part.digest:
            if not reason:
                raise SystemExit(f'{name} changed: python -m tests.revisions "why this has no effect", or raise it')
            reasons.append(reason)
        fresh[name] = {"revision": part.revision, "digest": part.digest, "no_effect": reasons}
    STATE.write_text(json.dumps(fresh, indent=1) + "\n")


def _implementation(kind: str, entry, file: Path) -> list[Path]:
    """Returns the files that an entry's numbers come from, beside its own."""
    if kind == "dataset":
        reader = _module(reference_name(entry.reader))
        return sorted({*_with_imports([reader, file]), *reader.parent.glob(f"{reader.stem}*.py")})
    if kind == "defense":
        named = [entry.build, entry.certificate, entry.recipe.train if entry.recipe else None]
        return sorted(_with_imports(_module(reference_name(reference)) for reference in named if reference))
    return []


def _with_imports(modules: Iterable[Path]) -> set[Path]:
    """Returns files and what they import of their own package, directly or not: a model and its training, a reader."""
    found: set[Path] = set()
    waiting = [path for path in modules if path.is_file()]
    while waiting:
        path = waiting.pop()
        if path not in found:
            found.add(path)
            waiting += [below for below in _imports(path) if below.is_file()]
    return found


def _imports(path: Path) -> list[Path]:
    """Returns the files of its own package that a file imports anywhere; both of `from package import module`."""
    files, own = [], path.relative_to(ROOT).parts[0]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == own:
            files += [_module(node.module), *(_module(f"{node.module}.{name.name}") for name in node.names)]
        elif isinstance(node, ast.Import):
            files += [_module(name.name) for name in node.names if name.name.partition(".")[0] == own]
    return files


def _module(reference: str) -> Path:
    return ROOT / (reference.partition(":")[0].replace(".", "/") + ".py")


def _python(folder: str) -> list[Path]:
    return sorted((ROOT / folder).glob("*.py"))


def _part(name: str, revision: int, sources: Iterable[Path]) -> Part:
    digest = hashlib.sha256()
    for path in sorted(set(sources)):
        digest.update(path.relative_to(ROOT).as_posix().encode() + b"\0" + _meaning(path).encode())
    return Part(name, revision, digest.hexdigest()[:16])


def _meaning(path: Path) -> str:
    """Returns the code of a file without docstrings, comments and spaces inside lines, on every version of Python.

    Indentation stays: a line that moves out of a loop means something else.
    """
    source = path.read_text()
    lines = source.splitlines()
    for node in ast.walk(ast.parse(source)):
        for child in getattr(node, "body", []) if isinstance(node, DOCUMENTED) else []:
            if _is_text(child):
                lines[child.lineno - 1 : child.end_lineno] = [""] * (child.end_lineno - child.lineno + 1)
    code = (re.sub(r"(^|\s)#[^\"']*$", "", line) for line in lines)
    return "\n".join(re.match(r"\s*", line)[0] + re.sub(r"\s+", "", line) for line in code if line.strip())


def _is_text(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


if __name__ == "__main__":
    if any(word.startswith("-") for word in sys.argv[1:]):
        sys.exit(f"expected the reason in words, got {sys.argv[1]}:\n{__doc__}")
    accept(" ".join(sys.argv[1:]))
