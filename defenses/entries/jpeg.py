from registry import DEFENSES, DefenseEntry, Family, Paper

DEFENSES.add(
    DefenseEntry(
        name="JPEG",
        summary="JPEG compression at quality 75 in front of the undefended model.",
        family=Family.INPUT_TRANSFORMATION,
        paper=Paper(
            title="Countering Adversarial Images using Input Transformations",
            authors="Guo et al.",
            year=2018,
            url="https://arxiv.org/abs/1711.00117",
            venue="ICLR",
        ),
        tasks=("classification", "segmentation"),
        build="defenses.transforms:jpeg",
        build_options={"quality": 75},
        base="Undefended",
        differentiable=False,
        departures="The network behind it is not trained on compressed images.",
    )
)
