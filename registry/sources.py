"""A checksum of the code behind a number, so that what was begun with other code is not gone on with."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from registry.discovery import ROOT

TRAINING = ("registry", "datasets", "attacks", "defenses")
"""Packages whose code trained weights depend on."""
EVALUATION = (*TRAINING, "benchmark")
"""Packages whose code a score depends on."""


def sources_sha256(packages: Iterable[str], entries: Iterable[Path] = ()) -> str:
    """Returns a checksum of packages of the repository, and of what lies beside entries.

    Args:
        packages: Names of packages.
        entries: Entry files outside the repository, or folders of them.
    """
    files = [path for name in packages for path in (ROOT / name).rglob("*.py")]
    for given in entries:
        folder = given.expanduser().resolve()
        files += (folder if folder.is_dir() else folder.parent).glob("*.py")
    digest = hashlib.sha256()
    for path in sorted(files):
        if path.is_file() and not path.name.startswith("."):  # an editor's lock is a link to nowhere
            digest.update(str(path).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()
