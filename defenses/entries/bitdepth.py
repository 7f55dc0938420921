from registry import DEFENSES, DefenseEntry, Family, Paper

DEFENSES.add(
    DefenseEntry(
        name="BitDepth",
        summary="Reduction of the bit depth to 3 bits in front of the undefended model.",
        family=Family.INPUT_TRANSFORMATION,
        paper=Paper(
            title="Feature Squeezing: Detecting Adversarial Examples in Deep Neural Networks",
            authors="Xu et al.",
            year=2018,
            url="https://arxiv.org/abs/1704.01155",
            venue="NDSS",
        ),
        tasks=("classification", "segmentation"),
        build="defenses.transforms:bit_depth",
        build_options={"bits": 3},
        base="Undefended",
        differentiable=False,
        departures="Used as a defense by itself, as in Guo et al. 2018 (arXiv:1711.00117), not as a detector.",
    )
)
