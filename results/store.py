"""Where records live: one JSON file per cell, its side files beside it, nothing else to keep in step."""

from __future__ import annotations

import logging
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote, unquote

import pandas as pd
from filelock import FileLock, Timeout

from registry.errors import DamagedRecordError, ResultsError
from results.adversarials import Adversarials, pack, unpack
from results.atomic_file import cannot_write, write_atomically
from results.migrate import WHAT_TO_DO
from results.record import AdversarialFile, EvaluationRecord, RecordStatus, SampleFile
from results.sample_table import from_parquet, sha256_of, to_parquet
from results.serialize import from_json, to_json

log = logging.getLogger(__name__)

_KEY = re.compile(r"[^/.][^/]*/[^/.][^/]*/[^/.][^/]*")


UNFINISHED = ".unfinished"
"""Folder beside the records in which interrupted cells keep what they have done."""


def unfinished_folder(folder: Path, key: str) -> Path:
    """Returns where a cell keeps what it has done until it has a record."""
    return Path(folder) / UNFINISHED / quote(key, safe="")


class RecordStore:
    """A folder of records: `<dataset>/<defense>/<protocol>-s<seed>-<digest>.json`, with side files named by checksum.

    Side files are `samples/<sha256>.parquet`, the per-sample table, and `adversarials/<sha256>.npz`, the certificates.
    Readers take no lock: a file appears whole or not at all, and a record only after its side files. Many
    processes may share the folder, also one on a network drive; `claim` keeps them from doing one cell twice.

    Args:
        folder: Root of the records; it need not exist yet.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        self.damaged: list[tuple[Path, str]] = []
        """Files that the last walk over `records` skipped, each with the reason."""

    def path_of(self, key: str) -> Path:
        """Returns where the record of this key lies; characters unsafe in file names are percent-encoded.

        Raises:
            ResultsError: The key is not "<dataset>/<defense>/<protocol>-s<seed>-<digest>".
        """
        if not _KEY.fullmatch(key):
            raise ResultsError(f"a key is <dataset>/<defense>/<protocol>-s<seed>-<digest>, got {key!r}")
        return self.folder / (quote(key, safe="/+,@=") + ".json")

    def key_of(self, path: Path) -> str:
        """Returns the key of the record that lies at this path."""
        return unquote(path.relative_to(self.folder).with_suffix("").as_posix())

    def keys(self) -> tuple[str, ...]:
        """Returns the keys of all records, sorted, without reading them; files under other names are no records."""
        return tuple(sorted(self.key_of(path) for path in self.folder.glob("*/*/*.json") if self._is_named(path)))

    def read(self, key: str) -> EvaluationRecord | None:
        """Returns the record of this key, done or failed, or None where there is none.

        Raises:
            NewerSchemaError: It was written by a newer version of the benchmark.
            DamagedRecordError: It is torn, altered, or belongs to another key.
        """
        path = self.path_of(key)
        return self._read(path) if path.exists() else None

    def records(self) -> Iterator[EvaluationRecord]:
        """Yields every record in the order of the keys; unreadable ones are logged and listed in `damaged`."""
        self.damaged = []
        for key in self.keys():
            path = self.path_of(key)
            try:
                yield self._read(path)
            except ResultsError as error:
                log.warning("skipped: %s", error)
                self.damaged.append((path, str(error)))

    def write(
        self,
        record: EvaluationRecord,
        samples: pd.DataFrame | None = None,
        adversarials: Adversarials | None = None,
    ) -> Path:
        """Writes the side files, then the record that names them, and returns the record's path.

        A done record replaces a failed one, and what the cell kept for the case of an interruption goes; a failed
        record leaves a done one as it is.

        Args:
            record: The record; its fields `samples` and `adversarials` are filled in from the other arguments.
            samples: One row per sample, see `EvaluationRecord.samples`; None leaves that field as it is.
            adversarials: Certificates of attack; None leaves that field as it is.

        Raises:
            ResultsError: The folder cannot be written, or the record could not be read back; nothing is left.
        """
        path = self.path_of(record.key)
        if record.status is RecordStatus.FAILED and self._is_done(path):
            log.warning("%s failed this time; its finished record is kept", record.key)
            return path
        side_files: list[tuple[Path, bytes]] = []
        if samples is not None:
            content = to_parquet(samples)
            checksum = sha256_of(content)
            named = SampleFile(name=f"{checksum[:16]}.parquet", sha256=checksum, rows=len(samples))
            record = replace(record, samples=named)
            side_files.append((self.samples_path(record), content))
        if adversarials is not None:
            content = pack(adversarials)
            record = replace(record, adversarials=_named(adversarials, sha256_of(content)))
            side_files.append((self.adversarials_path(record), content))
        text = to_json(record)
        from_json(text, f"record {record.key}")
        for side_path, content in side_files:
            write_atomically(side_path, content)
        write_atomically(path, text.encode())
        if record.status is RecordStatus.DONE:
            shutil.rmtree(unfinished_folder(self.folder, record.key), ignore_errors=True)
        return path

    def samples_path(self, record: EvaluationRecord) -> Path:
        """Returns where the sample table of a record lies.

        Raises:
            ResultsError: The record has none.
        """
        if record.samples is None:
            raise ResultsError(f"record {record.key} ({record.status}) has no sample table; run the cell again")
        return self.folder / "samples" / Path(record.samples.name).name

    def samples(self, record: EvaluationRecord) -> pd.DataFrame:
        """Returns the sample table of a record, after checking that it is the one the record was written with.

        Raises:
            ResultsError: The record has none, or its file is missing.
            DamagedRecordError: The file's checksum is another one, or it is no sample table.
        """
        path = self.samples_path(record)
        return from_parquet(_checked(path, record.samples.sha256, record.key), str(path))

    def adversarials_path(self, record: EvaluationRecord) -> Path:
        """Returns where the certificates of a record lie.

        Raises:
            ResultsError: The record has none.
        """
        if record.adversarials is None:
            raise ResultsError(f"record {record.key} ({record.status}) keeps no adversarials; run the cell again")
        return self.folder / "adversarials" / Path(record.adversarials.name).name

    def adversarials(self, record: EvaluationRecord) -> Adversarials:
        """Returns the certificates of a record, after checking that they are those the record was written with.

        Raises:
            ResultsError: The record has none, or their file is missing.
            DamagedRecordError: The file's checksum is another one, or it is no file of adversarials.
        """
        path = self.adversarials_path(record)
        return unpack(_checked(path, record.adversarials.sha256, record.key), str(path))

    def orphans(self) -> tuple[Path, ...]:
        """Returns the side files that no readable record names, sorted; re-runs leave them, and they may go."""
        named = set()
        for record in self.records():
            named |= {self.samples_path(record)} if record.samples else set()
            named |= {self.adversarials_path(record)} if record.adversarials else set()
        present = [*self.folder.glob("samples/*.parquet"), *self.folder.glob("adversarials/*.npz")]
        return tuple(path for path in sorted(present) if path not in named)

    @contextmanager
    def claim(self, key: str) -> Iterator[FileLock | None]:
        """Claims a cell for the length of a `with` block, or yields None at once where another process holds it.

        The claim is a lock of the operating system: the kernel frees it when its process ends, however it ends,
        so there is no stale claim to recognise. After a claim, `read` the key again: another process may have
        finished the cell in the meantime.

        Raises:
            ResultsError: The folder cannot be written.
        """
        path = self.folder / ".locks" / (quote(key, safe="") + ".lock")
        lock = FileLock(path, timeout=0, thread_local=False)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with suppress(Timeout):
                lock.acquire()
        except OSError as error:
            raise cannot_write(path.parent, error) from error
        try:
            yield lock if lock.is_locked else None
        finally:
            lock.release()

    def _is_named(self, path: Path) -> bool:
        """Returns whether a file lies where the record of some key would: editors and systems leave others."""
        try:
            return self.path_of(self.key_of(path)) == path
        except (ResultsError, UnicodeError):  # no key, or bytes that no key has
            return False

    def _read(self, path: Path) -> EvaluationRecord:
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise DamagedRecordError(f"{path}: not UTF-8 text ({error}); {WHAT_TO_DO}") from error
        except OSError as error:
            raise ResultsError(f"cannot read {path}: {error.strerror}") from error
        record = from_json(text, str(path))
        if record.key != self.key_of(path):
            raise DamagedRecordError(f"{path}: holds the record of another key, {record.key}; {WHAT_TO_DO}")
        return record

    def _is_done(self, path: Path) -> bool:
        try:
            return path.exists() and self._read(path).status is RecordStatus.DONE
        except ResultsError:
            return False


def _named(adversarials: Adversarials, checksum: str) -> AdversarialFile:
    return AdversarialFile(
        name=f"{checksum[:16]}.npz",
        sha256=checksum,
        count=len(adversarials),
        certified=adversarials.certified,
    )


def _checked(path: Path, expected: str, key: str) -> bytes:
    """Returns the content of a side file whose checksum is the one its record names."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ResultsError(f"{path} of record {key}: {error.strerror}; {WHAT_TO_DO}") from error
    checksum = sha256_of(content)
    if checksum != expected:
        raise DamagedRecordError(f"{path}: expected sha256 {expected}, got {checksum}: torn or altered; {WHAT_TO_DO}")
    return content
