"""MRI slices of the hippocampus with anterior and posterior part outlined, from the Medical Segmentation Decathlon."""

from registry import DATASETS, DatasetSpec, Source, linf

DATASETS.add(
    DatasetSpec(
        name="msd_hippocampus",
        title="MSD Hippocampus, slices",
        task="segmentation",
        input_shape=(1, 64, 64),
        class_names=("background", "anterior hippocampus", "posterior hippocampus"),
        splits={"train": 1092, "val": 156, "test": 312},
        license="CC BY-SA 4.0",
        citation="Simpson et al. 2019, A large annotated medical image dataset for the development and evaluation of "
        "segmentation algorithms, arXiv:1902.09063; Antonelli et al. 2022, Nature Communications 13:4128",
        reader="datasets.packed_npz:read",
        source=Source(
            filename="msd_hippocampus/hippocampus_slices_64.npz",
            md5="a7d3cd144875e8b0ff321be84fa3ef4f",
            sha256="79d2bcccf16fe89ece4d4a9d6483e1ec325bb8bc2fa7942442daebefc11093c2",
            size=2787045,
            how="Put hippocampus_slices_64.npz into the data folder as msd_hippocampus/hippocampus_slices_64.npz. It "
            "is packed from Task04_Hippocampus of medicaldecathlon.com, as copied in the GitHub repository "
            "udacity/nd320-c3-3d-imaging-starter: 260 volumes, of each 6 slices along the first axis, evenly spaced "
            "over those with at least 30 % of its largest labelled area, clipped to its 0.5 and 99.5 percentile, "
            "scaled to 0..255 and padded with zeros to 64 x 64; split by volume, numpy RandomState(0).",
        ),
        homepage="http://medicaldecathlon.com",
        split_rule="by volume, 70/10/20 %; which volumes are of one participant is not known",
        ranked_budget=linf(8 / 255),  # at 4/255 the undefended model keeps a Dice of 0.73 under PGD-20
        notes="Every slice holds a good part of the hippocampus, so there is no empty target. Volumes 010 and 281, of "
        "odd size, and 118, without outline, are left out. The paper of the data tells of 195 participants (90 of them "
        "healthy, 105 patients), the whole task has 394 volumes, and no published table says whose they are. Volumes "
        "of one participant may therefore lie in train and in test; whether any do has not been verified.",
    )
)
