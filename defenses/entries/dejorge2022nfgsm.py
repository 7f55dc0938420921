from registry import DEFENSES, DefenseEntry, Family, Paper, Recipe, linf

DEFENSES.add(
    DefenseEntry(
        name="DeJorge2022NFGSM",
        summary="Adversarial training with one gradient step from strong noise, not projected back.",
        family=Family.ADVERSARIAL_TRAINING,
        paper=Paper(
            title="Make Some Noise: Reliable and Efficient Single-Step Adversarial Training",
            authors="de Jorge et al.",
            year=2022,
            url="https://arxiv.org/abs/2202.01181",
            venue="NeurIPS",
        ),
        tasks=("classification",),
        build="defenses.architectures.default:build",
        recipe=Recipe(
            train="defenses.recipes.fgsm_at:train",
            options={"epochs": 20, "eps": 4 / 255, "step_size": 4 / 255, "noise": 2.0, "project": False},
            per_dataset={"breastmnist*": {"epochs": 100, "batch_size": 32}, "pneumoniamnist*": {"epochs": 8}},
        ),
        trained_for=linf(4 / 255),
        revision=2,
        departures="AdamW with a one-cycle schedule; eps 4/255 in place of 8/255, also where a board ranks 8/255; the "
        "step is taken in eval mode, and its result kept in [0, 1].",
    )
)
