"""Fetches the published file of a data set: resumed where it was cut, tried at every address, checked before use."""

from __future__ import annotations

import errno
import logging
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import chain
from pathlib import Path

import requests
from filelock import FileLock, Timeout
from urllib3.exceptions import HTTPError

from datasets.file_check import check_file, looks_like_html
from datasets.locate import VARIABLE, find_file
from registry import Source
from registry.errors import DataDamagedError, DataMissingError

log = logging.getLogger(__name__)

Progress = Callable[[int, int | None], None]
"""Is told bytes so far and bytes in all (None where the server does not say)."""

ATTEMPTS = 5
"""Tries at each address."""
WAIT_S = 1.0
"""Seconds before the second try; doubled before each further one."""
TIMEOUT_S = (10, 60)
"""Seconds to connect, and between two blocks."""
BLOCK = 1 << 18
"""Bytes taken at a time."""
FULL = (errno.ENOSPC, errno.EDQUOT)
"""How a disk says that it is full."""


class _Refused(Exception):
    """An address that answers, but not with the file; another try would not change it."""


class _Cut(Exception):
    """A connection that ended early; another try goes on from there."""


def download(source: Source, root: Path, progress: Progress | None = None) -> Path:
    """Returns the checked file of a source below the data folder, after fetching it where it is not there yet.

    A cut download is kept as `<file>.part` and resumed, now or by the next call. The file appears under its name
    only when its size and checksums are right. Where another process is fetching it, this one waits for the outcome.

    Args:
        source: The file, its addresses in the order to try, its checksums.
        root: The data folder; made where it is absent.
        progress: Is told about the bytes, or None.

    Raises:
        DataMissingError: No address gives it, none is known, or the folder cannot hold it; the text says what to do.
        DataDamagedError: An address gives another file, and none gives the right one.
    """
    target = root / source.filename
    if _is_right(target, source):
        return target
    if not source.urls:
        raise DataMissingError(f"{source.filename} cannot be downloaded: no address is known; {source.how}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _alone(target):
            if not _is_right(target, source):  # whoever was first may have left it
                _fetch_from_any(source, target, progress)
    except OSError as error:
        raise DataMissingError(_disk_text(error, target)) from error
    return target


@contextmanager
def _alone(target: Path) -> Iterator[None]:
    """Lets one process at a time fetch a file; all of them at once where the file system has no locks.

    The kernel frees the lock when its process ends, however it ends. The empty lock file stays: whoever waits has it.
    """
    lock = FileLock(target.with_name(f".{target.name}.lock"), thread_local=False)
    with suppress(OSError, NotImplementedError):
        try:
            lock.acquire(timeout=0)
        except Timeout:
            log.warning("another process is fetching %s; waiting for it", target)
            lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _fetch_from_any(source: Source, target: Path, progress: Progress | None) -> None:
    """Fetches a file from the first address that gives it.

    Raises:
        DataMissingError: No address gives it.
        DataDamagedError: None gives it, and one gives another file.
        OSError: The disk refuses.
    """
    part = target.with_name(target.name + ".part")
    failures: list[str] = []
    damaged = False
    for url in source.urls:
        try:
            _fetch_from(url, part, source, progress)
            part.replace(target)
            return
        except (_Refused, _Cut, DataDamagedError) as error:
            failures.append(f"{url}: {error}")
            damaged = damaged or isinstance(error, DataDamagedError)
    kind = DataDamagedError if damaged else DataMissingError
    raise kind(
        f"could not download {source.filename} from {'; '.join(failures)}; "
        f"check the connection and try again, or fetch it by hand and put it at {target}"
    )


def verify(source: Source, root: Path, name: str = "") -> Path:
    """Returns the file of a source after comparing its size and checksums with the published ones.

    Args:
        source: The file and what was published of it.
        root: The data folder.
        name: Name of the data set; a folder of this name is looked into as well.

    Raises:
        DataMissingError: It is not in the data folder.
        DataDamagedError: It is not what was published.
    """
    path = find_file(source, name, root)
    advice = f"fetch it from {source.urls[0]}" if source.urls else source.how
    if path is None:
        raise DataMissingError(f"{root / source.filename} is not there; {advice}")
    check_file(path, source, f"delete it, then {advice}")
    return path


def _is_right(path: Path, source: Source) -> bool:
    try:
        check_file(path, source, "")
    except (OSError, DataDamagedError):
        return False
    return True


def _fetch_from(url: str, part: Path, source: Source, progress: Progress | None) -> None:
    """Completes the part file from one address and checks it.

    Raises:
        _Refused: The server says no, or sends a web page; what came before is kept.
        _Cut: The connection failed at every try.
        DataDamagedError: The whole file is another one; the part is deleted.
        OSError: The disk refuses.
    """
    for attempt in range(ATTEMPTS):
        start = _bytes_kept(part, source)
        try:
            _fetch(url, part, start, source, progress)
            check_file(part, source, "it was deleted")
            return
        except DataDamagedError:
            part.unlink(missing_ok=True)
            if start == 0:
                raise
        except _Cut:
            if attempt == ATTEMPTS - 1:
                raise
            time.sleep(WAIT_S * 2**attempt)
    raise _Cut(f"gave up after {ATTEMPTS} tries")


def _bytes_kept(part: Path, source: Source) -> int:
    """Returns how many bytes to resume after; 0 where no checksum would notice a part of another file."""
    if not part.is_file() or (source.md5 is None and source.sha256 is None):
        return 0
    return part.stat().st_size


def _fetch(url: str, part: Path, start: int, source: Source, progress: Progress | None) -> None:
    """Takes one answer of the server and writes it to the part file."""
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={start}-"} if start else {})
    try:
        with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT_S) as response:
            if response.status_code == requests.codes.requested_range_not_satisfiable and start:
                return  # nothing is left to fetch, or the part is too long: the checksum tells
            _check_status(response)
            if not _continues(response, start):
                start = 0
            total = _total(response, start, source)
            _check_space(part, total, start)
            done = _write(response, part, start, total, progress)
    except (requests.RequestException, HTTPError) as error:
        raise _Cut(f"{type(error).__name__}: {error}") from error
    if total is not None and done < total:
        raise _Cut(f"the connection ended after {done} of {total} bytes")


