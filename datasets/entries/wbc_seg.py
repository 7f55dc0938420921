"""Stained blood smears with nucleus and cytoplasm of one white blood cell outlined."""

from registry import DATASETS, DatasetSpec, Source

DATASETS.add(
    DatasetSpec(
        name="wbc_seg",
        title="White blood cells, outline",
        task="segmentation",
        input_shape=(3, 120, 120),
        class_names=("background", "cytoplasm", "nucleus"),
        splits={"train": 209, "val": 31, "test": 59},
        license="GPL-3.0 (licence of the repository that publishes the images)",
        citation="Zheng et al. 2018, Fast and robust segmentation of white blood cell images by self-supervised "
        "learning, Micron 107:55-71; images of Dataset 1: Jiangxi Tecom Science Corporation",
        reader="datasets.packed_npz:read",
        source=Source(
            filename="wbc_seg/wbc_seg_120.npz",
            md5="4ce607eadb08cf506a682451df5bbf1f",
            sha256="aa25a4da9711c58a6c28a580fb5f1a8b43e1ee529c4f9a1980a1b82c0c814b28",
            size=9912286,
            how="Put wbc_seg_120.npz into the data folder as wbc_seg/wbc_seg_120.npz. It is packed from Dataset 1 of "
            "the GitHub repository zxaoyou/segmentation_WBC: images smaller than 120 x 120 are padded by reflection, "
            "as are their masks; the grey levels of a mask are parted at 64 and 192; 139.bmp, a copy of another image, "
            "is dropped; split by kind of cell, numpy RandomState(0).",
        ),
        homepage="https://github.com/zxaoyou/segmentation_WBC",
        split_rule="by image within each kind of cell, 70/10/20 %",
        notes="Patients are not known, so cells of one patient may be in two splits. 76 of the 300 images are padded.",
    )
)
