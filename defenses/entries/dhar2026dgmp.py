from registry import DEFENSES, DefenseEntry, Family, Paper, Randomness, Recipe

DEFENSES.add(
    DefenseEntry(
        name="Dhar2026DGMP",
        summary="An encoder and a frozen generator rebuild every image from a drawn latent code, without its label.",
        family=Family.PURIFICATION,
        paper=Paper(
            title="Towards building robust models for unimodal and multimodal medical imaging data",
            authors="Dhar et al.",
            year=2026,
            url="https://doi.org/10.1016/j.inffus.2025.103822",
            venue="Information Fusion 127:103822",
        ),
        tasks=("classification",),
        build="defenses.purifiers.dgmp:build",
        base="Undefended",
        recipe=Recipe(
            train="defenses.recipes.dgmp:train", options={"epochs": 20, "batch_size": 32, "weight_decay": 1e-4}
        ),
        randomness=Randomness.SAMPLE,
        departures="Label-free, as the text describes it: the released code hands the true test label to its "
        "generator, see Dhar2026DGMPOracle. The generator is a small variational autoencoder with a Wasserstein "
        "critic (64 latent numbers, one head, one attention unit per resolution) and is trained on images: the "
        "released code takes its three losses of the discriminator's tag instead. The encoder learns on clean "
        "images with Gaussian noise of 0.1; the classifier is the undefended one. The published classifier is "
        "larger.",
    )
)