def _check_status(response: requests.Response) -> None:
    code = response.status_code
    if code >= 500 or code in (requests.codes.request_timeout, requests.codes.too_many_requests):
        raise _Cut(f"the server answered {code} {response.reason}")
    if code not in (requests.codes.ok, requests.codes.partial_content):
        raise _Refused(f"the server answered {code} {response.reason}")


def _continues(response: requests.Response, start: int) -> bool:
    """Returns whether the answer starts where the part file ends; a server may send the whole file instead."""
    if response.status_code != requests.codes.partial_content:
        return False
    if not response.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
        raise _Refused(f"expected the bytes from {start}, got {response.headers.get('Content-Range')!r}")
    return True


def _total(response: requests.Response, start: int, source: Source) -> int | None:
    length = response.headers.get("Content-Length", "")
    return start + int(length) if length.isdigit() else source.size


def _write(response: requests.Response, part: Path, start: int, total: int | None, progress: Progress | None) -> int:
    """Puts the body behind the first `start` bytes of the part file; returns the bytes in it."""
    blocks = response.iter_content(BLOCK)
    first = next(blocks, b"")
    if start == 0 and looks_like_html(first):
        raise _Refused("the answer is a web page, not data: a login, error or proxy page")
    done = start
    with part.open("ab" if start else "wb") as file:
        for block in chain((first,), blocks):
            file.write(block)
            done += len(block)
            if progress is not None:
                progress(done, total)
    return done


def _check_space(part: Path, total: int | None, start: int) -> None:
    free = shutil.disk_usage(part.parent).free
    if total is not None and total - start > free:
        raise OSError(errno.ENOSPC, f"{(total - start) / 1e6:.0f} MB are needed, {free / 1e6:.0f} MB are free")


def _disk_text(error: OSError, target: Path) -> str:
    if error.errno in FULL:
        return (
            f"the disk of {target.parent} is full ({error.strerror}); make room and repeat, what came so far is kept; "
            f"or name another data folder in {VARIABLE}"
        )
    return f"cannot write {target} ({error.strerror or error}); name a data folder you can write to in {VARIABLE}"
