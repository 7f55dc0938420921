"""`challenge`: adversarials of anybody lower a best-known number, or are refused in one line; they are data only."""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmark.cli import main
from benchmark.evaluation_cell import load_dataset
from registry import load_entries
from reports.standings import build_standings
from results.statistics import mean_estimate
from results.store import RecordStore
from tests import tiny_board

EPS = 8 / 255


@pytest.fixture(scope="module", autouse=True)
def entries():
    load_entries()
    tiny_board.register()
    yield
    tiny_board.unregister()


@pytest.fixture
def store(tmp_path_factory, tmp_path) -> RecordStore:
    return tiny_board.copied(tmp_path_factory, tmp_path / "records")


def originals(n: int = 12) -> np.ndarray:
    return load_dataset("phantom2", Path()).splits["test"].take(np.arange(n)).inputs.numpy()


def save(folder: Path, name: str = "found.npz", **arrays) -> Path:
    path = folder / name
    np.savez(path, **arrays)
    return path


def challenge(store: RecordStore, path: Path, *more: str) -> int:
    options = ["--defense", tiny_board.PLAIN, "--dataset", "phantom2", "--eps", "8/255", "--device", "cpu", *more]
    return main(["challenge", str(path), *options, "--results", str(store.folder)])


def steepest(store: RecordStore) -> np.ndarray:
    """Returns the strongest adversarials of a linear model, in closed form."""
    from safetensors.numpy import load_file

    (weights,) = store.folder.rglob("*.safetensors")
    (matrix,) = [values for values in load_file(weights).values() if values.ndim == 2]
    labels = load_dataset("phantom2", Path()).splits["test"].take(np.arange(12)).targets["label"].numpy()
    slope = (matrix[1] - matrix[0]).reshape(1, 1, 28, 28) * np.where(labels == 1, -1, 1).reshape(-1, 1, 1, 1)
    x = originals()
    return np.clip(np.clip(x + EPS * np.sign(slope), x - EPS, x + EPS), 0, 1).astype(np.float32)


def weaken(store: RecordStore) -> None:
    """Makes the ranked record weak: nothing was found on its samples, so that a challenge has something to lower."""
    (record,) = store.records()
    table = store.samples(record).assign(score_0=1.0, score_1=1.0, member_0="", member_1="")
    robust = {"robust": mean_estimate(table["score_0"], True)}
    budgets = tuple(replace(result, metrics=result.metrics | robust) for result in record.budgets)
    store.write(replace(record, budgets=budgets), table)


def test_a_challenge_lowers_the_best_known_number(store, tmp_path, capsys):
    weaken(store)
    path = save(tmp_path, adversarials=steepest(store), sample_ids=np.arange(12))
    assert challenge(store, path, "--by", "Doe2027") == 0
    said = capsys.readouterr().out
    assert "accepted: 12 adversarials within Linf 8/255 take accuracy from 100.0%" in said
    assert "lowers the best-known score of" in said and "record: " in said
    (record,) = [r for r in store.records() if r.protocol["name"] == "challenge:Doe2027"]
    assert not record.protocol["ranks"] and record.adversarials.count > 0
    lowest = record.budgets[0].metrics["robust"].value
    assert lowest < 1
    (board,) = [board for board in build_standings(store).boards if board.budget.label == "Linf 8/255"]
    (row,) = board.rows
    assert (row.lowered_by, row.robust.value) == (("challenge:Doe2027",), 1.0)
    assert row.best_known.value == pytest.approx(lowest)
    assert row.standing is row.best_known, "the lower number ranks"
    assert challenge(store, path, "--by", "Another") == 0
    assert "lowers no sample" in capsys.readouterr().out


def test_a_record_of_a_challenge_verifies(store, tmp_path, capsys):
    weaken(store)
    assert challenge(store, save(tmp_path, adversarials=steepest(store)[3:], sample_ids=np.arange(3, 12))) == 0
    assert main(["verify", "phantom2/TinyLinear/challenge*", "--results", str(store.folder), "--device", "cpu"]) == 0
    assert "1 verified" in capsys.readouterr().out


def test_a_challenge_that_lowers_nothing_says_so_and_writes_nothing(store, tmp_path, capsys):
    before = store.keys()
    assert challenge(store, save(tmp_path, adversarials=originals(5), sample_ids=np.arange(5))) == 0
    said = capsys.readouterr().out
    assert "lowers no sample: the best known of" in said and "nothing is written" in said
    assert store.keys() == before


def test_bytes_of_8_bit_images_are_taken(store, tmp_path, capsys):
    pixels = np.rint(originals(4) * 255).astype(np.uint8)
    assert challenge(store, save(tmp_path, adversarials=pixels, sample_ids=np.arange(4, dtype=np.int16))) == 0
    assert "accepted: 4 adversarials" in capsys.readouterr().out


def test_without_a_ranking_record_at_the_budget_it_is_kept_for_later(store, tmp_path, capsys):
    path = save(tmp_path, adversarials=steepest(store), sample_ids=np.arange(12))
    assert challenge(store, path, "--eps", "16/255") == 0
    assert "no ranking record of these weights at Linf 16/255" in capsys.readouterr().out
    assert {record.protocol["name"] for record in store.records()} == {tiny_board.PROTOCOL, "challenge"}


