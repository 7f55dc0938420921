from registry import DEFENSES, Claim, DefenseEntry, Family, Paper, Randomness, Recipe, linf

DEFENSES.add(
    DefenseEntry(
        name="Nie2022DiffPure",
        summary="Every input is diffused with noise and denoised by the reverse steps of a small diffusion model.",
        family=Family.PURIFICATION,
        paper=Paper(
            title="Diffusion Models for Adversarial Purification",
            authors="Nie et al.",
            year=2022,
            url="https://arxiv.org/abs/2205.07460",
            venue="ICML",
        ),
        tasks=("classification",),
        build="defenses.purifiers.diffpure:build",
        build_options={"until": 75, "steps": 10},
        base="Undefended",
        recipe=Recipe(
            train="defenses.recipes.diffusion:train", options={"epochs": 40, "batch_size": 32, "weight_decay": 1e-4}
        ),
        randomness=Randomness.SAMPLE,
        claims=(
            Claim(
                value=0.7064,
                metric="robust_accuracy",
                dataset="CIFAR-10",
                protocol="AutoAttack, Linf 8/255, adjoint gradients, WRN-28-10",
                source="Quoted by Kassis et al. 2024 (DiffBreak), arXiv:2411.16598, whose full gradients leave 0.4805",
                budget=linf(8 / 255),
            ),
        ),
        departures="A small U-Net without attention, whose last image is cut off at 0 and 1, trained on the training "
        "images at times up to t* alone, without an average of its weights, by AdamW with a one-cycle schedule. t* is "
        "75 of 1000, the published value for L2 attacks on CIFAR-10; for Linf, which is ranked here, it is 100. 10 "
        "deterministic DDIM steps in place of a stochastic differential equation; the gradient is the true one through "
        "all of them.",
    )
)
