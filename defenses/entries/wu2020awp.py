from registry import DEFENSES, Claim, DefenseEntry, Family, Paper, Recipe, linf

DEFENSES.add(
    DefenseEntry(
        name="Wu2020AWP",
        summary="Adversarial training at weights that are perturbed to make its loss worst.",
        family=Family.ADVERSARIAL_TRAINING,
        paper=Paper(
            title="Adversarial Weight Perturbation Helps Robust Generalization",
            authors="Wu et al.",
            year=2020,
            url="https://arxiv.org/abs/2004.05884",
            venue="NeurIPS",
        ),
        tasks=("classification",),
        build="defenses.architectures.default:build",
        recipe=Recipe(
            train="defenses.recipes.pgd_at:train",
            options={"epochs": 20, "eps": 4 / 255, "steps": 5, "awp_gamma": 0.01, "bfloat16": True},
            per_dataset={
                "breastmnist*": {"epochs": 100, "batch_size": 32, "awp_gamma": 0.005},
                "pneumoniamnist*": {"epochs": 8},
            },
        ),
        trained_for=linf(4 / 255),
        claims=(
            Claim(
                value=0.5617,
                metric="robust_accuracy",
                dataset="CIFAR-10",
                protocol="AutoAttack, Linf 8/255, WRN-34-10, with TRADES",
                source="README of the authors' code; RobustBench",
                budget=linf(8 / 255),
            ),
        ),
        departures="The claim is of AWP with TRADES, this entry is AWP with PGD adversarial training. AdamW with a "
        "one-cycle schedule; eps 4/255 in place of 8/255, also where a board ranks 8/255; 5 inner steps of eps/2 "
        "instead of 10 of about eps/4, taken in bfloat16 in eval mode. On BreastMNIST the weights move by 0.005 of "
        "their length instead of 0.01, with which 100 epochs end at the majority class.",
    )
)