def refused(store: RecordStore, path: Path, capsys, *more: str) -> str:
    """Asserts exit code 2, one line and no new file; returns the line."""
    before = sorted(store.folder.rglob("*"))
    assert challenge(store, path, *more) == 2
    text = capsys.readouterr().err
    assert text.startswith("error: ") and text.count("\n") == 1 and "Traceback" not in text
    assert sorted(store.folder.rglob("*")) == before
    return text


def test_points_outside_of_the_ball_are_refused(store, tmp_path, capsys):
    points = originals(4)
    points[2, 0, 5, 5] += 0.05 if points[2, 0, 5, 5] < 0.5 else -0.05
    path = save(tmp_path, adversarials=points, sample_ids=np.arange(4) + 0)
    text = refused(store, path, capsys)
    assert "1 of 4 adversarials leave Linf 8/255: sample 2 is 1.59" in text and "larger --eps" in text
    assert "leave L2 0.01" in refused(store, path, capsys, "--eps", "0.01", "--norm", "L2")


CASES = {
    "unknown ids": ({"sample_ids": np.array([0, 1, 999])}, "0 to 199, got 999"),
    "negative ids": ({"sample_ids": np.array([0, 1, -1])}, "got -1"),
    "one id twice": ({"sample_ids": np.array([0, 1, 1])}, "each sample once"),
    "real ids": ({"sample_ids": np.array([0.0, 1, 2])}, "expected (n,) whole numbers"),
    "no ids": ({"sample_ids": np.zeros(0, dtype=np.int64)}, "expected (n,) whole numbers"),
    "other shape": ({"adversarials": np.zeros((3, 28, 28), dtype=np.float32)}, "expected shape (3, 1, 28, 28)"),
    "fewer points": ({"adversarials": np.zeros((2, 1, 28, 28), dtype=np.float32)}, "for 3 sample_ids"),
    "float64": ({"adversarials": np.zeros((3, 1, 28, 28))}, "expected float32 in [0, 1] or uint8, got float64"),
    "0 to 255": ({"adversarials": np.full((3, 1, 28, 28), 200, dtype=np.float32)}, "divide by 255"),
    "NaN": ({"adversarials": np.full((3, 1, 28, 28), np.nan, dtype=np.float32)}, "NaN or infinity"),
    "an array too many": ({"labels": np.zeros(3)}, "it holds adversarials, labels, sample_ids"),
    "objects": ({"sample_ids": np.array([0, {}, 2], dtype=object)}, "allow_pickle=False"),
}


@pytest.mark.parametrize("case", CASES)
def test_what_is_no_submission_is_refused(store, tmp_path, capsys, case):
    changes, expected = CASES[case]
    sound = {"adversarials": originals(3), "sample_ids": np.arange(3)}
    assert expected in refused(store, save(tmp_path, **(sound | changes)), capsys)


def test_files_that_are_no_archives_of_arrays_are_refused(store, tmp_path, capsys):
    class Evil:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "executed",))

    text = io.BytesIO()
    with zipfile.ZipFile(text, "w") as archive:
        archive.writestr("adversarials.npy", pickle.dumps(Evil()))
        archive.writestr("sample_ids.npy", pickle.dumps(Evil()))
    contents = (pickle.dumps(Evil()), b"", b"PK\x03\x04torn", json.dumps({}).encode(), text.getvalue())
    for number, content in enumerate(contents):
        path = tmp_path / f"{number}.npz"
        path.write_bytes(content)
        assert "expected an npz file with adversarials" in refused(store, path, capsys)
    assert not (tmp_path / "executed").exists(), "something in the file was executed"
    assert "cannot read" in refused(store, tmp_path / "absent.npz", capsys)


def test_an_archive_that_unfolds_to_too_much_is_refused_unread(store, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("benchmark.submission.LARGEST_FILE", 100)
    path = save(tmp_path, adversarials=originals(2), sample_ids=np.arange(2))
    assert "unfolds to" in refused(store, path, capsys)


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        (("--defense", "TinyLinaer"), "did you mean TinyLinear"),
        (("--dataset", "phantm2"), "did you mean phantom2"),
        (("--eps", "8"), "Linf eps is in input units [0, 1], got 8; write 8 / 255"),
        (("--by", "../../evil"), "--by: expected up to 40 letters"),
        (("--seed", "7"), "no weights of TinyLinear on phantom2 for seed 7"),
    ],
)
def test_names_and_budgets_that_make_no_sense_are_refused(store, tmp_path, capsys, more, expected):
    path = save(tmp_path, adversarials=originals(2), sample_ids=np.arange(2))
    assert expected in refused(store, path, capsys, *more)


def test_eps_that_is_no_number(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["challenge", "x.npz", "--defense", "D", "--dataset", "S", "--eps", "4/0"])
    assert caught.value.code == 2 and "expected a number such as 4/255 or 0.5" in capsys.readouterr().err
