"""Every committed record is valid, lies where its key says, and has its sample table."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pandas as pd
import pytest

from benchmark.states import trained_otherwise
from registry import ROOT, load_entries
from registry.errors import ResultsError, ViolatedCertificateError
from results.certificates import check_certificates
from results.consistency import certificate_problems, table_problems
from results.record import SCHEMA, EvaluationRecord, RecordStatus
from results.sample_table import SAMPLE_ID, score_column
from results.serialize import to_json
from results.store import RecordStore
from tests.example_records import KEY, example_record, example_samples

RECORDS = Path(__file__).parent.parent / "results" / "records"
RECORD_BYTES = 64_000
"""Largest record that git takes; 6 budgets of 6 members on 9 classes need 49 kB, 2 kB of it when compressed."""
SAMPLES_BYTES = 200_000
ADVERSARIALS_BYTES = 3_000_000
"""Largest file of adversarials that git takes."""


def problems_of(folder: Path) -> list[str]:
    """Returns everything that is wrong with a folder of records, in words."""
    store = RecordStore(folder)
    found = [f"{path}: {reason}" for record in store.records() for path, reason in _problems(store, record)]
    found += [f"{path}: {reason}" for path, reason in store.damaged]
    found += [f"{path}: no record names it; delete it" for path in store.orphans()]
    keys = store.keys()
    known = {store.path_of(key) for key in keys} | set(folder.glob("samples/*.parquet"))
    known |= set(folder.glob("adversarials/*.npz"))
    known |= set(folder.glob(".locks/*.lock")) | {folder / ".gitkeep"}
    found += [f"{path}: neither a record nor a side file; delete it" for path in _files(folder) - known]
    return sorted(found)


def _files(folder: Path) -> set[Path]:
    local = folder / "checkpoints"  # weights trained here, which git ignores
    return {path for path in folder.rglob("*") if path.is_file() and not path.is_relative_to(local)}


def _problems(store: RecordStore, record: EvaluationRecord) -> list[tuple[Path, str]]:
    path = store.path_of(record.key)
    problems = []
    if not _as_written(path.read_text(encoding="utf-8"), record):
        problems.append((path, "not the bytes the store writes; do not edit records by hand"))
    if path.stat().st_size > RECORD_BYTES:
        problems.append((path, f"{path.stat().st_size} bytes, at most {RECORD_BYTES}"))
    if record.status is RecordStatus.FAILED:
        return problems
    try:
        table = store.samples(record)
    except ResultsError as error:
        return [*problems, (path, str(error))]
    if record.adversarials is not None:
        problems += _certificates(store, record, table)
    samples = store.samples_path(record)
    if samples.stat().st_size > SAMPLES_BYTES:
        problems.append((samples, f"{samples.stat().st_size} bytes, at most {SAMPLES_BYTES}"))
    try:
        check_certificates(record, table)
    except ViolatedCertificateError as error:
        problems.append((samples, str(error)))
    columns = [SAMPLE_ID, "clean_score", *(score_column(index) for index in range(len(record.budgets)))]
    missing = [name for name in columns if name not in table.columns]
    if missing or len(table) != record.samples.rows:
        return [*problems, (samples, f"{len(table)} rows of {record.samples.rows}, missing columns {missing}")]
    estimates = [record.clean.get("clean"), *(result.metrics.get("robust") for result in record.budgets)]
    for column, estimate in zip(columns[1:], estimates, strict=True):
        mean = table[column].astype(float).mean()
        if estimate is None or estimate.n != len(table) or abs(mean - estimate.value) > 1e-6:
            problems.append(
                (samples, f"mean of {column} is {mean} on {len(table)} samples, the record says {estimate}")
            )
    return problems


def _certificates(store: RecordStore, record: EvaluationRecord, table: pd.DataFrame) -> list[tuple[Path, str]]:
    path = store.adversarials_path(record)
    try:
        problems = [(path, text) for text in certificate_problems(record, table, store.adversarials(record))]
    except ResultsError as error:
        return [(store.path_of(record.key), str(error))]
    if path.stat().st_size > ADVERSARIALS_BYTES:
        problems.append((path, f"{path.stat().st_size} bytes, at most {ADVERSARIALS_BYTES}"))
    return problems


def _as_written(text: str, record: EvaluationRecord) -> bool:
    """Returns whether a file holds the bytes that a store wrote; records of older layouts stay as they were."""
    document = json.loads(text)
    if document["schema"] == SCHEMA:
        return text == to_json(record)
    return text == json.dumps(document, indent=0, sort_keys=True, ensure_ascii=False) + "\n"


def test_committed_records(capsys: pytest.CaptureFixture) -> None:
    keys = RecordStore(RECORDS).keys()
    with capsys.disabled():
        print(f"\n{len(keys)} committed records checked")
    assert len(keys) == len([path for path in _files(RECORDS) if path.suffix == ".json"])
    assert problems_of(RECORDS) == []


def test_committed_records_are_of_weights_that_their_entries_still_train() -> None:
    load_entries()
    records = [record for record in RecordStore(RECORDS).records() if record.checkpoint]
    reasons = {record.key: trained_otherwise(record.checkpoint, record.dataset["name"]) for record in records}
    assert len(reasons) > 100
    assert {key: reason for key, reason in reasons.items() if reason} == {}


def test_committed_records_say_what_their_tables_say() -> None:
    store = RecordStore(RECORDS)
    done = [record for record in store.records() if record.status is RecordStatus.DONE]
    assert [(record.key, text) for record in done for text in table_problems(record, store.samples(record))] == []


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    RecordStore(tmp_path).write(example_record(), example_samples())
    return tmp_path


def test_a_sound_folder_has_no_problems(folder: Path) -> None:
    assert problems_of(folder) == []


def test_the_check_sees_what_is_wrong(folder: Path) -> None:
    store = RecordStore(folder)
    path, samples = store.path_of(KEY), store.samples_path(store.read(KEY))
    good, table = path.read_bytes(), samples.read_bytes()

    def problem() -> str:
        (found, *_) = problems_of(folder)
        path.write_bytes(good)
        samples.write_bytes(table)
        return found

    path.write_bytes(good.replace(b'"value": 0.25', b'"value": 0.75'))
    assert "mean of score_0 is 0.25 on 8 samples, the record says Estimate(value=0.75" in problem()
    path.write_bytes(good.replace(b"{\n", b"{ \n"))
    assert "not the bytes" in problem()
    path.write_bytes(good[:-40])
    assert "torn" in problem()
    path.rename(path.with_name("standard-s9-0123456789ab.json"))
    assert "another key" in problem()
    path.with_name("standard-s9-0123456789ab.json").unlink()
    samples.unlink()
    assert "No such file" in problem()
    samples.write_bytes(table[:-1])
    assert "expected sha256" in problem()
    samples.with_name("0000.parquet").write_bytes(table)
    assert "no record names it" in problem()
    samples.with_name("0000.parquet").unlink()
    (folder / "notes.txt").write_text("?")
    assert "neither a record nor" in problem()


def test_the_check_sees_a_violated_certificate(tmp_path: Path) -> None:
    RecordStore(tmp_path).write(example_record(), example_samples().assign(certified_0=1.0))
    assert any("than their certificate allows" in problem for problem in problems_of(tmp_path))


def test_the_check_sees_large_and_incomplete_records(tmp_path: Path) -> None:
    store = RecordStore(tmp_path)
    store.write(example_record(defense={"name": "x" * RECORD_BYTES}), example_samples())
    assert any("at most" in problem for problem in problems_of(tmp_path))
    store.write(example_record(), example_samples().drop(columns="clean_score"))
    assert any("missing columns ['clean_score']" in problem for problem in problems_of(tmp_path))


def test_the_readme_shows_a_record_that_is_named_without_doubt() -> None:
    prefix = re.search(r"-m benchmark show (\S+)", (ROOT / "README.md").read_text(encoding="utf-8")).group(1)
    assert len([record for record in RecordStore(RECORDS).records() if record.key.startswith(prefix)]) == 1
