"""The store keeps records whole: torn, altered, concurrent and failing writes."""

from __future__ import annotations

import errno
import logging
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pandas as pd
import pytest

from registry.errors import DamagedRecordError, NewerSchemaError, ResultsError
from results.record import SCHEMA, RecordStatus
from results.sample_table import to_parquet
from results.serialize import to_json
from results.store import RecordStore, unfinished_folder
from tests.example_records import KEY, example_record, example_samples


@pytest.fixture
def store(tmp_path: Path) -> RecordStore:
    return RecordStore(tmp_path / "records")


def test_write_and_read_back(store: RecordStore) -> None:
    path = store.write(example_record(), example_samples())
    assert path == store.folder / "phantom/Undefended/standard-s0-0123456789ab.json"
    record = store.read(KEY)
    assert record.samples.rows == 8
    samples = store.samples(record)
    assert samples["score_0"].tolist() == [0, 0, 1, 0, 0, 1, 0, 0]
    assert samples["member_0"].tolist()[:3] == ["square", "square", ""]
    assert [str(samples[name].dtype) for name in ("sample_id", "score_0")] == ["int32", "float32"]
    assert store.keys() == (KEY,)
    assert list(store.records()) == [record]
    assert not list(store.folder.rglob("*.tmp"))
    assert store.orphans() == ()


def test_absent_record_and_empty_folder(store: RecordStore) -> None:
    assert store.read(KEY) is None
    assert store.keys() == () and list(store.records()) == []
    with pytest.raises(ResultsError, match="has no sample table"):
        store.samples(example_record())


def test_keys_with_unsafe_characters_have_their_own_files(store: RecordStore) -> None:
    keys = [f"phantom/Noise{sign}1/reference{sign}autoattack-s0-ab.cd" for sign in ":_%*é"]
    for key in keys:
        store.write(example_record(key=key))
    assert store.keys() == tuple(sorted(keys))
    assert [store.read(key).key for key in keys] == keys
    names = [path.relative_to(store.folder).as_posix() for path in store.folder.rglob("*.json")]
    assert not set(':*"<>|?\\') & set("".join(names))


@pytest.mark.parametrize("key", ["a/b", "a/b/c/d", "../b/c", "a/../c", "/b/c", "a//c", "a/b/", ""])
def test_keys_that_are_none(store: RecordStore, key: str) -> None:
    with pytest.raises(ResultsError, match="a key is <dataset>/<defense>"):
        store.path_of(key)


def test_bytes_are_the_same_twice(tmp_path: Path) -> None:
    contents = []
    for name in ("one", "two"):
        folder = tmp_path / name
        RecordStore(folder).write(example_record(), example_samples())
        contents.append({path.relative_to(folder): path.read_bytes() for path in folder.rglob("*.*") if path.is_file()})
    assert contents[0] == contents[1]
    assert len(contents[0]) == 2


def test_parquet_bytes_do_not_depend_on_pandas_bookkeeping() -> None:
    plain = example_samples()
    fussy = plain.set_index(pd.Index(range(100, 108), name="row")).astype({"step_0": "int8", "score_0": "float32"})
    fussy["member_0"] = fussy["member_0"].astype(object)
    fussy.attrs["made by"] = "me"
    assert to_parquet(fussy) == to_parquet(plain)


def test_sample_tables_have_one_row_per_sample(store: RecordStore) -> None:
    twice = pd.concat([example_samples(), example_samples().iloc[2:3]])
    with pytest.raises(ResultsError, match="sample_id 2 twice"):
        store.write(example_record(), twice)
    with pytest.raises(ResultsError, match="needs a column 'sample_id'"):
        store.write(example_record(), example_samples().drop(columns="sample_id"))
    assert store.keys() == ()


def test_record_that_could_not_be_read_back_is_not_written(store: RecordStore) -> None:
    with pytest.raises(ResultsError, match="field n_planned"):
        store.write(example_record(n_planned=8.5), example_samples())
    assert not list(store.folder.rglob("*.*"))


def test_done_replaces_failed_but_not_the_other_way(store: RecordStore, caplog: pytest.LogCaptureFixture) -> None:
    store.write(example_record(status=RecordStatus.FAILED))
    assert store.read(KEY).status is RecordStatus.FAILED
    store.write(example_record(), example_samples())
    assert store.read(KEY).status is RecordStatus.DONE
    store.write(example_record(status=RecordStatus.FAILED))
    assert store.read(KEY).status is RecordStatus.DONE
    assert "its finished record is kept" in caplog.text
    assert len(store.keys()) == 1


def test_what_an_interrupted_cell_keeps_goes_with_its_done_record_alone(store: RecordStore) -> None:
    kept = unfinished_folder(store.folder, KEY) / "0001.safetensors"
    kept.parent.mkdir(parents=True)
    kept.write_bytes(b"steps")
    store.write(example_record(status=RecordStatus.FAILED))
    assert kept.exists()
    assert store.keys() == (KEY,)
    store.write(example_record(), example_samples())
    assert not kept.parent.exists()


