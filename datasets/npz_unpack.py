"""Large compressed arrays on the disk instead of in memory: unpacked once beside their npz file, then mapped."""

from __future__ import annotations

import os
import shutil
import tempfile
import zipfile
import zlib
from pathlib import Path

import numpy as np

LARGE = 256 << 20
"""Arrays of more bytes than this are mapped; 256 MiB."""
BLOCK = 1 << 20
"""Bytes copied or read at a time."""

_compared: set[tuple[Path, int]] = set()
"""Unpacked files that this process has written or compared with their archive, each with its CRC-32."""


def map_member(archive: zipfile.ZipFile, member: str, path: Path, sha256: str) -> np.ndarray | None:
    """Returns a read-only, memory-mapped array, or None where the disk refuses (read-only folder, no space).

    Args:
        archive: The open npz file; it names the CRC-32 of the array, with which an unpacked file is compared once.
        member: Name of the array inside, e.g. "train_images.npy".
        path: The npz file; the array is unpacked into a folder beside it.
        sha256: Checksum of the npz file; an array unpacked from another version of it is never used.

    Raises:
        ValueError: The array holds Python objects.
        BadZipFile: The archive is damaged; its own checksums are compared.
    """
    folder = path.with_name(f"{path.name}.unpacked-{sha256[:16]}")
    target = folder / member
    entry = archive.getinfo(member)
    try:
        if not _is_unpacked(target, entry):
            _unpack(archive, member, target)
    except OSError:
        return None
    _compared.add((target, entry.CRC))
    return np.load(target, mmap_mode="r", allow_pickle=False)


def _is_unpacked(target: Path, entry: zipfile.ZipInfo) -> bool:
    """Returns whether a file holds what the archive says; its bytes are read unless this process did so before."""
    if not target.is_file() or target.stat().st_size != entry.file_size:
        return False
    return (target, entry.CRC) in _compared or _crc32(target) == entry.CRC


def _crc32(path: Path) -> int:
    found = 0
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            found = zlib.crc32(block, found)
    return found


def _unpack(archive: zipfile.ZipFile, member: str, target: Path) -> None:
    """Writes the member to a temporary file, then renames it, so that `target` is whole or absent."""
    target.parent.mkdir(exist_ok=True)
    handle, name = tempfile.mkstemp(dir=target.parent, suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file, archive.open(member) as packed:
            shutil.copyfileobj(packed, file, BLOCK)
        Path(name).replace(target)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
