"""The reader of packed npz files: what it returns, and what it says of files that are not what was published."""

import dataclasses
import hashlib
import importlib.util

import numpy as np
import pytest
import torch

from datasets import npz_arrays, npz_unpack, packed_npz
from datasets.batch import Dataset
from registry import DATASETS, SPLITS, load_entries
from registry.errors import DataDamagedError, DataMissingError, InvalidEntryError
from tests.tiny_files import published, tiny_arrays, tiny_spec, write

SPEC = tiny_spec("datasets.packed_npz:read")
SEGMENTATION = tiny_spec("datasets.packed_npz:read", task="segmentation")


def read_changed(root, spec=SPEC, **changes) -> Dataset:
    """Reads a file whose arrays are changed; None takes an array out."""
    arrays = tiny_arrays(spec) | changes
    write(root, spec, {name: array for name, array in arrays.items() if array is not None})
    return spec.load(root)


def test_grey_images_and_labels(tmp_path):
    arrays = tiny_arrays(SPEC)
    path = write(tmp_path, SPEC, arrays)
    dataset = published(SPEC, path).load(tmp_path)
    assert dataset.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    for split in SPLITS:
        images = dataset.splits[split].images
        assert images.dtype == np.uint8
        assert np.array_equal(images[:, 0], arrays[f"{split}_images"])
        assert np.array_equal(dataset.splits[split].targets["label"], arrays[f"{split}_labels"][:, 0])
        assert dataset.splits[split].groups is None


def test_colour_images_get_their_channels_first(tmp_path):
    spec = tiny_spec("datasets.packed_npz:read", input_shape=(3, 8, 10))
    arrays = tiny_arrays(spec)
    write(tmp_path, spec, arrays)
    batch = spec.load(tmp_path).splits["val"].all()
    assert batch.inputs.shape == (3, 3, 8, 10)
    expected = arrays["val_images"].transpose(0, 3, 1, 2).astype(np.float32) / 255
    assert torch.equal(batch.inputs, torch.from_numpy(expected))


def test_masks_are_read_for_segmentation_and_labels_are_not(tmp_path):
    arrays = tiny_arrays(SEGMENTATION)
    dataset = read_changed(tmp_path, SEGMENTATION, train_labels=np.full((6, 1), 99))
    assert set(dataset.splits["train"].targets) == {"mask"}
    mask = dataset.splits["test"].take([2]).targets["mask"]
    assert mask.dtype == torch.int64
    assert np.array_equal(mask[0].numpy(), arrays["test_masks"][2])


@pytest.mark.parametrize("kind", ["patient", "volume", "lesion"])
def test_groups_are_found_by_name(tmp_path, kind):
    groups = {f"{split}_{kind}": np.array([f"{split}{i}" for i in range(SPEC.splits[split])]) for split in SPLITS}
    dataset = read_changed(tmp_path, SPEC, **groups)
    assert dataset.splits["val"].groups.tolist() == ["val0", "val1", "val2"]


def test_an_absent_file(tmp_path):
    with pytest.raises(DataMissingError, match="ask the owner"):
        SPEC.load(tmp_path)


@pytest.mark.parametrize(
    "changes, told",
    [
        ({"val_labels": None}, "expected an array val_labels"),
        ({"test_images": None}, "expected an array test_images"),
        ({"train_labels": np.full((6, 1), 3, np.uint8)}, "train_labels of 0 to 2, got 3 to 3"),
        ({"train_labels": np.full((6, 1), -1, np.int64)}, "train_labels of 0 to 2, got -1 to -1"),
        ({"train_labels": np.zeros((6, 1), np.float32)}, "whole numbers, got float32"),
        ({"train_labels": np.zeros(6, np.uint8)}, r"shape \(6, 1\), got \(6,\)"),
        ({"val_images": np.zeros((2, 8, 8), np.uint8)}, r"shape \(3, 8, 8\), got \(2, 8, 8\)"),
        ({"val_images": np.zeros((3, 8, 8, 3), np.uint8)}, r"shape \(3, 8, 8\), got \(3, 8, 8, 3\)"),
        ({"val_images": np.zeros((3, 8, 8), np.float32)}, "val_images of uint8, got float32"),
        ({"test_volume": np.array(["a"])}, r"test_volume of shape \(4,\), got \(1,\)"),
        ({"val_labels": np.array([[None]] * 3, dtype=object)}, "val_labels cannot be read"),
    ],
)
def test_other_arrays_are_told(tmp_path, changes, told):
    with pytest.raises(DataDamagedError, match=told) as error:
        read_changed(tmp_path, **changes)
    assert "tiny.npz" in str(error.value) and "ask the owner" in str(error.value)


def test_mask_values_beyond_the_classes(tmp_path):
    with pytest.raises(DataDamagedError, match="test_masks of 0 to 2, got 7 to 7"):
        read_changed(tmp_path, SEGMENTATION, test_masks=np.full((4, 8, 8), 7, np.uint8))


@pytest.mark.parametrize("known", [True, False], ids=["checksum", "no checksum"])
@pytest.mark.parametrize("cut", [0.0, 0.3, 0.99])
def test_a_truncated_file(tmp_path, known, cut):
    path = write(tmp_path, SPEC, tiny_arrays(SPEC))
    spec = published(SPEC, path) if known else SPEC
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * cut)])
    with pytest.raises(DataDamagedError, match=r"truncated|not a whole npz"):
        spec.load(tmp_path)


