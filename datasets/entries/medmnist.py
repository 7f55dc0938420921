"""The twelve 2D data sets of MedMNIST at 28, 64, 128 and 224 pixels, as the medmnist package lists them."""

from registry import DATASETS, resolve

for spec in resolve("datasets.medmnist_info:specs")():
    DATASETS.add(spec)
