"""Certificates as a file: every form survives, equal ones give equal bytes, and nothing else is taken for one."""

from __future__ import annotations

import io
import pickle
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from registry.errors import DamagedRecordError, ResultsError
from results.adversarials import Adversarials, pack, quantise, unpack
from results.store import RecordStore
from tests.example_records import example_record, example_samples

SHAPE = (1, 3, 5)


def example(m: int = 6, **changes) -> Adversarials:
    """Returns adversarials of levels 1, 3 and 127 and of two that are exact."""
    rng = np.random.default_rng(0)
    levels = np.array([1, 0, 3, 127, 1, 0])[:m]
    steps = np.stack([rng.integers(-level, level + 1, SHAPE) for level in levels]) if m else np.zeros((0, *SHAPE))
    fields = {
        "shape": SHAPE,
        "certified": (0, 2),
        "sample_ids": np.arange(m) * 7,
        "budgets": np.array([0, 0, 1, 2, 2, 2])[:m],
        "levels": levels,
        "scales": np.linspace(0.5, 1, m, dtype=np.float32),
        "steps": steps.astype(np.int8),
        "exact": {row: rng.random(SHAPE, dtype=np.float32) for row in np.flatnonzero(levels == 0).tolist()},
    }
    return Adversarials(**(fields | changes))


def arrays_of(content: bytes) -> dict[str, np.ndarray]:
    with np.load(io.BytesIO(content)) as archive:
        return {name: archive[name] for name in archive.files}


def repacked(**changes) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **(arrays_of(pack(example())) | changes))
    return buffer.getvalue()


@pytest.mark.parametrize("m", [0, 1, 2, 6])
def test_round_trip(m):
    made = example(m)
    back = unpack(pack(made), "memory")
    for name in ("sample_ids", "budgets", "levels", "scales", "steps"):
        np.testing.assert_array_equal(getattr(back, name), getattr(made, name))
    assert (back.shape, back.certified) == (made.shape, made.certified)
    assert back.exact.keys() == made.exact.keys()
    assert all(np.array_equal(back.exact[row], made.exact[row]) for row in made.exact)
    assert pack(back) == pack(made)


def test_signs_take_about_one_bit_for_a_value():
    steps = np.random.default_rng(1).choice([-1, 1], (200, 1, 28, 28)).astype(np.int8)
    ones = np.ones(200, dtype=np.int64)
    parts = {"sample_ids": np.arange(200), "budgets": 0 * ones, "levels": ones, "scales": ones.astype(np.float32)}
    content = pack(example(0, shape=(1, 28, 28), steps=steps, **parts))
    assert len(content) / 200 < 120


def test_points_are_steps_of_eps_or_exact():
    made = example()
    originals = np.full((6, *SHAPE), 0.5, dtype=np.float32)
    points = made.points(originals.copy(), np.float32(0.1))
    unit = 0.1 * made.scales[2] / 3
    np.testing.assert_allclose(points[2], 0.5 + unit * made.steps[2], rtol=1e-6)
    np.testing.assert_array_equal(points[1], made.exact[1])


def test_the_latest_adversarial_up_to_a_budget_holds():
    made = example(sample_ids=np.array([5, 6, 5, 5, 8, 9]))
    assert made.holding(np.array([5, 6, 7, 8]), 0).tolist() == [0, 1, -1, -1]
    assert made.holding(np.array([5, 6, 7, 8]), 1).tolist() == [2, 1, -1, -1]
    assert made.holding(np.array([5, 6, 7, 8]), 2).tolist() == [3, 1, -1, 4]


def test_steps_are_whole_and_outward_ones_no_smaller():
    relative = np.array([-1, -0.5, -0.2, -0.01, 0, 0.00005, 0.34, 1], dtype=np.float32)
    assert quantise(relative, 3, outward=False).tolist() == [-3, -2, -1, 0, 0, 0, 1, 3]
    assert quantise(relative, 3, outward=True).tolist() == [-3, -2, -1, -1, 0, 0, 2, 3]
    assert quantise(relative, 1, outward=True).tolist() == [-1, -1, -1, -1, 0, 0, 1, 1]


