from registry import DEFENSES, DefenseEntry, Family, Randomness, Recipe

DEFENSES.add(
    DefenseEntry(
        name="GaussianInputNoise",
        summary="Gaussian noise on the image, in training and at inference, as strong as the noise of NUMAN.",
        family=Family.NOISE_INJECTION,
        tasks=("classification",),
        build="defenses.certified.smoothing:build",
        build_options={"sigma": 0.12},
        recipe=Recipe(
            train="defenses.recipes.standard:train",
            options={"epochs": 30},
            per_dataset={
                "breastmnist*": {"epochs": 200, "batch_size": 32, "lr": 1e-3, "validate_every": 2},
                "pneumoniamnist*": {"epochs": 10},
                "phantom4": {"epochs": 40},
            },
        ),
        randomness=Randomness.SAMPLE,
        departures="No paper's method: the plain noise that a noise defense must beat, see Gao et al. 2022, "
        "arXiv:2206.09491. On BreastMNIST the trained NUMAN of UMAN gives each pixel a standard deviation of 0.12 over "
        "draws (546 training images, 40 draws); its mean is 0.19 times the image, so that its change has a root mean "
        "square of 0.34, and the same noise-to-signal ratio would be a standard deviation of 0.66.",
    )
)
