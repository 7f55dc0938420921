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
        one_label=True,
        build="defenses.purifiers.dgmp:build",
        base="Undefended",
        recipe=Recipe(
            train="defenses.recipes.dgmp:train", options={"epochs": 20, "batch_size": 32, "weight_decay": 1e-4}
        ),
        randomness=Randomness.SAMPLE,
        departures="Label-free, as the text describes it: the released code hands the true test label to its "
        "generator, see Dhar2026DGMPOracle. The generator is a small variational autoencoder with a Wasserstein "
        "critic (64 latent numbers, one head, one attention unit per resolution) and is trained on images: the "
        "released code takes its three losses of the discriminator's tag instead. Their weights are 0.89, 0.01 and "
        "0.1, of squared errors summed over an image; a later definition in the authors' notebook has 0.7, 0.1 and "
        "0.2, of a mean over pixels. An attention unit weighs features by channel and, beside it, by place; in the "
        "notebook the places of the features already weighted by channel. One small network serves both poolings. "
        "AdamW with a one-cycle schedule, a "
        "learning rate of 2e-3 and 20 epochs a stage in place of RMSprop and 10,000 iterations, run twice; the critic "
        "is one tower without attention in place of two with it, and takes one step a batch. The encoder learns on "
        "clean images with Gaussian noise of 0.1; the classifier is the undefended one. The published classifier is "
        "larger. On BreastMNIST (val, n 78, seed 0, one draw) 60.3 % of the clean images are right, below the "
        "majority's share of 73.1 %: the classifier does not know rebuilt images, that of Dhar2026DGMPTuned does. The "
        "paper's claims for it were readable in words only, without a value for any data set, so no claim is entered.",
    )
)
