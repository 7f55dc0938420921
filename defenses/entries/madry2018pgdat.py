from registry import DEFENSES, Claim, DefenseEntry, Family, KnownBy, Paper, Recipe, Truth, linf

DEFENSES.add(
    DefenseEntry(
        name="Madry2018PGDAT",
        summary="Adversarial training: the loss is taken on PGD adversarials of the training images.",
        family=Family.ADVERSARIAL_TRAINING,
        paper=Paper(
            title="Towards Deep Learning Models Resistant to Adversarial Attacks",
            authors="Madry et al.",
            year=2018,
            url="https://arxiv.org/abs/1706.06083",
            venue="ICLR",
        ),
        tasks=("classification", "segmentation"),
        build="defenses.architectures.default:build",
        recipe=Recipe(
            train="defenses.recipes.pgd_at:train",
            options={"epochs": 20, "eps": 4 / 255, "steps": 5, "bfloat16": True},
            per_dataset={
                "breastmnist*": {"epochs": 100, "batch_size": 32},
                "pneumoniamnist*": {"epochs": 8},
                "phantom4": {"epochs": 40},
                "phantomseg": {"steps": 3},
                "msd_hippocampus": {"epochs": 12, "steps": 3},
            },
        ),
        trained_for=linf(4 / 255),
        claims=(
            Claim(
                value=0.458,
                metric="robust_accuracy",
                dataset="CIFAR-10",
                protocol="PGD-20, Linf 8/255, wide network",
                source="Table 2",
                budget=linf(8 / 255),
            ),
        ),
        departures="AdamW with a one-cycle schedule; eps 4/255 in place of 8/255, also where a board ranks 8/255; 5 "
        "inner steps of eps/2 (3 of 5/6 eps on label maps), 2.5 eps over their number, taken in bfloat16 in eval mode.",
        truth=Truth(known_by=KnownBy.ATTACK, statement="Nothing is hidden: its gradients are honest."),
    )
)
