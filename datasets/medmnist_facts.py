"""What the MedMNIST package does not tell of its 2D data sets: sources, harmful mistakes, known copies, doubts."""

from __future__ import annotations

from collections.abc import Mapping

from registry import HarmfulConfusion

KERMANY = (
    "Kermany et al. 2018, Identifying medical diagnoses and treatable diseases by image-based deep learning, "
    "Cell 172(5):1122-1131"
)
LITS = (
    "Bilic et al. 2023, The Liver Tumor Segmentation Benchmark (LiTS), Medical Image Analysis 84:102680; Xu et al. "
    "2019, Efficient multiple organ localization in CT image using 3D region proposal network, IEEE TMI 38(8):1885-1898"
)

CITATIONS: Mapping[str, str] = {
    "pathmnist": "Kather et al. 2019, Predicting survival from colorectal cancer histology slides using deep learning, "
    "PLOS Medicine 16(1):e1002730",
    "chestmnist": "Wang et al. 2017, ChestX-ray8, CVPR, pp. 3462-3471",
    "dermamnist": "Tschandl et al. 2018, The HAM10000 dataset, Scientific Data 5:180161; Codella et al. 2019, "
    "Skin lesion analysis toward melanoma detection 2018, arXiv:1902.03368",
    "octmnist": KERMANY,
    "pneumoniamnist": KERMANY,
    "retinamnist": "DeepDRiD, the 2nd diabetic retinopathy grading and image quality estimation challenge, ISBI 2020",
    "breastmnist": "Al-Dhabyani et al. 2020, Dataset of breast ultrasound images, Data in Brief 28:104863",
    "bloodmnist": "Acevedo et al. 2020, A dataset of microscopic peripheral blood cell images for development of "
    "automatic recognition systems, Data in Brief 30:105474",
    "tissuemnist": "Ljosa et al. 2012, Annotated high-throughput microscopy image sets for validation, "
    "Nature Methods 9(7):637",
    "organamnist": LITS,
    "organcmnist": LITS,
    "organsmnist": LITS,
}
"""Where the images come from."""

HARMFUL: Mapping[str, tuple[HarmfulConfusion, ...]] = {
    "pathmnist": (HarmfulConfusion(true=8, predicted=6, title="adenocarcinoma epithelium called normal mucosa"),),
    "dermamnist": (HarmfulConfusion(true=4, predicted=5, title="melanoma called nevus"),),
    "octmnist": (HarmfulConfusion(true=0, predicted=3, title="choroidal neovascularization called normal"),),
    "pneumoniamnist": (HarmfulConfusion(true=1, predicted=0, title="pneumonia called normal"),),
    "retinamnist": (HarmfulConfusion(true=4, predicted=0, title="grade 4 called grade 0"),),
    "breastmnist": (HarmfulConfusion(true=0, predicted=1, title="malignant called normal or benign"),),
}
"""Mistakes that harm a patient, by index in the published order of classes."""

RANKED_LEVELS: Mapping[str, int] = {"breastmnist": 8, "pneumoniamnist": 8, "retinamnist": 8}
"""Grey levels of the ranked Linf budget where 4 of 255 leave the undefended model more than 5 %: 6.4, 6.4 and
10.3 % of BreastMNIST with three training seeds, 45 % of PneumoniaMNIST under PGD-20, 22.8 % of RetinaMNIST. All of that
is measured at 28 pixels, so it holds there alone: larger images rank at 4 of 255 until somebody measures theirs."""

SHARED_IMAGES: Mapping[str, Mapping[str, int]] = {
    "breastmnist": {"train/test": 1},
    "pneumoniamnist": {"train/val": 8},
}
"""Pixel-identical images in two splits, counted in the published files by name; absent where there are none."""

SPLIT_RULES: Mapping[str, str] = {
    "pathmnist": "as published: train and val by image from one centre, test from another centre",
    "chestmnist": "as published, by patient",
    "octmnist": "as published: test of the source, train and val by image 9:1",
    "pneumoniamnist": "as published: test of the source, train and val by image 9:1",
    "retinamnist": "as published: validation set of the source as test, train and val 9:1",
    "organamnist": "as published, by CT scan",
    "organcmnist": "as published, by CT scan",
    "organsmnist": "as published, by CT scan",
}
"""How the splits came about; the others are published 7:1:2, by image."""

NOTES: Mapping[str, str] = {
    "pneumoniamnist": "At 28 pixels 27 groups of images are pixel-identical: 8 between train and val, the others "
    "within train or within test.",
    "breastmnist": "At 28 pixels one image is pixel-identical in train and test. Normal and benign are one class.",
    "dermamnist": "Split by image: lesions with several images are in several splits.",
    "chestmnist": "Labels were mined from reports by text, not read from the images.",
}
"""What is dubious."""
SIDED = frozenset({"organamnist", "organcmnist"})
"""Axial and coronal views whose classes tell left from right organs: a mirrored image has another label."""
