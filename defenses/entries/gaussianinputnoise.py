from registry import DEFENSES, DefenseEntry, Family, Randomness, Recipe

DEFENSES.add(
    DefenseEntry(
        name="GaussianInputNoise",
        summary="Gaussian noise on the image, in training and at inference, as strong as the noise of NUMAN.",
        family=Family.NOISE_INJECTION,
        tasks=("classification",),
        build="defenses.certified.smoothing:build",
        build_options={"sigma": 0.2},
        recipe=Recipe(
            train="defenses.recipes.standard:train",
            options={"epochs": 30},
            per_dataset={"pneumoniamnist*": {"epochs": 10}, "phantom4": {"epochs": 40}},
        ),
        randomness=Randomness.SAMPLE,
        departures="No paper's method: the plain noise that every noise defense must beat, Gao et al. 2022.",
    )
)
