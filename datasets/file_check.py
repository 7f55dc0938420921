"""Whether a file is the published one: its size, its checksum, and what it is instead."""

from __future__ import annotations

import hashlib
from pathlib import Path

from registry import Source
from registry.errors import DataDamagedError

BLOCK = 1 << 20
"""Bytes read at a time."""


def check_file(path: Path, source: Source, remedy: str) -> str:
    """Returns the SHA-256 of a file after comparing it with what was published.

    Args:
        path: The file.
        source: What was published of it; a size or checksum of None is not compared.
        remedy: What to do where it is another file, for the error text.

    Raises:
        DataDamagedError: It is empty, truncated, an HTML page, or has another checksum.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        if looks_like_html(file.read(BLOCK)):
            raise DataDamagedError(f"{path} is a web page, not data: a login, error or proxy page was saved; {remedy}")
    if size == 0 or (source.size is not None and size < source.size):
        raise DataDamagedError(f"{path} is truncated: expected {source.size or 'some'} bytes, got {size}; {remedy}")
    if source.size is not None and size != source.size:
        raise DataDamagedError(f"{path} is another file: expected {source.size} bytes, got {size}; {remedy}")
    md5, sha256 = digests(path)
    for kind, expected, got in (("SHA-256", source.sha256, sha256), ("MD5", source.md5, md5)):
        if expected is not None and expected.lower() != got:
            raise DataDamagedError(f"{path} is truncated or altered: expected {kind} {expected}, got {got}; {remedy}")
    return sha256


def looks_like_html(start: bytes) -> bool:
    """Returns whether the first bytes of a file are those of a web page."""
    text = start.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    return text.startswith((b"<!doctype html", b"<html", b"<head", b"<body")) or (
        text.startswith((b"<!--", b"<?xml")) and b"<html" in text
    )


def digests(path: Path) -> tuple[str, str]:
    """Returns MD5 and SHA-256 of a file, read once."""
    md5, sha256 = hashlib.md5(usedforsecurity=False), hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            md5.update(block)
            sha256.update(block)
    return md5.hexdigest(), sha256.hexdigest()
