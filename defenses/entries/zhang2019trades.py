from registry import DEFENSES, Claim, DefenseEntry, Family, KnownBy, Paper, Recipe, Truth, linf

DEFENSES.add(
    DefenseEntry(
        name="Zhang2019TRADES",
        summary="Clean loss plus beta times the divergence between clean and adversarial probabilities.",
        family=Family.ADVERSARIAL_TRAINING,
        paper=Paper(
            title="Theoretically Principled Trade-off between Robustness and Accuracy",
            authors="Zhang et al.",
            year=2019,
            url="https://arxiv.org/abs/1901.08573",
            venue="ICML",
        ),
        tasks=("classification",),
        one_label=True,
        build="defenses.architectures.default:build",
        recipe=Recipe(
            train="defenses.recipes.trades:train",
            options={"epochs": 20, "eps": 4 / 255, "steps": 5, "beta": 6.0, "bfloat16": True},
            per_dataset={"breastmnist*": {"epochs": 100, "batch_size": 32}, "pneumoniamnist*": {"epochs": 8}},
        ),
        trained_for=linf(4 / 255),
        claims=(
            Claim(
                value=0.5661,
                metric="robust_accuracy",
                dataset="CIFAR-10",
                protocol="PGD-20, Linf 0.031, WRN-34-10, 1/lambda = 6",
                source="Table 5",
                budget=linf(0.031),
            ),
        ),
        departures="AdamW with a one-cycle schedule; eps 4/255 in place of 0.031, also where a board ranks 8/255; 5 "
        "inner steps of eps/2 instead of 10 of about eps/4, taken in bfloat16.",
        truth=Truth(known_by=KnownBy.ATTACK, statement="Nothing is hidden: its gradients are honest."),
    )
)
