from registry import DEFENSES, Claim, DefenseEntry, Family, Paper, Randomness, Recipe, linf

DEFENSES.add(
    DefenseEntry(
        name="He2019PNI",
        summary="Parametric noise injection: Gaussian noise of learned scale on weights, with adversarial training.",
        family=Family.NOISE_INJECTION,
        paper=Paper(
            title="Parametric Noise Injection: Trainable Randomness to Improve Deep Neural Network Robustness "
            "against Adversarial Attack",
            authors="He et al.",
            year=2019,
            url="https://arxiv.org/abs/1811.09310",
            venue="CVPR",
        ),
        tasks=("classification",),
        one_label=True,
        build="defenses.noise.weight_noise:noisy_weights",
        build_options={"alpha": 0.25},
        recipe=Recipe(
            train="defenses.recipes.half_clean:train",
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
        claims=(
            Claim(
                value=0.4594,
                metric="robust_accuracy",
                dataset="CIFAR-10",
                protocol="PGD-7 with one draw a step, Linf 0.031, ResNet-20, layer-wise noise on weights",
                source="README of the authors' code",
                budget=linf(0.031),
            ),
        ),
        departures="This suite's network instead of ResNet-20; AdamW with a one-cycle schedule; eps 4/255 and 5 inner "
        "steps of eps/2 instead of 0.031 and 7 of about eps/3, also where a board ranks 8/255, taken in bfloat16, "
        "from the first epoch on instead of a later one; its labels are the model's answers in a pass of their own, in "
        "eval mode, instead of those of the clean pass of the loss. The authors report, with one draw, 83.84 clean and "
        "39.14 under PGD without noise, 84.89 and 45.94 with layer-wise noise, 85.17 and 48.40 with noise for each "
        "output channel. The epoch is selected under PGD-10 with one draw of the "
        "weights a pass, on the mean of 10 validations.",
    )
)
