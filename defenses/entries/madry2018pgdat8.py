from registry import DEFENSES, DefenseEntry, Family, Paper, Recipe, linf

DEFENSES.add(
    DefenseEntry(
        name="Madry2018PGDAT8",
        summary="Adversarial training as Madry2018PGDAT, for the published budget: twice as large.",
        family=Family.ADVERSARIAL_TRAINING,
        paper=Paper(
            title="Towards Deep Learning Models Resistant to Adversarial Attacks",
            authors="Madry et al.",
            year=2018,
            url="https://arxiv.org/abs/1706.06083",
            venue="ICLR",
        ),
        tasks=("classification",),
        build="defenses.architectures.default:build",
        recipe=Recipe(
            train="defenses.recipes.pgd_at:train",
            options={"epochs": 20, "eps": 8 / 255, "steps": 5, "bfloat16": True},
            per_dataset={
                "breastmnist*": {"epochs": 100, "batch_size": 32},
                "pneumoniamnist*": {"epochs": 8},
                "phantom4": {"epochs": 40},
            },
        ),
        trained_for=linf(8 / 255),
        departures="AdamW with a one-cycle schedule; 5 inner steps of eps/2 instead of 7 of 2/255, taken in bfloat16 in "
        "eval mode; the epoch is selected under PGD-10 of 8/255 on validation images.",
    )
)
