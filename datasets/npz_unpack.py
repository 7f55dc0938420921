"""Large compressed arrays on the disk instead of in memory: unpacked once beside their npz file, then mapped."""

from __future__ import annotations

import os
import shutil
import tempfile
import zipfile
from pathlib import Path

import numpy as np

LARGE = 256 << 20
"""Arrays of more bytes than this are mapped; 256 MiB."""


def map_member(archive: zipfile.ZipFile, member: str, path: Path, sha256: str) -> np.ndarray | None:
    """Returns a read-only, memory-mapped array, or None where the disk refuses (read-only folder, no space).

    Args:
        archive: The open npz file.
        member: Name of the array inside, e.g. "train_images.npy".
        path: The npz file; the array is unpacked into a folder beside it.
        sha256: Checksum of the npz file; an array unpacked from another version of it is never used.

    Raises:
        ValueError: The array holds Python objects.
        BadZipFile: The archive is damaged; its own checksums are compared.
    """
    folder = path.with_name(f"{path.name}.unpacked-{sha256[:16]}")
    target = folder / member
    size = archive.getinfo(member).file_size
    if not target.is_file() or target.stat().st_size != size:
        try:
            _unpack(archive, member, target)
        except OSError:
            return None
    return np.load(target, mmap_mode="r", allow_pickle=False)


def _unpack(archive: zipfile.ZipFile, member: str, target: Path) -> None:
    """Writes the member to a temporary file, then renames it, so that `target` is whole or absent."""
    target.parent.mkdir(exist_ok=True)
    handle, name = tempfile.mkstemp(dir=target.parent, suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file, archive.open(member) as packed:
            shutil.copyfileobj(packed, file, 1 << 20)
        Path(name).replace(target)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
