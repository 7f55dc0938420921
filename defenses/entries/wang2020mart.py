from registry import DEFENSES, Claim, DefenseEntry, Family, Paper, Recipe, linf

DEFENSES.add(
    DefenseEntry(
        name="Wang2020MART",
        summary="Adversarial training that pulls most where the model is unsure of the clean image.",
        family=Family.ADVERSARIAL_TRAINING,
        paper=Paper(
            title="Improving Adversarial Robustness Requires Revisiting Misclassified Examples",
            authors="Wang et al.",
            year=2020,
            url="https://openreview.net/forum?id=rklOg6EFwS",
            venue="ICLR",
        ),
        tasks=("classification",),
        one_label=True,
        build="defenses.architectures.default:build",
        recipe=Recipe(
            train="defenses.recipes.mart:train",
            options={"epochs": 20, "eps": 4 / 255, "steps": 5, "beta": 5.0, "bfloat16": True},
            per_dataset={"breastmnist*": {"epochs": 100, "batch_size": 32}, "pneumoniamnist*": {"epochs": 8}},
        ),
        trained_for=linf(4 / 255),
        claims=(
            Claim(
                value=0.5557,
                metric="robust_accuracy",
                dataset="CIFAR-10",
                protocol="PGD-20, Linf, ResNet-18",
                source="Tables 2 and 3 as corrected by the authors, OpenReview, 22 February 2020",
                budget=linf(8 / 255),
            ),
        ),
        departures="AdamW with a one-cycle schedule; eps 4/255 in place of 8/255, also where a board ranks 8/255; 5 "
        "inner steps of eps/2 instead of 10 of about eps/4, taken in bfloat16 in eval mode from a uniform start.",
    )
)
