from registry import DEFENSES, DefenseEntry, Family, Paper

DEFENSES.add(
    DefenseEntry(
        name="MedianFilter5",
        summary="A 5 x 5 median filter in front of the undefended model.",
        family=Family.INPUT_TRANSFORMATION,
        paper=Paper(
            title="Feature Squeezing: Detecting Adversarial Examples in Deep Neural Networks",
            authors="Xu et al.",
            year=2018,
            url="https://arxiv.org/abs/1704.01155",
            venue="NDSS",
        ),
        tasks=("classification", "segmentation"),
        build="defenses.transforms:median_filter",
        build_options={"size": 5},
        base="Undefended",
        departures="Used as a defense by itself, not as a detector; the paper has neighbourhoods of 2 and 3.",
    )
)
