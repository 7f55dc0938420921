from registry import DEFENSES, DefenseEntry, Family, Recipe

DEFENSES.add(
    DefenseEntry(
        name="GaussianAugmentation",
        summary="Standard training, half of the images with Gaussian noise of 0.1: what augmentation alone gives.",
        family=Family.REGULARISATION,
        tasks=("classification",),
        build="defenses.architectures.default:build",
        recipe=Recipe(
            train="defenses.recipes.gaussian:train",
            options={"epochs": 20, "sigma": 0.1},
            per_dataset={"breastmnist*": {"epochs": 100, "batch_size": 32}, "pneumoniamnist*": {"epochs": 8}},
        ),
        departures="No single paper: one noise level, not clipped. Half of the images stay clean: with noise on all of "
        "them, batch normalisation did not fit clean images (BreastMNIST: clean validation accuracy 0.63 at the end).",
    )
)
