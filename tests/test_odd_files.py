"""Odd, damaged and crafted files cost their own line: no command ends with a traceback because of one of them."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import struct
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmark.commands import doctor
from benchmark.estimate import Costs
from benchmark.record_text import describe
from datasets.npz_arrays import NpzArrays
from registry import load_entries
from registry.errors import DamagedRecordError, DataDamagedError, InputContractError, ResultsError
from reports.readme import BEGIN, END, update, with_tables
from reports.standings import build_standings
from results.adversarials import unpack
from results.foreign_npz import read_arrays
from results.record import AdversarialFile, EvaluationRecord, SampleFile
from results.sample_table import from_parquet
from results.store import RecordStore
from tests.example_records import KEY, example_budget, example_record, example_samples
from tests.synthetic_records import RED, make_defense, make_protocol, make_record, write_store
from tests.tiny_files import tiny_spec

SPEC = tiny_spec("datasets.packed_npz:read")


def parquet(**columns) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns), buffer)
    return buffer.getvalue()


BAD_TABLES = {
    "no Parquet": (b"PAR1 nothing of it PAR1", "no sample table in Parquet"),
    "empty": (b"", "no sample table in Parquet"),
    "no ids": (parquet(clean_score=[1.0]), "expected a column 'sample_id'"),
    "an id twice": (parquet(sample_id=[3, 4, 3], clean_score=[1.0, 1.0, 0.0]), "sample_id 3 twice"),
    "an id that is absent": (parquet(sample_id=[3, None]), "whole numbers as sample_id, got float64"),
    "ids of text": (parquet(sample_id=["a", "b"]), "whole numbers as sample_id, got"),
    "scores of text": (parquet(sample_id=[0, 1], score_0=["high", "low"]), "numbers in the columns score_0"),
}


@pytest.mark.parametrize("case", BAD_TABLES)
def test_a_file_that_is_no_sample_table_is_refused_with_a_remedy(case):
    content, told = BAD_TABLES[case]
    with pytest.raises(DamagedRecordError, match="restore the file from git") as error:
        from_parquet(content, "samples/x.parquet")
    assert told in str(error.value) and str(error.value).startswith("samples/x.parquet: ")


def with_table(store: RecordStore, record: EvaluationRecord, content: bytes, rows: int) -> None:
    """Gives a record a sample table of any bytes, with the right checksum."""
    checksum = hashlib.sha256(content).hexdigest()
    record = replace(record, samples=SampleFile(name=f"{checksum[:16]}.parquet", sha256=checksum, rows=rows))
    store.write(record)
    store.samples_path(record).write_bytes(content)


@pytest.mark.parametrize("content", [b"nothing", "twice"], ids=["no Parquet", "an id twice"])
def test_an_odd_table_of_a_rival_costs_the_rival_alone(tmp_path, content):
    ranked = make_record()
    rival = make_record(protocol=make_protocol("paper:other"), robust=(0.1,) * 5)
    store = write_store(tmp_path, [ranked, rival])
    if content == "twice":
        buffer = io.BytesIO()
        pd.concat([rival.samples, rival.samples[:1]]).to_parquet(buffer)
        content = buffer.getvalue()
    with_table(store, rival.record, content, rows=157)
    standings = build_standings(store)
    assert [name for name, _ in standings.unreadable] == [f"sample table of {rival.record.key}"]
    (row,) = next(board.rows for board in standings.boards if board.ranks)
    assert (row.status, row.lowered_by) == ("verified", ())


@pytest.mark.parametrize("values", ["high", None], ids=["text", "objects"])
def test_scores_that_are_no_numbers_cost_one_table(tmp_path, values):
    class Odd(RecordStore):
        def samples(self, record: EvaluationRecord) -> pd.DataFrame:
            value = values or {"no": "number"}
            return super().samples(record).assign(clean_score=[value] * 156)

    write_store(tmp_path, [make_record()])
    standings = build_standings(Odd(tmp_path))
    assert [name.partition(" of ")[0] for name, _ in standings.unreadable] == ["sample table"]


BEYOND = {"norm": "Linf", "eps": 10**400}
ESCALATED = make_record(defense=make_defense("Odd"), flags=(RED,)).record
ODD_RECORDS = {
    "no weights": ({"checkpoint": None}, "names no weights"),
    "no clean score": ({"clean": {}}, "a mean score is missing"),
    "no robust score": ({"budgets": (replace(ESCALATED.budgets[0], metrics={}),)}, "a mean score is missing"),
    "an escalation without eps": (
        {"escalation": replace(ESCALATED.escalation, budget={"norm": "Linf"})},
        "KeyError: 'eps'",
    ),
    "an eps beyond all numbers": ({"dataset": ESCALATED.dataset | {"ranked_budget": BEYOND}}, ""),
}


@pytest.mark.parametrize("case", ODD_RECORDS)
def test_an_odd_record_costs_one_line_of_a_report(tmp_path, case):
    changes, told = ODD_RECORDS[case]
    odd = replace(make_record(defense=make_defense("Odd"), flags=(RED,)), record=replace(ESCALATED, **changes))
    standings = build_standings(write_store(tmp_path, [make_record(), odd]))
    assert [row.defense.name for board in standings.boards for row in board.rows if board.ranks] == ["Undefended"]
    ((name, reason),) = standings.unreadable
    assert name == odd.record.key and told in reason and "evaluate it again" in reason


def test_a_record_without_a_name_gives_no_estimate_and_the_others_do():
    nameless = [example_record(**{part: {}}) for part in ("dataset", "defense", "protocol")]
    costs = Costs()
    costs.learn_from([*nameless, example_record(defense={"name": ["a", "list"]}), example_record()], on_gpu=False)
    assert dict(costs._per_sample) == {
        ("phantom", "Undefended", "standard"): [1.5 / 8],
        ("phantom", "standard", False): [1.5 / 8],
    }


@pytest.mark.parametrize(
    ("card", "told"),
    [
        ({}, "Worst case at None None"),
        ({"norm": "Linf"}, "Worst case at Linf None"),
        ({"norm": "L7", "eps": 0.5}, "Worst case at L7 0.5"),
        ({"norm": "Linf", "eps": "wide"}, "Worst case at Linf wide"),
    ],
)
def test_show_prints_what_an_odd_record_holds(card, told):
    kept = AdversarialFile(name="x.npz", sha256="0" * 64, count=3, certified=(0, 7, -1))
    result = replace(example_budget(), budget=card, metrics={})
    text = describe(example_record(budgets=(result,), adversarials=kept, clean={}))
    assert told in text and "an unknown budget, 7, an unknown budget, -1" in text


STRAY = (
    "phantom/Undefended/._standard-s0-x.json",
    ".ipynb_checkpoints/x/y.json",
    "phantom/.hidden/standard-s0-x.json",
    "phantom/Undefended/standard-s0%2Fx.json",
    "phantom/Undefended/standard-s0-x (1).json",
)


def test_stray_files_are_no_records(tmp_path):
    store = RecordStore(tmp_path)
    store.write(example_record(), example_samples())
    for name in STRAY:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("{}")
    (Path(os.fsdecode(os.fsencode(tmp_path) + b"/phantom/Undefended/\xff.json"))).write_text("{}")
    assert store.keys() == (KEY,)
    assert [record.key for record in store.records()] == [KEY] and store.damaged == []
    assert store.orphans() == ()


def member(header: str, data: bytes = b"") -> bytes:
    """Returns an npy file with any text as its header."""
    text = header.encode("latin1")
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + data


def described(descr: str, shape: str, data: bytes = b"") -> bytes:
    return member(f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}}}\n", data)


CRAFTED = {
    "a size of terabytes": described("'<f4'", "(1000000000000,)", bytes(16)),
    "a size beyond all numbers": described("'<f4'", "(" + "9" * 40 + ", 0)"),
    "nested without end": member("(" * 9000),
    "an open bracket": member("{'descr': ("),
    "an odd indent": member("  1\n 2\n"),
    "keys of two kinds": member("{1: 2, 'a': 3}"),
    "a list as key": member("{[]: 1}"),
    "an empty type": described("()", "(1,)"),
    "a type of numbers": described("[1]", "(1,)"),
    "a negative size": described("'<f4'", "(-5,)", bytes(16)),
    "too few bytes": described("'<f4'", "(4,)", bytes(15)),
    "a layout of the future": b"\x93NUMPY\x09\x00" + bytes(20),
    "no array": b"nothing of the kind",
    "nothing": b"",
}


def archive(names: tuple[str, ...], content: bytes, method: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as file:
        for name in names:
            file.writestr(f"{name}.npy", content)
    return buffer.getvalue()


def crafted_archives(names: tuple[str, ...]) -> dict[str, bytes]:
    """Returns npz files that numpy or zipfile stumbles over, each at every one of these names."""
    found = {case: archive(names, content) for case, content in CRAFTED.items()}
    sound = archive(names, described("'|u1'", "(64,)", bytes(64)), zipfile.ZIP_LZMA)
    found["torn LZMA"] = sound.replace(b"\x5d\x00\x00", b"\xff\xff\xff")
    plain = archive(names, described("'|u1'", "(64,)", bytes(64)))
    found["encrypted"] = _marked(plain, local=6, central=8, value=1)
    found["packed by an unknown method"] = _marked(plain, local=8, central=10, value=99)
    return found


def _marked(content: bytes, *, local: int, central: int, value: int) -> bytes:
    """Returns an archive with another number in every local header and in the directory."""
    changed = bytearray(content)
    for start, offset in ((b"PK\x03\x04", local), (b"PK\x01\x02", central)):
        place = content.find(start)
        while place >= 0:
            struct.pack_into("<H", changed, place + offset, value)
            place = content.find(start, place + 1)
    return bytes(changed)


ADVERSARIALS = ("version", "shape", "certified", "sample_ids", "budgets", "levels", "scales", "moved", "signs", "steps")
CASES = tuple(crafted_archives(("a",)))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", CASES)
def test_crafted_archives_are_refused_wherever_they_are_read(case, tmp_path):
    from benchmark.submission import read_submission

    with pytest.raises(DamagedRecordError, match="no file of adversarials"):
        unpack(crafted_archives((*ADVERSARIALS, "exact"))[case], "x.npz")
    path = tmp_path / "found.npz"
    path.write_bytes(crafted_archives(("adversarials", "sample_ids"))[case])
    with pytest.raises(InputContractError, match="expected an npz file with adversarials"):
        read_submission(path, (1, 8, 8), 4)
    path.write_bytes(crafted_archives(("train_images",))[case])
    with (
        pytest.raises(DataDamagedError, match="ask the owner"),
        NpzArrays(path, SPEC, "0" * 64, "ask the owner") as read,
    ):
        read.images("train")


def test_an_array_that_says_it_is_larger_than_its_file_is_refused_before_memory_is_taken(monkeypatch):
    content = archive(("a",), CRAFTED["a size of terabytes"])
    monkeypatch.setattr(np.lib.format, "read_array", lambda *arguments, **options: pytest.fail("it was read"))
    with pytest.raises(ValueError, match=r"a\.npy names 4000000000000 bytes, it holds"):
        read_arrays(content, ("a",), 1 << 20)


def test_arrays_without_memory_for_them_are_told(monkeypatch):
    def refuse(*arguments, **options):
        raise MemoryError("Unable to allocate 745. GiB")

    monkeypatch.setattr(np.lib.format, "read_array", refuse)
    with pytest.raises(ValueError, match="Unable to allocate"):
        read_arrays(archive(("a",), described("'|u1'", "(1,)", b"x")), ("a",), 1 << 20)


ROW = {
    "threat_model": {"kind": "ball", "scope": "each", "label": "Linf 8/255"},
    "dataset": "breastmnist",
    "defense": "A|B*2027",
    "ranked_budget": True,
    "quality": "accuracy",
    "seeds": [0],
    "n": 156,
    "rank": 1,
    "clean": 0.8,
    "robust": 0.5,
    "best_known": None,
    "robust_interval": [0.4, 0.6],
    "best_known_interval": None,
    "below_constant": False,
    "upper_bound": False,
    "balanced_accuracy": None,
    "status": "verified",
    "reasons": [],
    "constant_predictor": None,
}


@pytest.fixture
def readme(tmp_path) -> tuple[Path, Path]:
    load_entries()
    (tmp_path / "README.md").write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    (tmp_path / "leaderboard.json").write_text(json.dumps({"rows": [ROW]}))
    return tmp_path / "README.md", tmp_path / "leaderboard.json"


def test_the_names_of_defenses_are_text_in_the_readme(readme):
    text = with_tables(readme[0].read_text(), readme[1].read_text())
    assert "| A\\|B\\*2027 | 1 | 80.0 |" in text


def test_a_full_disk_leaves_the_readme_as_it_is(readme, monkeypatch):
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    before = readme[0].read_bytes()
    with monkeypatch.context() as patched, pytest.raises(ResultsError, match="No space left"):
        patched.setattr("results.atomic_file.os.fsync", full)
        update(*readme, check=False)
    assert readme[0].read_bytes() == before
    assert update(*readme, check=False) is False
    assert readme[0].read_text().startswith("before\n") and update(*readme, check=True) is True


@pytest.mark.parametrize("early", [True, False], ids=["before it is looked at", "after it"])
def test_doctor_passes_over_what_a_run_takes_away_meanwhile(tmp_path, monkeypatch, early):
    cell = tmp_path / "toy%2FD"
    cell.mkdir()
    (cell / "kept.bin").write_bytes(bytes(2_000_000))
    (cell / "gone.bin").write_bytes(b"x")
    real = Path.stat

    def stat(self: Path, **options):
        if self.name != "gone.bin":
            return real(self, **options)
        if early:
            self.unlink(missing_ok=True)
        found = real(self, **options)
        self.unlink(missing_ok=True)
        return found

    monkeypatch.setattr(Path, "stat", stat)
    assert "1 interrupted cell(s) keep 2 MB" in doctor._interrupted(tmp_path)
