"""`data prepare`: from the originals to the very file that is registered, and what is wrong with other originals."""

from __future__ import annotations

import os
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest

from benchmark.cli import main
from datasets.prepare import pathmnist_subset
from datasets.prepare.packing import cut, write_packed
from registry import DATASETS, SPLITS, load_entries
from registry.errors import DataDamagedError, DataMissingError

load_entries()
DATA = Path(os.environ.get("MEDROBUST_DATA", "/nowhere"))
HAM = ("ham10000_melnv_original_150.zip", "HAM10000_metadata.csv")


def real(name: str) -> Path:
    """Returns the packed file of a data set, or skips where it is not here."""
    path = DATA / DATASETS[name].source.filename
    if not path.is_file():
        pytest.skip(f"{path} is not here")
    return path


def test_the_subset_of_pathmnist_is_packed_byte_for_byte(tmp_path, monkeypatch):
    with np.load(real("pathmnist_subset")) as arrays:
        rows = np.concatenate([arrays[f"{split}_source_index"] for split in SPLITS])
        order = np.argsort(rows)
        whole = {
            f"train_{what}": np.concatenate([arrays[f"{split}_{what}"] for split in SPLITS])[order]
            for what in ("images", "labels")
        }
    np.savez(tmp_path / "pathmnist.npz", **whole)
    monkeypatch.setattr(pathmnist_subset, "verify", lambda source, root, name: root / "pathmnist.npz")
    assert main(["data", "prepare", "pathmnist_subset", "--data", str(tmp_path)]) == 0
    packed = tmp_path / DATASETS["pathmnist_subset"].source.filename
    assert packed.read_bytes() == real("pathmnist_subset").read_bytes()
    assert [path.name for path in packed.parent.iterdir()] == [packed.name]


def test_ham10000_is_packed_byte_for_byte(tmp_path):
    expected = real("ham10000_melnv")
    folder = tmp_path / "ham10000_melnv"
    folder.mkdir()
    for name in HAM:
        shutil.copy(expected.parent / name, folder / name)
    assert main(["data", "prepare", "ham10000_melnv", "--data", str(tmp_path)]) == 0
    assert (folder / expected.name).read_bytes() == expected.read_bytes()


def test_originals_that_are_absent_or_damaged_are_told(tmp_path, capsys):
    assert main(["data", "prepare", "pathmnist_subset", "--data", str(tmp_path)]) != 0
    assert "pathmnist.npz is not there" in capsys.readouterr().err
    spec = DATASETS["ham10000_melnv"]
    with pytest.raises(DataMissingError, match="commit 25b3c4a"):
        prepare_ham(spec, tmp_path)
    folder = tmp_path / spec.name
    folder.mkdir()
    (folder / HAM[0]).write_bytes(b"<html>")
    (folder / HAM[1]).write_text("image_id,lesion_id\na,b\n")
    with pytest.raises(DataDamagedError, match="damaged"):
        prepare_ham(spec, tmp_path)
    with zipfile.ZipFile(folder / HAM[0], "w") as files:
        files.writestr("data/train/mel/ISIC_1.jpg", b"")
    with pytest.raises(DataDamagedError, match="damaged"):
        prepare_ham(spec, tmp_path)
    assert not (tmp_path / spec.source.filename).exists()


def prepare_ham(spec, root):
    """Calls the packing of HAM10000."""
    from datasets.prepare.ham10000_melnv import prepare

    return prepare(spec, root)


def test_what_is_not_the_registered_file_is_not_left_behind(tmp_path):
    spec = DATASETS["pathmnist_subset"]
    with pytest.raises(DataDamagedError, match="expected 1910654 bytes"):
        write_packed({"train_images": np.zeros(3)}, spec, tmp_path)
    assert list((tmp_path / spec.name).iterdir()) == []


def test_cuts_are_rounded_places():
    assert cut(106, 0.6, 0.1) == [64, 74] and cut(145, 0.6, 0.1) == [87, 102] and cut(0, 0.5) == [0]
