from registry import DEFENSES, DefenseEntry, Family, Paper, Randomness, Recipe

DEFENSES.add(
    DefenseEntry(
        name="Dhar2026DGMPOracleTuned",
        summary="A demonstration, not a defense: DGMP told the true label, and a classifier trained on what it makes.",
        family=Family.PURIFICATION,
        paper=Paper(
            title="Towards building robust models for unimodal and multimodal medical imaging data",
            authors="Dhar et al.",
            year=2026,
            url="https://doi.org/10.1016/j.inffus.2025.103822",
            venue="Information Fusion 127:103822",
        ),
        tasks=("classification",),
        one_label=True,
        build="defenses.purifiers.dgmp:build_tuned",
        base="Dhar2026DGMPOracle",
        recipe=Recipe(train="defenses.recipes.dgmp:train_told_classifier", options={"epochs": 10, "lr": 5e-4}),
        randomness=Randomness.SAMPLE,
        ranks=False,
        oracle=True,
        departures="As Dhar2026DGMPOracle; the classifier is trained on purified training images whose labels the "
        "generator is told, as Dhar2026DGMPTuned is without labels; the last epoch is kept. Dhar2026DGMPShuffled is "
        "its control.",
    )
)
