"""The MedMNIST data sets: what the package lists, read without importing it, and the reader of their files."""

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from datasets import medmnist_info
from datasets.medmnist_facts import CITATIONS, HARMFUL, NOTES, RANKED_LEVELS, SHARED_IMAGES, SPLIT_RULES
from registry import DATASETS, ROOT, linf, load_entries
from registry.errors import DataDamagedError, DataMissingError
from tests.tiny_files import published, tiny_arrays, tiny_spec, write

READER = "datasets.medmnist_npz:read"


@pytest.fixture(scope="module")
def specs():
    return {spec.name: spec for spec in medmnist_info.specs()}


def test_twelve_sets_at_four_sizes_are_registered(specs):
    load_entries()
    assert len(specs) == 48
    assert all(DATASETS[name] == spec for name, spec in specs.items())
    for name, size in (("breastmnist", 28), ("breastmnist_64", 64), ("chestmnist_128", 128), ("pathmnist_224", 224)):
        assert specs[name].input_shape[1:] == (size, size)


def test_a_spec_holds_what_is_published(specs):
    spec = specs["breastmnist"]
    assert spec.class_names == ("malignant", "normal, benign")
    assert dict(spec.splits) == {"train": 546, "val": 78, "test": 156}
    assert (spec.license, spec.source.md5) == ("CC BY 4.0", "750601b1f35ba3300ea97c75c52ff8f6")
    assert specs["breastmnist_64"].source.filename == "breastmnist/breastmnist_64.npz"
    assert specs["breastmnist_64"].source.urls[0].split("?")[0].endswith("/breastmnist_64.npz")
    assert specs["chestmnist"].multi_label and specs["chestmnist"].n_classes == 14
    assert specs["retinamnist"].class_names[4] == "grade 4" and not specs["retinamnist"].multi_label
    assert specs["dermamnist"].license == "CC BY-NC 4.0"


def test_every_file_has_a_checksum_and_a_safe_address(specs):
    assert all(len(spec.source.md5) == 32 for spec in specs.values())
    assert len({spec.source.md5 for spec in specs.values()}) == 48
    assert all(url.startswith("https://zenodo.org/") for spec in specs.values() for url in spec.source.urls)
    assert all(spec.source.urls for spec in specs.values())


@pytest.mark.parametrize(
    "name, true, predicted",
    [
        ("breastmnist", "malignant", "normal, benign"),
        ("pneumoniamnist", "pneumonia", "normal"),
        ("dermamnist", "melanoma", "melanocytic nevi"),
        ("retinamnist", "grade 4", "grade 0"),
        ("octmnist", "choroidal neovascularization", "normal"),
        ("pathmnist", "colorectal adenocarcinoma epithelium", "normal colon mucosa"),
    ],
)
def test_harmful_confusions_name_the_meant_classes(specs, name, true, predicted):
    for size in ("", "_64", "_128", "_224"):
        spec = specs[name + size]
        (confusion,) = spec.harmful_confusions
        assert (spec.class_names[confusion.true], spec.class_names[confusion.predicted]) == (true, predicted)


def test_budgets_measured_at_28_pixels_rank_at_28_pixels_alone(specs):
    for name in CITATIONS:
        assert specs[name].ranked_budget == linf(RANKED_LEVELS.get(name, 4) / 255)
        assert {specs[f"{name}_{size}"].ranked_budget for size in (64, 128, 224)} == {linf(4 / 255)}
    assert specs["breastmnist"].ranked_budget == linf(8 / 255)


def test_facts_are_of_known_sets():
    for facts in (HARMFUL, RANKED_LEVELS, SHARED_IMAGES, NOTES, SPLIT_RULES):
        assert facts.keys() <= CITATIONS.keys()


def test_the_subset_has_the_classes_of_the_whole(specs):
    load_entries()
    assert DATASETS["pathmnist_subset"].class_names == specs["pathmnist"].class_names
    assert DATASETS["pathmnist_subset"].harmful_confusions == specs["pathmnist"].harmful_confusions


def test_listing_is_fast_imports_nothing_and_leaves_the_home_folder_alone(tmp_path):
    code = (
        "import sys, registry; registry.resolve('datasets.medmnist_info:specs')();"
        "print(sorted({'torch', 'numpy', 'medmnist'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(ROOT),
        env={"HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "[]"
    assert not list(tmp_path.iterdir())
    times = []
    for _ in range(3):
        start = time.perf_counter()
        medmnist_info.specs()
        times.append(time.perf_counter() - start)
    assert min(times) < 0.05


def test_without_the_package_the_remedy_is_told(monkeypatch):
    monkeypatch.setattr(medmnist_info.PathFinder, "find_spec", lambda name: None)
    with pytest.raises(DataMissingError, match=r"not installed; .*pip install"):
        medmnist_info.specs()


@pytest.mark.parametrize(
    "text, told",
    [
        ("", "found none"),
        ("INFO = dict(a=1)", "found none"),
        ("INFO = {", "found none"),
        ("INFO = {'pathmnist': {}}", "does not list bloodmnist, breastmnist"),
    ],
)
def test_another_list_is_told_and_never_run(tmp_path, text, told):
    path = tmp_path / "info.py"
    path.write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n{text}\n")
    with pytest.raises(DataMissingError, match=told):
        medmnist_info.read_info(path)
    assert not (tmp_path / "ran").exists()


def test_several_labels(tmp_path):
    spec = tiny_spec(READER, multi_label=True)
    arrays = tiny_arrays(spec)
    write(tmp_path, spec, arrays)
    labels = spec.load(tmp_path).splits["train"].targets["labels"]
    assert labels.dtype == np.float32
    assert np.array_equal(labels, arrays["train_labels"])


def test_one_label_of_colour_images(tmp_path):
    spec = tiny_spec(READER, input_shape=(3, 8, 8))
    arrays = tiny_arrays(spec)
    path = write(tmp_path, spec, arrays)
    dataset = published(spec, path).load(tmp_path)
    assert dataset.splits["test"].images.shape == (4, 3, 8, 8)
    assert dataset.splits["test"].targets["label"].tolist() == arrays["test_labels"][:, 0].tolist()


@pytest.mark.parametrize(
    "changes, told",
    [
        ({"train_labels": np.full((6, 3), 2, np.uint8)}, "train_labels of 0 to 1, got 2 to 2"),
        ({"train_labels": np.zeros((6, 2), np.uint8)}, r"shape \(6, 3\), got \(6, 2\)"),
    ],
)
def test_other_labels_are_told(tmp_path, changes, told):
    spec = tiny_spec(READER, multi_label=True)
    write(tmp_path, spec, tiny_arrays(spec) | changes)
    with pytest.raises(DataDamagedError, match=told):
        spec.load(tmp_path)


def test_an_absent_file_names_the_command(specs, tmp_path):
    with pytest.raises(DataMissingError, match="python -m benchmark data download octmnist_128"):
        specs["octmnist_128"].load(tmp_path)


def test_a_file_of_another_size_is_refused(specs, tmp_path):
    write(tmp_path, specs["breastmnist"], {"train_images": np.zeros((1, 28, 28), np.uint8)})
    with pytest.raises(DataDamagedError, match=r"expected MD5 750601.*data download breastmnist"):
        specs["breastmnist"].load(tmp_path)


def test_views_that_tell_left_from_right_organs_are_not_mirrored():
    sided = {spec.name for spec in DATASETS if not spec.mirrors}
    assert sided == {f"organ{view}mnist{size}" for view in "ac" for size in ("", "_64", "_128", "_224")}
    assert all(any("left" in name for name in DATASETS[one].class_names) for one in sided)
