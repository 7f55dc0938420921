from registry import DEFENSES, DefenseEntry, Family, Paper, Randomness, Recipe

DEFENSES.add(
    DefenseEntry(
        name="Samangouei2018DefenseGAN",
        summary="Every input is replaced by the closest image that a generator makes, found by gradient descent.",
        family=Family.PURIFICATION,
        paper=Paper(
            title="Defense-GAN: Protecting Classifiers Against Adversarial Attacks Using Generative Models",
            authors="Samangouei et al.",
            year=2018,
            url="https://arxiv.org/abs/1805.06605",
            venue="ICLR",
        ),
        tasks=("classification",),
        build="defenses.purifiers.defense_gan:build",
        build_options={"restarts": 2, "steps": 20},
        base="Undefended",
        recipe=Recipe(
            train="defenses.recipes.defense_gan:train", options={"epochs": 24, "batch_size": 32, "weight_decay": 1e-4}
        ),
        randomness=Randomness.SAMPLE,
        departures="2 random starts of 20 steps in place of 10 of 200; a step is 0.02 on the squared error summed over "
        "an image, where the authors' code takes 10 on its mean (of 28 x 28 values 0.013 on their sum); the momentum "
        "is 0.7, as there. A small generator (32 latent numbers), trained as a variational autoencoder with a "
        "Wasserstein critic: a few hundred images do not train a plain GAN. AdamW with a one-cycle schedule. The "
        "gradient is the true one, through every step of the descent. The classifier is trained on original images "
        "only, one of the paper's two forms: it never saw rebuilt ones, and on the validation images of BreastMNIST "
        "its clean score (53.8 %) lies under the majority's share of 73.1 %.",
    )
)
