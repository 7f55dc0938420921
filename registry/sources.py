"""A checksum of the code behind a number, so that what was begun with other code is not gone on with."""

from __future__ import annotations

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

FOREIGN = frozenset({"__pycache__", "node_modules"})
"""Names of folders that hold no code of an entry."""
ENVIRONMENT = frozenset({"pyvenv.cfg", "conda-meta"})
"""A folder that holds one of these is an installation of Python."""


def sources_sha256(packages: Iterable[str], entries: Iterable[Path] = ()) -> str:
    """Returns a checksum of packages of the repository, and of what lies beside and below entries.

    A process reads each file once: it goes on with the code it has loaded, whatever becomes of the file. So ask for
    the first time before anything runs.

    Args:
        packages: Names of packages.
        entries: Entry files outside the repository, or folders of them.
    """
    files = {path for name in packages for path in _python_files(ROOT / name)}
    for given in entries:
        folder = given.expanduser().resolve()
        files.update(_python_files(folder if folder.is_dir() else folder.parent))
    digest = hashlib.sha256()
    for path in sorted(files):
        digest.update(f"{path}\0{_content_sha256(path)}\0".encode(errors="surrogateescape"))
    return digest.hexdigest()


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
