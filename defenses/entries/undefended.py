from registry import DEFENSES, Claim, DefenseEntry, Family, KnownBy, Recipe, Truth

MEDMNIST_RESNET18 = {
    "breastmnist": 0.863,
    "pneumoniamnist": 0.854,
    "retinamnist": 0.524,
    "pathmnist": 0.907,
    "dermamnist": 0.735,
    "octmnist": 0.743,
}
"""Accuracy of a ResNet-18 at 28 px as the authors of the data publish it: an outside check of our clean accuracy."""


def published_accuracy(dataset: str, value: float) -> Claim:
    """Returns the clean accuracy of the data set's authors as a claim, which pages set beside ours."""
    return Claim(
        value=value,
        metric="clean_accuracy",
        dataset=dataset,
        protocol="unchanged images; ResNet-18 of full width, 28 px",
        source="Yang et al. 2023, MedMNIST v2, Scientific Data 10:41, Table 3",
    )


DEFENSES.add(
    DefenseEntry(
        name="Undefended",
        summary="Standard training on clean images: the twin that every defense is compared with.",
        family=Family.UNDEFENDED,
        tasks=("classification", "segmentation"),
        build="defenses.architectures.default:build",
        recipe=Recipe(
            train="defenses.recipes.standard:train",
            options={"epochs": 20},
            per_dataset={
                "pneumoniamnist*": {"epochs": 8},
                "phantom4": {"epochs": 40},
                "msd_hippocampus": {"epochs": 15},
            },
        ),
        departures="20 epochs in batches of 64, on BreastMNIST some 180 steps; adversarial training has 100 epochs of "
        "32 there (1,800 steps), noise injection 200 (3,600). Of the 78 images that paper:tsai attacked on "
        "BreastMNIST, it and paper:tsai-exhaustive break the same 16 with one pixel; the score of the latter is over "
        "all 156.",
        claims=tuple(published_accuracy(dataset, value) for dataset, value in MEDMNIST_RESNET18.items()),
        truth=Truth(known_by=KnownBy.ATTACK, statement="Nothing is hidden: attacks find what there is."),
    )
)
