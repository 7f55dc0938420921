from registry import DEFENSES, Claim, DefenseEntry, Family, KnownBy, Paper, Recipe, Truth, linf

DEFENSES.add(
    DefenseEntry(
        name="Gowal2018IBP",
        summary="A small network trained on interval bounds of its logits, with a certificate.",
        family=Family.CERTIFIED,
        paper=Paper(
            title="On the Effectiveness of Interval Bound Propagation for Training Verifiably Robust Models",
            authors="Gowal et al.",
            year=2018,
            url="https://arxiv.org/abs/1810.12715",
        ),
        tasks=("classification",),
        one_label=True,
        datasets=("phantom*", "breastmnist"),
        build="defenses.certified.intervals:build",
        recipe=Recipe(
            train="defenses.recipes.interval_training:train",
            options={"epochs": 60, "eps": 4 / 255, "weight_decay": 0.0, "validate_every": 60},
            per_dataset={"breastmnist": {"epochs": 200, "batch_size": 32, "validate_every": 200}},
        ),
        trained_for=linf(4 / 255),
        certificate="defenses.certified.intervals:certify",
        truth=Truth(
            known_by=KnownBy.ATTACK,
            statement="Nothing hides its gradient, and interval bounds prove a part of its score.",
        ),
        claims=(
            Claim(
                value=0.9195,
                metric="certified_accuracy",
                dataset="MNIST",
                protocol="certified, Linf 0.3",
                source="Abstract: 8.05 % verified error",
                budget=linf(0.3),
            ),
        ),
        departures="AdamW with a one-cycle schedule; a narrower network, whose second convolution has a stride of 2, "
        "too; the last epoch is kept; eps "
        "4/255, also where a board ranks 8/255.",
    )
)
