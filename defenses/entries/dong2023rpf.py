from registry import DEFENSES, DefenseEntry, Family, Paper, Randomness, Recipe, linf

DEFENSES.add(
    DefenseEntry(
        name="Dong2023RPF",
        summary="Random projection filters in the first convolution, drawn in every pass, with adversarial training.",
        family=Family.NOISE_INJECTION,
        paper=Paper(
            title="Adversarial Robustness via Random Projection Filters",
            authors="Dong and Xu",
            year=2023,
            url="https://openaccess.thecvf.com/content/CVPR2023/html/"
            "Dong_Adversarial_Robustness_via_Random_Projection_Filters_CVPR_2023_paper.html",
            venue="CVPR",
        ),
        tasks=("classification",),
        build="defenses.noise.weight_noise:random_projection",
        build_options={"share": 0.75},
        recipe=Recipe(
            train="defenses.recipes.pgd_at:train",
            options={
                "epochs": 20,
                "eps": 4 / 255,
                "steps": 5,
                "bfloat16": True,
                "inner_mode": "train",
                "validation_draws": 10,
            },
            per_dataset={
                "breastmnist*": {"epochs": 100, "batch_size": 32, "validate_every": 5},
                "pneumoniamnist*": {"epochs": 8},
                "phantom4": {"epochs": 40},
            },
        ),
        trained_for=linf(4 / 255),
        randomness=Randomness.MODEL,
        departures="This suite's network; AdamW with a one-cycle schedule and one weight decay for all layers; eps "
        "4/255 and 5 inner steps of eps/2 instead of 8/255 and 10 of eps/4, also where a board ranks 8/255, taken in "
        "bfloat16; filters are drawn in every forward pass, so that each inner step meets fresh ones, where the "
        "authors' code draws them twice for a batch, for the attack and for the update; the inner attack leaves the "
        "statistics of batch normalisation as they were, where theirs moves them; the last layer begins as torch has "
        "it, not close to 0. Three quarters of the filters are random, 48 of 64 in the paper. The epoch is selected "
        "under PGD-10 with one draw of the filters a pass, on the mean of 10 validations.",
    )
)
