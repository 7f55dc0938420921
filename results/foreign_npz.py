"""Reads npz files that nobody vouches for: torn, foreign or crafted ones are refused, and nothing is ever unpickled."""

from __future__ import annotations

import io
import lzma
import math
import tokenize
import zipfile
import zlib
from collections.abc import Collection

import numpy as np

UNREADABLE = (
    *(AttributeError, EOFError, LookupError, MemoryError, OSError, OverflowError, SyntaxError, TypeError, ValueError),
    RuntimeError,  # NotImplementedError and RecursionError are of this kind
    *(lzma.LZMAError, tokenize.TokenError, zipfile.BadZipFile, zlib.error),
)
"""What zipfile and numpy raise on a torn, foreign or crafted npz file."""

_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
"""How the header of an array is read, by the version of its layout."""


def read_arrays(content: bytes, names: Collection[str], largest: int) -> dict[str, np.ndarray]:
    """Returns the arrays of an npz file that nobody vouches for; nothing in it is ever unpickled.

    Args:
        content: Bytes of the file.
        names: The arrays that it must hold, and no others.
        largest: Bytes that it may unfold to.

    Raises:
        ValueError: It is no such file, or an array says that it is larger than what is there.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            entries = {entry.filename.removesuffix(".npy"): entry for entry in archive.infolist()}
            size = sum(entry.file_size for entry in archive.infolist())
            if size > largest:
                raise ValueError(f"it unfolds to {size} bytes, at most {largest}")
            if set(entries) != set(names):
                raise ValueError(f"expected arrays {', '.join(sorted(names))}, it holds {', '.join(sorted(entries))}")
            return {name: _read_array(archive, entries[name]) for name in names}
    except UNREADABLE as error:
        raise ValueError(str(error) or type(error).__name__) from error


def _read_array(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> np.ndarray:
    """Returns one array, after comparing the size that its header names with the bytes that are there."""
    with archive.open(entry) as file:
        try:
            version = np.lib.format.read_magic(file)
        except ValueError as error:
            raise ValueError(f"{entry.filename} is no array ({error})") from error
        if version not in _HEADERS:
            raise ValueError(f"{entry.filename} has layout {version}, known are {list(_HEADERS)}")
        shape, _, dtype = _HEADERS[version](file)
    named = math.prod(shape) * dtype.itemsize
    if named > entry.file_size and not dtype.hasobject:
        raise ValueError(f"{entry.filename} names {named} bytes, it holds {entry.file_size}")
    with archive.open(entry) as file:
        return np.lib.format.read_array(file, allow_pickle=False)
