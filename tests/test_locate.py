"""Where the data folder is, and where a data set's file is looked for below it."""

import subprocess
import sys
from pathlib import Path

import pytest

from datasets.locate import data_root, find_file, remedy, require_file
from registry import ROOT, Source
from registry.errors import DataMissingError
from tests.tiny_files import tiny_spec

SOURCE = Source(filename="breastmnist/breastmnist_64.npz")


def test_the_given_folder_wins_over_the_variable(monkeypatch, tmp_path):
    monkeypatch.setenv("MEDROBUST_DATA", "/elsewhere")
    assert data_root(tmp_path) == tmp_path
    assert data_root(str(tmp_path)) == tmp_path


def test_the_variable_wins_over_the_user_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("MEDROBUST_DATA", str(tmp_path))
    assert data_root(None) == tmp_path


@pytest.mark.parametrize("value", [None, ""])
def test_without_a_variable_it_is_below_the_user_data_folder(monkeypatch, tmp_path, value):
    if value is None:
        monkeypatch.delenv("MEDROBUST_DATA", raising=False)
    else:
        monkeypatch.setenv("MEDROBUST_DATA", value)
    monkeypatch.setattr("platformdirs.user_data_path", lambda name: tmp_path / name)
    assert data_root(None) == tmp_path / "medrobustbench" / "data"
    assert not list(tmp_path.iterdir())  # looking makes nothing


def test_a_tilde_is_the_home_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert data_root("~/data") == tmp_path / "data"


@pytest.mark.parametrize(
    "place", ["breastmnist/breastmnist_64.npz", "breastmnist_64.npz", "breastmnist_64/breastmnist_64.npz"]
)
def test_files_are_found_in_folders_and_side_by_side(tmp_path, place):
    assert find_file(SOURCE, "breastmnist_64", tmp_path) is None
    path = tmp_path / place
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"x")
    assert find_file(SOURCE, "breastmnist_64", tmp_path) == path


def test_a_folder_of_that_name_is_not_a_file(tmp_path):
    (tmp_path / SOURCE.filename).mkdir(parents=True)
    assert find_file(SOURCE, "breastmnist_64", tmp_path) is None


def test_an_absent_file_is_told_with_places_and_remedy(tmp_path):
    spec = tiny_spec("datasets.packed_npz:read")
    with pytest.raises(DataMissingError) as error:
        require_file(spec, tmp_path)
    for part in ("data set tiny", str(tmp_path / "tiny/tiny.npz"), str(tmp_path / "tiny.npz"), "ask the owner"):
        assert part in str(error.value)


def test_the_remedy_is_the_command_where_there_is_an_address():
    spec = tiny_spec("x:y", source=Source(filename="tiny.npz", urls=("https://example.org/tiny.npz",), how="ask"))
    assert "python -m benchmark data download tiny" in remedy(spec)
    bare = tiny_spec("x:y", source=Source(filename="a/tiny.npz"), homepage="https://example.org")
    assert "a/tiny.npz" in remedy(bare) and "https://example.org" in remedy(bare)


def test_locating_and_downloading_need_no_torch():
    code = "import sys, datasets.locate, datasets.download, datasets.medmnist_info; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=Path(ROOT), capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
