from registry import DEFENSES, DefenseEntry, Family, KnownBy, Recipe, Truth

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
        truth=Truth(known_by=KnownBy.ATTACK, statement="Nothing is hidden: attacks find what there is."),
    )
)
