"""Packs `ham10000_melnv` from 2000 dermatoscopic images and the metadata of HAM10000: resized, and split by lesion."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd
from PIL import Image

from datasets.npz_arrays import UNREADABLE
from datasets.prepare.packing import require_original, write_packed
from registry import SPLITS, DatasetSpec
from registry.errors import DataDamagedError

IMAGES = "ham10000_melnv_original_150.zip"
METADATA = "HAM10000_metadata.csv"
LABELS = {"nv": 0, "mel": 1}
SIZE = 64


def prepare(spec: DatasetSpec, root: Path) -> Path:
    """Returns the packed file, made from the images' archive and the metadata in the data set's folder.

    Args:
        spec: The entry of `ham10000_melnv`.
        root: The data folder.

    Raises:
        DataMissingError: An original is not there; the text says what belongs there.
        DataDamagedError: An original is another file, or what was packed is not the registered one.
    """
    folder = root / spec.name
    archive = require_original(
        folder / IMAGES,
        "a zip of the folder data/ of github.com/Criscraft/workshop_ki_hautkrebserkennung, commit 25b3c4a, "
        "with data/{train,test}/{mel,nv}/ISIC_*.jpg,",
    )
    table = require_original(folder / METADATA, "HAM10000_metadata of doi:10.7910/DVN/DBW86T, as csv,")
    try:
        metadata = pd.read_csv(table).set_index("image_id")
        with zipfile.ZipFile(archive) as files:
            arrays = packed(files, metadata)
    except UNREADABLE as error:
        raise DataDamagedError(f"{archive} and {table} do not belong together or are damaged: {error!r}") from error
    return write_packed(arrays, spec, root)


def packed(files: zipfile.ZipFile, metadata: pd.DataFrame) -> Mapping[str, np.ndarray]:
    """Returns the arrays of the packed file: 70, 10 and 20 % of the lesions of each class.

    Args:
        files: Images `data/<split of the source>/<mel or nv>/<image_id>.jpg`.
        metadata: Columns lesion_id, age, sex, localization and dx_type by image_id.
    """
    paths = {path.stem: path for path in map(PurePosixPath, files.namelist()) if path.suffix == ".jpg"}
    split = _splits({image: path.parent.name for image, path in paths.items()}, metadata)
    arrays: dict[str, np.ndarray] = {}
    for name in SPLITS:
        ids = sorted(image for image in paths if split[image] == name)
        rows = metadata.loc[ids]
        arrays[f"{name}_images"] = np.stack([_image(files.read(str(paths[image]))) for image in ids])
        arrays[f"{name}_labels"] = np.array([[LABELS[paths[image].parent.name]] for image in ids], np.uint8)
        arrays[f"{name}_ids"] = np.array(ids)
        arrays[f"{name}_lesion"] = np.array(rows["lesion_id"].tolist())
        arrays[f"{name}_age"] = rows["age"].to_numpy(np.float32)
        for column in ("sex", "localization", "dx_type"):
            arrays[f"{name}_{column}"] = np.array(rows[column].tolist())
        arrays[f"{name}_source_split"] = np.array([paths[image].parent.parent.name for image in ids])
    return arrays | {"label_classes": np.array(["nevus", "melanoma"])}


def _splits(kinds: Mapping[str, str], metadata: pd.DataFrame) -> dict[str, str]:
    """Returns the split of each image, from mel or nv by image: no lesion is in two splits."""
    rng, of_lesion = np.random.RandomState(0), {}
    for kind in ("mel", "nv"):
        lesions = np.unique([metadata.loc[image, "lesion_id"] for image in kinds if kinds[image] == kind])
        for place, lesion in enumerate(rng.permutation(lesions)):
            share = place / len(lesions)
            of_lesion[lesion] = "train" if share < 0.7 else "val" if share < 0.8 else "test"
    return {image: of_lesion[metadata.loc[image, "lesion_id"]] for image in kinds}


def _image(jpeg: bytes) -> np.ndarray:
    """Returns uint8 (64, 64, 3)."""
    with Image.open(io.BytesIO(jpeg)) as image:
        return np.asarray(image.convert("RGB").resize((SIZE, SIZE), Image.Resampling.LANCZOS))