def test_half_written_and_newer_files_are_skipped_and_listed(
    store: RecordStore, caplog: pytest.LogCaptureFixture
) -> None:
    text = to_json(example_record())
    keys = [f"phantom/D{number}/standard-s0-0123456789ab" for number in range(4)]
    store.write(example_record(key=keys[0]))
    contents = text[: len(text) // 2].encode(), text.replace(f'"schema": {SCHEMA}', '"schema": 9').encode(), b"\xff\xfe"
    for key, content in zip(keys[1:], contents, strict=True):
        store.path_of(key).parent.mkdir(parents=True)
        store.path_of(key).write_bytes(content)
    with caplog.at_level(logging.WARNING):
        assert [record.key for record in store.records()] == [keys[0]]
    assert [path for path, _ in store.damaged] == [store.path_of(key) for key in keys[1:]]
    assert ["torn" in store.damaged[0][1], "newer" in store.damaged[1][1], "UTF-8" in store.damaged[2][1]] == [True] * 3
    assert caplog.text.count("skipped") == 3
    with pytest.raises(DamagedRecordError):
        store.read(keys[1])
    with pytest.raises(NewerSchemaError):
        store.read(keys[2])
    list(store.records())
    assert len(store.damaged) == 3


def test_record_at_the_wrong_place_is_found(store: RecordStore) -> None:
    path = store.write(example_record())
    copy = path.with_name("standard-s1-0123456789ab.json")
    copy.write_bytes(path.read_bytes())
    with pytest.raises(DamagedRecordError, match="another key"):
        store.read(store.key_of(copy))


def test_flipped_bytes_of_a_sample_table_are_found(store: RecordStore) -> None:
    store.write(example_record(), example_samples())
    record = store.read(KEY)
    path = store.samples_path(record)
    original = path.read_bytes()
    for position in range(0, len(original), 131):
        forged = bytearray(original)
        forged[position] ^= 1
        path.write_bytes(forged)
        with pytest.raises(DamagedRecordError, match="expected sha256"):
            store.samples(record)
    path.unlink()
    with pytest.raises(ResultsError, match="No such file"):
        store.samples(record)


def test_orphans_are_the_tables_nobody_names(store: RecordStore) -> None:
    store.write(example_record(), example_samples())
    former = store.samples_path(store.read(KEY))
    store.write(example_record(), example_samples([0] * 8))
    assert store.orphans() == (former,)


@pytest.mark.parametrize("fails_at", [1, 2], ids=["sample table", "record"])
def test_full_disk_leaves_no_half_file(store: RecordStore, monkeypatch: pytest.MonkeyPatch, fails_at: int) -> None:
    calls = []

    def full(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) == 2 * fails_at - 1:  # each file forces its content, then its folder
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ResultsError, match=r"cannot write results in .*records.*No space left.*free some space"):
        store.write(example_record(), example_samples())
    assert store.read(KEY) is None
    assert not list(store.folder.rglob("*.tmp"))
    assert len(list(store.folder.rglob("*.parquet"))) == fails_at - 1


def test_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "records").write_text("a file where the folder should be")
    store = RecordStore(tmp_path / "records")
    with pytest.raises(ResultsError, match="cannot write results in"):
        store.write(example_record())
    with pytest.raises(ResultsError, match="cannot write results in"), store.claim(KEY):
        pass


def test_claim_excludes_and_is_freed(store: RecordStore) -> None:
    with store.claim(KEY) as claim:
        assert claim is not None
        with store.claim(KEY) as second:
            assert second is None
        with store.claim(KEY + "0") as other:
            assert other is not None
        with store.claim(KEY) as third:
            assert third is None
    with store.claim(KEY) as again:
        assert again is not None
    assert {path.parent.name for path in store.folder.rglob("*.lock")} == {".locks"}
    assert store.keys() == ()


def test_claim_is_freed_by_an_error(store: RecordStore) -> None:
    with pytest.raises(OSError, match="of the cell"), store.claim(KEY):
        raise OSError("of the cell")
    with store.claim(KEY) as claim:
        assert claim is not None


@pytest.mark.skipif(os.name != "posix", reason="kill -9 is POSIX")
def test_claim_of_a_killed_process_is_free(store: RecordStore) -> None:
    code = (
        "import sys, time; from pathlib import Path; from results.store import RecordStore\n"
        "with RecordStore(Path(sys.argv[1])).claim(sys.argv[2]) as claim:\n"
        "    print(claim is not None, flush=True); time.sleep(60)"
    )
    root = Path(__file__).parent.parent
    arguments = [sys.executable, "-c", code, str(store.folder), KEY]
    with subprocess.Popen(arguments, cwd=root, stdout=subprocess.PIPE, text=True) as holder:
        try:
            assert holder.stdout.readline() == "True\n"
            with store.claim(KEY) as claim:
                assert claim is None
        finally:
            holder.send_signal(signal.SIGKILL)
            holder.wait()
    with store.claim(KEY) as claim:
        assert claim is not None


def _work(folder: Path, worker: int, keys: list[str]) -> None:
    store = RecordStore(folder)
    for key in keys:
        with store.claim(key) as claim:
            if claim is not None and store.read(key) is None:
                store.write(example_record(key=key, attack_seed=worker), example_samples())
                with (folder / f"log-{worker}").open("a") as log:
                    log.write(key + "\n")


def test_processes_share_a_folder(store: RecordStore) -> None:
    keys = [f"phantom/D{number}/standard-s0-0123456789ab" for number in range(12)]
    processes = [
        multiprocessing.get_context("spawn").Process(target=_work, args=(store.folder, worker, keys[worker:] + keys))
        for worker in range(2)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0]
    assert len(list(store.records())) == 12 and not store.damaged
    done = [key for file in store.folder.glob("log-*") for key in file.read_text().split()]
    assert sorted(done) == sorted(keys)


def test_readers_see_whole_records_while_one_is_rewritten(store: RecordStore) -> None:
    store.write(example_record(), example_samples())
    stop = threading.Event()

    def rewrite() -> None:
        seed = 0
        while not stop.is_set():
            seed += 1
            store.write(example_record(attack_seed=seed), example_samples([seed % 2] * 8))

    writer = threading.Thread(target=rewrite)
    writer.start()
    try:
        seen = set()
        for _ in range(200):
            record = store.read(KEY)
            assert len(store.samples(record)) == 8
            seen.add(record.attack_seed)
    finally:
        stop.set()
        writer.join()
    assert len(seen) > 1
