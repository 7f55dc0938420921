from registry import DEFENSES, DefenseEntry, Family, Paper, Randomness, Recipe

DEFENSES.add(
    DefenseEntry(
        name="Dhar2026DGMPTuned",
        summary="DGMP without labels, with its classifier trained further on the purified training images.",
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
        base="Dhar2026DGMP",
        recipe=Recipe(train="defenses.recipes.standard:train", options={"epochs": 10, "lr": 5e-4}),
        randomness=Randomness.SAMPLE,
        departures="As Dhar2026DGMP, but its classifier, the undefended one, is trained for 10 more epochs on purified "
        "images (batches of 64, learning rate 5e-4; of BreastMNIST the 7th is kept, the best on one draw of each "
        "validation image); whether the published one sees them in training is not said.",
    )
)
