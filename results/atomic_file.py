"""How a file appears whole or not at all, so that readers need no lock."""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress
from pathlib import Path

from registry.errors import ResultsError

TEMPORARY = ".tmp"
"""Suffix of a file that is being written; a killed process may leave one behind, and nobody reads it."""


def write_atomically(path: Path, content: bytes) -> None:
    """Writes a file under a temporary name in its folder, forces it to the disk and renames it into place.

    Raises:
        ResultsError: The folder is read-only, the disk is full, or something else is in the way; nothing is left.
    """
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, suffix=TEMPORARY, delete=False) as file:
            temporary = Path(file.name)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o644)  # temporary files are private to their user, results are not
        temporary.replace(path)
        _sync_folder(path.parent)
    except BaseException as error:  # Ctrl-C, too, leaves no half file
        if temporary is not None:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise cannot_write(path.parent, error) from error
        raise


def cannot_write(folder: Path, error: OSError) -> ResultsError:
    """Returns the error that names a folder, why it cannot be written, and what to do."""
    return ResultsError(
        f"cannot write results in {folder}: {error.strerror or error}; "
        "free some space, make the folder writable, or choose another results folder"
    )


def _sync_folder(folder: Path) -> None:
    """Forces the rename to the disk, where folders can be opened (not on Windows)."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