def test_every_flipped_byte_and_truncation_is_refused_or_without_effect():
    content = pack(example())
    original = arrays_of(content)
    for position in range(0, len(content), 13):
        forged = bytearray(content)
        forged[position] ^= 0x10
        try:
            back = unpack(bytes(forged), "file.npz")
        except DamagedRecordError as error:
            assert "file.npz" in str(error)
        else:  # bookkeeping of the archive that nobody reads
            assert all(np.array_equal(value, original[name]) for name, value in arrays_of(pack(back)).items())
    for length in range(0, len(content), 97):
        with pytest.raises(DamagedRecordError):
            unpack(content[:length], "file.npz")


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"levels": np.array([1, 0, 2, 127, 1, 0], dtype=np.uint8)}, "more steps than its level"),
        ({"scales": np.array([1, 1, 1, 1.5, 1, 1], dtype=np.float32)}, "scale is not in"),
        ({"scales": np.array([1, 1, 1, np.nan, 1, 1], dtype=np.float32)}, "scale is not in"),
        ({"exact": np.full((4, 30), 0x7F, dtype=np.uint8)}, "outside \\[0, 1\\]"),
        ({"exact": np.zeros((4, 29), dtype=np.uint8)}, "cannot reshape"),
        ({"signs": np.zeros(1, dtype=np.uint8)}, "do not fit"),
        ({"moved": np.zeros(9, dtype=np.uint8)}, "do not fit"),
        ({"sample_ids": np.zeros(5, dtype=np.int32)}, "differ in length"),
        ({"sample_ids": np.zeros(6)}, "expected sample_ids of int32"),
        ({"shape": np.array([1 << 20, 1 << 20], dtype=np.int32)}, "makes no sense"),
        ({"version": np.array(9, dtype=np.int32)}, "version 9"),
        ({"further": np.zeros(1)}, "expected arrays"),
        ({"steps": np.array([{}, 1], dtype=object)}, "allow_pickle=False"),
    ],
)
def test_arrays_that_make_no_sense_are_refused(changes, why):
    with pytest.raises(DamagedRecordError, match=why):
        unpack(repacked(**changes), "file.npz")


def test_a_pickle_is_no_file_of_adversarials():
    for content in (pickle.dumps({"a": 1}), b"", b"PK\x03\x04", b"\x93NUMPY"):
        with pytest.raises(DamagedRecordError, match="restore the file from git"):
            unpack(content, "file.npz")


def test_members_that_are_no_arrays_are_refused():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in arrays_of(pack(example())):
            archive.writestr(f"{name}.npy", pickle.dumps({}))
    with pytest.raises(DamagedRecordError, match="no array"):
        unpack(buffer.getvalue(), "file.npz")


def test_a_file_that_unfolds_to_too_much_is_refused_unread(monkeypatch):
    monkeypatch.setattr("results.adversarials.LARGEST_FILE", 1000)
    with pytest.raises(DamagedRecordError, match="unfolds to"):
        unpack(pack(example()), "file.npz")


def test_the_store_keeps_them_beside_the_record(tmp_path: Path):
    store, made = RecordStore(tmp_path), example()
    store.write(example_record(), example_samples(), made)
    record = store.read(example_record().key)
    path = store.adversarials_path(record)
    assert (record.adversarials.count, record.adversarials.certified) == (6, (0, 2))
    assert path == tmp_path / "adversarials" / f"{record.adversarials.sha256[:16]}.npz"
    assert pack(store.adversarials(record)) == path.read_bytes()
    assert store.orphans() == ()
    store.write(example_record(), example_samples(), replace(made, certified=(0,)))
    assert store.orphans() == (path,)


def test_the_store_sees_an_altered_and_an_absent_file(tmp_path: Path):
    store = RecordStore(tmp_path)
    store.write(example_record(), example_samples(), example())
    record = store.read(example_record().key)
    path = store.adversarials_path(record)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(DamagedRecordError, match="expected sha256"):
        store.adversarials(record)
    path.unlink()
    with pytest.raises(ResultsError, match="No such file"):
        store.adversarials(record)
    with pytest.raises(ResultsError, match="keeps no adversarials"):
        store.adversarials(example_record())
