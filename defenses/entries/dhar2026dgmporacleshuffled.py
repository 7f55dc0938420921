from registry import DEFENSES, DefenseEntry, Family, Paper, Randomness

DEFENSES.add(
    DefenseEntry(
        name="Dhar2026DGMPOracleShuffled",
        summary="The control of the leak: the same weights as Dhar2026DGMPOracle, told a random label instead.",
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
        base="Dhar2026DGMPOracle",
        randomness=Randomness.SAMPLE,
        ranks=False,
        departures="Not published: every call draws a class for every image. What Dhar2026DGMPOracle scores above it "
        "comes from the label that it is told.",
    )
)
