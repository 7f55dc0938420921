from registry import DEFENSES, DefenseEntry, Family, Paper, Recipe

DEFENSES.add(
    DefenseEntry(
        name="Xu2018FeatureSqueezing",
        summary="Rejects images whose probabilities change under fewer bits or a median filter, at 5 % false alarms.",
        family=Family.DETECTION,
        paper=Paper(
            title="Feature Squeezing: Detecting Adversarial Examples in Deep Neural Networks",
            authors="Xu et al.",
            year=2018,
            url="https://arxiv.org/abs/1704.01155",
            venue="NDSS",
        ),
        tasks=("classification",),
        build="defenses.detectors.feature_squeezing:build",
        build_options={"bits": 5, "median": 3},
        base="Undefended",
        recipe=Recipe(train="defenses.recipes.threshold:train", options={"false_alarms": 0.05}),
        differentiable=False,
        departures="5 bits and a centred 3 x 3 median instead of 2 x 2; no non-local means. The threshold is fixed on "
        "clean validation images alone. A rejected image counts as right under attack and as wrong when unchanged.",
        ranks=False,
    )
)
