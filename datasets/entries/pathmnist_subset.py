"""The first thousand training images of PathMNIST, split anew: nine kinds of colorectal tissue in a small file."""

from registry import DATASETS, DatasetSpec, HarmfulConfusion, Source

DATASETS.add(
    DatasetSpec(
        name="pathmnist_subset",
        title="PathMNIST, 1000 images",
        task="classification",
        input_shape=(3, 28, 28),
        class_names=(
            "adipose",
            "background",
            "debris",
            "lymphocytes",
            "mucus",
            "smooth muscle",
            "normal colon mucosa",
            "cancer-associated stroma",
            "colorectal adenocarcinoma epithelium",
        ),
        splits={"train": 600, "val": 100, "test": 300},
        license="CC BY 4.0",
        citation="Yang et al. 2023, MedMNIST v2, Scientific Data 10:41; images: Kather et al. 2019, Predicting "
        "survival from colorectal cancer histology slides using deep learning, PLOS Medicine 16(1):e1002730",
        reader="datasets.packed_npz:read",
        source=Source(
            filename="pathmnist_subset/pathmnist_subset.npz",
            md5="d42aeba37fe9e82d5c24b8220219ecb0",
            sha256="59f65b7c6a06b6c3189beebb85564c0a39a5d6606daa88ce80a250158762c041",
            size=1910654,
            how="get it with: python -m benchmark data download pathmnist && python -m benchmark data prepare "
            "pathmnist_subset. It is packed from the first 1000 images of the train split of PathMNIST, split anew "
            "within each class, numpy RandomState(0).",
        ),
        homepage="https://medmnist.com",
        split_rule="by image within each class, 60/10/30 %, out of the published train split",
        harmful_confusions=(
            HarmfulConfusion(true=8, predicted=6, title="adenocarcinoma epithelium called normal mucosa"),
        ),
        notes="All images come from the centre of the published train split, and patients are not known: numbers are "
        "not comparable with those of PathMNIST, whose test images come from another centre.",
    )
)
