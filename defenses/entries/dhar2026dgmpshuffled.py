from registry import DEFENSES, DefenseEntry, Family, Paper, Randomness

DEFENSES.add(
    DefenseEntry(
        name="Dhar2026DGMPShuffled",
        summary="The control of the leak: the same weights as Dhar2026DGMPOracleTuned, told a random label instead.",
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
        build="defenses.purifiers.dgmp:build_shuffled",
        base="Dhar2026DGMPOracleTuned",
        randomness=Randomness.SAMPLE,
        ranks=False,
        revision=2,
        departures="Not published: every call draws a class for every image. Where the accuracy of "
        "Dhar2026DGMPOracleTuned comes from the label it is told, this one falls to chance.",
    )
)
