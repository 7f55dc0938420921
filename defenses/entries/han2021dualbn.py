from registry import DEFENSES, DefenseEntry, Family, Paper, Recipe, linf

DEFENSES.add(
    DefenseEntry(
        name="Han2021DualBN",
        summary="Adversarial training with separate batch normalisation for clean and adversarial batches.",
        family=Family.ADVERSARIAL_TRAINING,
        paper=Paper(
            title="Advancing diagnostic performance and clinical usability of neural networks via adversarial "
            "training and dual batch normalization",
            authors="Han et al.",
            year=2021,
            url="https://doi.org/10.1038/s41467-021-24464-3",
            venue="Nature Communications",
        ),
        tasks=("classification",),
        build="defenses.architectures.dual_norm:build",
        build_options={"inference": "adversarial"},
        recipe=Recipe(
            train="defenses.recipes.dual_norm_at:train",
            options={"epochs": 20, "eps": 4 / 255, "steps": 5, "bfloat16": True},
            per_dataset={"breastmnist*": {"epochs": 100, "batch_size": 32}, "pneumoniamnist*": {"epochs": 8}},
        ),
        trained_for=linf(4 / 255),
        departures="Tested with the adversarial normalisation, in which alone it is robust; the paper diagnoses with "
        "the clean one. AdamW with a one-cycle schedule; this suite's network; eps 4/255, also where a board ranks "
        "8/255; 5 inner steps in bfloat16, taken in eval mode through the adversarial normalisation.",
    )
)
