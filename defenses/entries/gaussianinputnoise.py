"""Plain Gaussian noise on the image: the controls that a noise defense must beat."""

from registry import DEFENSES, DefenseEntry, Family, Randomness, Recipe

STRENGTHS = {
    "GaussianInputNoise": (0.12, "as strong as the noise of NUMAN"),
    "GaussianInputNoiseRatio": (0.6, "with the ratio of noise to signal behind NUMAN"),
}

for name, (sigma, strength) in STRENGTHS.items():
    DEFENSES.add(
        DefenseEntry(
            name=name,
            summary=f"Gaussian noise on the image, in training and at inference, {strength}.",
            family=Family.NOISE_INJECTION,
            tasks=("classification",),
            build="defenses.certified.smoothing:build",
            build_options={"sigma": sigma},
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
            "arXiv:2206.09491. On BreastMNIST the trained NUMAN of UMAN gives each pixel a standard deviation of 0.13 "
            "over draws (546 training images, 40 draws; 0.12 in a shorter training, from which that strength is "
            "taken) and passes on 0.22 times the image: its noise is to the image as a standard deviation of 0.60 is "
            "to an image left as it is.",
        )
    )
