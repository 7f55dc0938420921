from registry import DEFENSES, DefenseEntry, Family, Paper, Recipe

DEFENSES.add(
    DefenseEntry(
        name="Zhang2017DnCNN",
        summary="A DnCNN trained on Gaussian noise of unknown strength, in front of the frozen undefended model.",
        family=Family.PURIFICATION,
        paper=Paper(
            title="Beyond a Gaussian Denoiser: Residual Learning of Deep CNN for Image Denoising",
            authors="Zhang et al.",
            year=2017,
            url="https://arxiv.org/abs/1608.03981",
            venue="IEEE TIP",
        ),
        tasks=("classification",),
        build="defenses.purifiers.dncnn:build",
        build_options={"depth": 7, "width": 32},
        base="Undefended",
        recipe=Recipe(
            train="defenses.recipes.denoising:train",
            options={
                "epochs": 40,
                "batch_size": 32,
                "lr": 3e-3,
                "weight_decay": 0.0,
                "noise": "gaussian",
                "low": 0.0,
                "high": 55 / 255,
                "squared": True,
            },
            per_dataset={"pneumoniamnist*": {"epochs": 12}, "pathmnist*": {"epochs": 12}, "phantom*": {"epochs": 10}},
        ),
        departures=(
            "7 layers of 32 channels in place of 20 of 64, whole images of the data set in place of patches of "
            "photographs; AdamW without weight decay, with a one-cycle schedule. The paper restores images: it claims "
            "nothing on attacks."
        ),
    )
)
