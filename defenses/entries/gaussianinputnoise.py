"""Plain Gaussian noise on the image: the controls that a noise defense must beat."""

from registry import DEFENSES, DefenseEntry, Family, Randomness, Recipe

STRENGTHS = {
    "GaussianInputNoise": (0.12, "nearly as strong as the noise of NUMAN on BreastMNIST"),
    "GaussianInputNoiseRatio": (0.6, "with the ratio of noise to signal behind NUMAN on BreastMNIST"),
}

for name, (sigma, strength) in STRENGTHS.items():
    DEFENSES.add(
        DefenseEntry(
            name=name,
            summary=f"Gaussian noise on the image, in training and at inference, {strength}.",
            family=Family.NOISE_INJECTION,
            tasks=("classification",),
            datasets=("breastmnist*", "phantom*"),  # elsewhere NUMAN's noise has another strength
            build="defenses.certified.smoothing:build",
            build_options={"sigma": sigma},
            recipe=Recipe(
                train="defenses.recipes.standard:train",
                options={"epochs": 30},
                per_dataset={
                    "breastmnist*": {"epochs": 200, "batch_size": 32, "lr": 1e-3, "validate_every": 2},
                    "phantom4": {"epochs": 40},
                },
            ),
            randomness=Randomness.SAMPLE,
            certificate="defenses.certified.smoothing:certify",
            one_label=True,  # as the certificate is
            departures="No paper's method: the plain noise that a noise defense must beat, see Gao et al. 2022, "
            "arXiv:2206.09491. The strength is that of BreastMNIST (546 training images, 40 draws), where the trained "
            "gate on the image gives each pixel a standard deviation over draws of 0.13 in Dhar2026NUMAN, 0.13 in "
            "Dhar2026UMANTuned and 0.12 in Dhar2026UMAN, and passes on 0.22, 0.20 and 0.19 times the image: the noise "
            "is to the image as a standard deviation of 0.60, 0.63 and 0.65 is to an image left as it is. A standard "
            "deviation of 0.12 is that of UMAN, and its variance 15 % below NUMAN's. Not the noise alone differs from "
            "NUMAN: this is the suite's ResNet-18, which normalises its images and batch-normalises before ReLU, and "
            "the noise is as strong on dark pixels as on bright ones. The epoch is selected on one draw of each "
            "validation image.",
        )
    )
