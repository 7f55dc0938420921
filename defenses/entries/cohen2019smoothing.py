from registry import DEFENSES, Budget, Claim, DefenseEntry, Family, KnownBy, Norm, Paper, Randomness, Recipe, Truth

DEFENSES.add(
    DefenseEntry(
        name="Cohen2019Smoothing",
        summary="Randomised smoothing: Gaussian noise on every input, in training and at inference.",
        family=Family.CERTIFIED,
        paper=Paper(
            title="Certified Adversarial Robustness via Randomized Smoothing",
            authors="Cohen et al.",
            year=2019,
            url="https://arxiv.org/abs/1902.02918",
            venue="ICML",
        ),
        tasks=("classification",),
        one_label=True,
        datasets=("phantom*", "breastmnist"),
        build="defenses.certified.smoothing:build",
        build_options={"sigma": 0.25, "width": 8},
        recipe=Recipe(
            train="defenses.recipes.standard:train",
            options={"epochs": 20},
            per_dataset={"breastmnist*": {"epochs": 200, "batch_size": 32, "lr": 1e-3, "validate_every": 2}},
        ),
        randomness=Randomness.SAMPLE,
        certificate="defenses.certified.smoothing:certify",
        truth=Truth(
            known_by=KnownBy.ATTACK,
            statement="The noise is declared, its gradient is honest, and its certificate bounds the score from below.",
        ),
        claims=(
            Claim(
                value=0.49,
                metric="certified_accuracy",
                dataset="ImageNet",
                protocol="certified, L2 127/255, sigma 0.25, ResNet-50",
                source="Abstract",
                budget=Budget(norm=Norm.L2, eps=127 / 255),
            ),
        ),
        departures="One call is one noisy draw; the certificate bounds the mean score of draws, and the paper's "
        "majority vote where that bound is above 1/2. 1000 draws instead of 100000. A ResNet-18 of half the suite's "
        "width (8 channels), 20 epochs (on BreastMNIST 200 in batches of 32), AdamW with a one-cycle schedule: from "
        "the rows of plain Gaussian noise it does not differ by sigma alone. The epoch is selected on one draw of each "
        "validation image.",
    )
)
