from registry import DEFENSES, DefenseEntry, Family, Paper, Randomness, Recipe

DEFENSES.add(
    DefenseEntry(
        name="Dhar2026DGMPOracle",
        summary="A demonstration, not a defense: DGMP's generator is told the true label of every test image.",
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
        build="defenses.purifiers.dgmp:build_told",
        base="Undefended",
        recipe=Recipe(
            train="defenses.recipes.dgmp:train", options={"epochs": 20, "batch_size": 32, "weight_decay": 1e-4}
        ),
        randomness=Randomness.SAMPLE,
        ranks=False,
        oracle=True,
        departures="It shows a flaw of the released evaluation: the class-conditional generator is given the one-hot "
        "true label of the test image, clean or attacked. Its accuracy measures that leak, not robustness, so it "
        "never ranks; Dhar2026DGMPOracleTuned has a classifier that knows purified images. The generator is a small "
        "variational autoencoder with a Wasserstein critic (64 latent numbers, one head, one attention unit per "
        "resolution) and is trained on images: the released code takes its three losses of the discriminator's tag "
        "instead. AdamW with a one-cycle schedule, a learning rate of 2e-3 and 20 epochs a stage in place of RMSprop "
        "and 10,000 iterations, run twice; the critic is one tower without attention in place of two with it, and "
        "takes one step a batch. A class head of the critic makes it heed the label. Not told a label, it has 46.2 % "
        "of the clean images of BreastMNIST right (val, n 78, seed 0, one draw), below the majority's share of 73.1 "
        "%; its control that is told a random one is Dhar2026DGMPOracleShuffled. No number of the paper was readable, "
        "so no claim is entered.",
    )
)
