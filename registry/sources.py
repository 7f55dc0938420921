"""A checksum of the code behind a number, so that what was begun with other code is not gone on with."""

from __future__ import annotations

import ast
import hashlib
import os
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

from registry.discovery import ROOT

TRAINING = ("registry", "datasets", "attacks", "defenses")
"""Packages whose code trained weights depend on."""
EVALUATION = (*TRAINING, "benchmark")
"""Packages whose code a score depends on."""
REPOSITORY = frozenset((*EVALUATION, "results", "reports", "tests"))
"""All packages of the repository."""

FOREIGN = frozenset({"__pycache__", "node_modules"})
"""Names of folders that hold no code of an entry."""
ENVIRONMENT = frozenset({"pyvenv.cfg", "conda-meta"})
"""A folder that holds one of these is an installation of Python."""


def sources_sha256(packages: Iterable[str], entries: Iterable[Path] = ()) -> str:
    """Returns a checksum of packages of the repository, and of what lies beside and below entries.

    Of an entry in the root of the repository, and of what it imports from there, since all else lies beside it.

    A process reads each file once: it goes on with the code it has loaded, whatever becomes of the file. So ask for
    the first time before anything runs.

    Args:
        packages: Names of packages.
        entries: Entry files outside the repository, or folders of them.
    """
    files = {path for name in packages for path in _python_files(ROOT / name)}
    for given in entries:
        path = given.expanduser().resolve()
        folder = path if path.is_dir() else path.parent
        files.update(_imported(path) if path.is_file() and folder == ROOT else _python_files(folder))
    return _digest(files)


def entry_sha256(file: Path) -> str:
    """Returns a checksum of an entry's file and of what it imports from the folders beside it.

    An entry of the repository states by its revision when its numbers change; of others nobody else keeps watch.

    Args:
        file: File of an entry.
    """
    path = file.resolve()
    return _digest(_imported(path), path.parent)


def _digest(files: Iterable[Path], folder: Path | None = None) -> str:
    """Returns the checksum of files and their names, in full or as they are called below a folder."""
    digest = hashlib.sha256()
    for path in sorted(files):
        name = path if folder is None else path.relative_to(folder)
        digest.update(f"{name}\0{_content_sha256(path)}\0".encode(errors="surrogateescape"))
    return digest.hexdigest()


def _imported(file: Path) -> set[Path]:
    """Returns a file and those below its folder that it imports, directly or not; not the repository's packages."""
    found, waiting = set(), [file]
    while waiting:
        path = waiting.pop()
        if path not in found:
            found.add(path)
            waiting += [module for name in _names(path) for module in _modules(file.parent, name)]
    return found


def _names(path: Path) -> Iterator[str]:
    """Yields the dotted names of what a file imports; of one that cannot be read none."""
    try:
        tree = ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" if node.module else alias.name for alias in node.names)


def _modules(folder: Path, name: str) -> Iterator[Path]:
    """Yields the files of a module and of the packages around it, where they lie below a folder."""
    parts = name.split(".")
    if not name or (folder == ROOT and parts[0] in REPOSITORY):
        return
    for depth in range(1, len(parts) + 1):
        place = folder.joinpath(*parts[:depth])
        yield from (path for path in (place.with_suffix(".py"), place / "__init__.py") if path.is_file())


def _python_files(folder: Path) -> Iterator[Path]:
    """Yields the Python files of a folder and of those below it that can be imported and are no installations.

    A folder is imported by a name that is an identifier: hidden folders, `site-packages` and the like are none.
    """
    for where, folders, names in os.walk(folder):
        if Path(where) != folder and not ENVIRONMENT.isdisjoint((*folders, *names)):
            folders.clear()
            continue
        folders[:] = [name for name in folders if name.isidentifier() and name not in FOREIGN]
        yield from (Path(where, name) for name in names if name.endswith(".py") and not name.startswith("."))


@cache
def _content_sha256(path: Path) -> str:
    """Returns the checksum of a file as this process first saw it, or "" where it cannot be read, nor imported so."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return ""
