"""Records survive the way through JSON, and nothing else is taken for a record."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from registry.errors import DamagedRecordError, NewerSchemaError, ResultsError
from results import migrate
from results.record import SCHEMA, Estimate, Failure, Flag, RecordStatus
from results.serialize import from_json, rounded, to_json
from tests.example_records import example_budget, example_record


def _document() -> dict:
    return json.loads(to_json(example_record()))


def test_round_trip_of_done_and_failed() -> None:
    for record in (
        example_record(budgets=(example_budget(eps=0.0156862745),)),
        example_record(
            status=RecordStatus.FAILED,
            checkpoint=None,
            cost=None,
            budgets=(),
            failure=Failure(kind="ValueError", message="größer als 1", traceback="Traceback ..."),
        ),
    ):
        text = to_json(record)
        assert from_json(text, "memory") == record
        assert to_json(from_json(text, "memory")) == text
        assert text.endswith("}\n")
        assert ("größer" in text) == (record.failure is not None)


def test_bytes_do_not_depend_on_order_or_last_bits() -> None:
    one = example_record(revisions={"dataset": 1, "engine": 2}, constant_predictor=0.1 + 0.2)
    other = example_record(revisions={"engine": 2, "dataset": 1}, constant_predictor=0.3)
    assert to_json(one) == to_json(other)
    assert rounded(4 / 255) == 0.01568627451


def test_numpy_numbers_are_kept_as_plain_ones() -> None:
    estimate = Estimate(value=np.float32(0.5), low=np.float64(0.25), high=1, n=np.int64(8))
    back = from_json(to_json(example_record(n_planned=np.int32(8), clean={"clean": estimate})), "memory")
    assert back.clean["clean"] == Estimate(value=0.5, low=0.25, high=1.0, n=8)
    assert type(back.n_planned) is int


@pytest.mark.parametrize("value", [float("nan"), float("inf"), object(), {1, 2}])
def test_what_json_cannot_hold_is_refused_with_its_field(value: object) -> None:
    record = example_record(flags=(Flag(name="stateful", red=False, evidence="", values={"ratio": value}),))
    with pytest.raises(ResultsError, match=r"flags\[0\]\.values\.ratio"):
        to_json(record)


def test_unknown_missing_and_mistyped_fields() -> None:
    with pytest.raises(DamagedRecordError, match="unknown field colour"):
        from_json(json.dumps(_document() | {"colour": "red"}), "memory")
    document = _document()
    document["budgets"][0]["members"][1]["speed"] = 1
    with pytest.raises(DamagedRecordError, match=r"unknown field budgets\.0\.members\.1\.speed"):
        from_json(json.dumps(document), "memory")
    document = _document()
    del document["quality"]
    with pytest.raises(DamagedRecordError, match="field quality is missing"):
        from_json(json.dumps(document), "memory")
    for field, value in (("n_planned", "8"), ("n_planned", 8.5), ("status", "almost"), ("dataset", [])):
        with pytest.raises(DamagedRecordError, match=f"field {field}"):
            from_json(json.dumps(_document() | {field: value}), "memory")


def test_every_truncation_is_found() -> None:
    text = to_json(example_record())
    for length in range(0, len(text) - 2, 97):
        with pytest.raises(DamagedRecordError, match=r"some/file\.json: torn or not JSON.*run the cell again"):
            from_json(text[:length], "some/file.json")


@pytest.mark.parametrize("text", ["[]", "3", "null", "{}", '{"schema": true}', '{"schema": "1"}'])
def test_other_json_is_no_record(text: str) -> None:
    with pytest.raises(DamagedRecordError, match="expected"):
        from_json(text, "memory")


def test_nan_in_a_file_is_refused() -> None:
    text = to_json(replace(example_record(), constant_predictor=0.5)).replace(
        '"constant_predictor": 0.5', '"constant_predictor": NaN'
    )
    with pytest.raises(DamagedRecordError, match="NaN"):
        from_json(text, "memory")


def test_newer_schema_is_refused() -> None:
    document = _document() | {"schema": SCHEMA + 2, "a field of the future": 1}
    with pytest.raises(NewerSchemaError) as caught:
        from_json(json.dumps(document), "far.json")
    assert str(caught.value) == (
        f"far.json: written by a newer version (schema {SCHEMA + 2}, this one reads up to {SCHEMA}); "
        "update the checkout"
    )


def test_older_schema_is_upgraded(monkeypatch: pytest.MonkeyPatch) -> None:
    def from_0(document: dict) -> dict:
        return {name: value for name, value in document.items() if name != "n"} | {"n_planned": document["n"]}

    monkeypatch.setitem(migrate.UPGRADES, 0, from_0)
    old = _document() | {"schema": 0, "n": 8}
    del old["n_planned"]
    assert from_json(json.dumps(old), "old.json") == from_json(to_json(example_record()), "memory")


def test_older_schema_without_upgrade_is_refused() -> None:
    with pytest.raises(DamagedRecordError, match="no record was ever written in schema 0"):
        from_json(json.dumps(_document() | {"schema": 0}), "old.json")


def test_upgrades_cover_every_older_version() -> None:
    assert set(migrate.UPGRADES) == set(range(1, SCHEMA))


def test_results_import_without_torch() -> None:
    folder = Path(migrate.__file__).parent
    modules = [f"results.{file.stem}" for file in sorted(folder.glob("*.py")) if file.stem != "__init__"]
    # A finder, since scipy asks sys.modules for torch and would trip over a None there.
    code = f"""
import sys
class Block:
    def find_spec(self, name, *rest):
        if name.partition(".")[0] == "torch":
            raise ImportError("torch is blocked")
sys.meta_path.insert(0, Block())
import {", ".join(modules)}
assert "torch" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=folder.parent, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert len(modules) >= 8