def test_bytes_altered_inside(tmp_path):
    path = write(tmp_path, SPEC, tiny_arrays(SPEC))
    content = bytearray(path.read_bytes())
    content[200] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(DataDamagedError, match="cannot be read"):
        SPEC.load(tmp_path)


@pytest.mark.parametrize("field", ["md5", "sha256"])
def test_another_checksum(tmp_path, field):
    write(tmp_path, SPEC, tiny_arrays(SPEC))
    spec = dataclasses.replace(SPEC, source=dataclasses.replace(SPEC.source, **{field: "0" * 32}))
    with pytest.raises(DataDamagedError, match=r"truncated or altered: expected (MD5|SHA-256) 0000"):
        spec.load(tmp_path)


def test_a_longer_file(tmp_path):
    path = write(tmp_path, SPEC, tiny_arrays(SPEC))
    spec = published(SPEC, path)
    path.write_bytes(path.read_bytes() + b"more")
    with pytest.raises(DataDamagedError, match="another file: expected"):
        spec.load(tmp_path)


@pytest.mark.parametrize("page", [b"<!DOCTYPE html><html>", b"\xef\xbb\xbf \n<HTML lang=en>", b"<!-- x --><html>"])
def test_a_web_page(tmp_path, page):
    path = write(tmp_path, SPEC, tiny_arrays(SPEC))
    path.write_bytes(page)
    with pytest.raises(DataDamagedError, match="web page"):
        SPEC.load(tmp_path)


@pytest.mark.parametrize("changes", [{"task": "detection"}, {"multi_label": True}])
def test_tasks_it_cannot_read(tmp_path, changes):
    with pytest.raises(InvalidEntryError, match="reader of its own"):
        packed_npz.read(dataclasses.replace(SPEC, **changes), tmp_path)


def test_large_images_are_mapped_from_the_disk_once(tmp_path, monkeypatch):
    monkeypatch.setattr(npz_arrays, "LARGE", 100)
    plain = tiny_arrays(SPEC)
    first = read_changed(tmp_path).splits["train"].images
    assert isinstance(first, np.memmap)
    assert np.array_equal(first[:, 0], plain["train_images"])
    unpacked = sorted((tmp_path / "tiny").glob("tiny.npz.unpacked-*/*"))
    assert "train_images.npy" in [path.name for path in unpacked] and all(path.suffix == ".npy" for path in unpacked)
    monkeypatch.setattr(npz_unpack, "_unpack", lambda *arguments: pytest.fail("unpacked twice"))
    again = SPEC.load(tmp_path).splits["train"].take([1, 5])
    assert torch.equal(again.inputs[1, 0] * 255, torch.from_numpy(plain["train_images"][5]).float())


def test_an_unpacked_array_of_other_bytes_is_unpacked_again(tmp_path, monkeypatch):
    monkeypatch.setattr(npz_arrays, "LARGE", 100)
    monkeypatch.setattr(npz_unpack, "_compared", set())
    read_changed(tmp_path)
    (unpacked,) = tmp_path.glob("tiny/*.unpacked-*/train_images.npy")
    content = unpacked.read_bytes()
    unpacked.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    monkeypatch.setattr(npz_unpack, "_compared", set())  # as in another process
    images = SPEC.load(tmp_path).splits["train"].images
    assert isinstance(images, np.memmap) and np.array_equal(images[:, 0], tiny_arrays(SPEC)["train_images"])
    monkeypatch.setattr(npz_unpack, "_crc32", lambda path: pytest.fail("compared twice in one process"))
    SPEC.load(tmp_path)


def test_a_changed_file_is_unpacked_anew(tmp_path, monkeypatch):
    monkeypatch.setattr(npz_arrays, "LARGE", 100)
    read_changed(tmp_path)
    other = np.full((6, 8, 8), 7, np.uint8)
    assert np.array_equal(read_changed(tmp_path, train_images=other).splits["train"].images[:, 0], other)


def test_large_images_stay_in_memory_where_nothing_can_be_written(tmp_path, monkeypatch):
    def refuse(*arguments):
        raise PermissionError("read-only")

    monkeypatch.setattr(npz_arrays, "LARGE", 100)
    monkeypatch.setattr(npz_unpack, "_unpack", refuse)
    images = read_changed(tmp_path).splits["train"].images
    assert not isinstance(images, np.memmap)
    assert np.array_equal(images[:, 0], tiny_arrays(SPEC)["train_images"])


def test_the_packed_entries_say_how_to_get_their_file():
    load_entries()
    packed = [spec for spec in DATASETS if spec.reader == "datasets.packed_npz:read"]
    assert {"msd_hippocampus", "wbc_seg", "pathmnist_subset", "ham10000_melnv"} <= {spec.name for spec in packed}
    for spec in packed:
        packs = importlib.util.find_spec(f"datasets.prepare.{spec.name}") is not None
        assert (f"data prepare {spec.name}" if packs else spec.source.filename) in " ".join(spec.source.how.split())
        assert spec.source.sha256 and spec.source.md5 and spec.source.size
