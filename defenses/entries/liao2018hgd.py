from registry import DEFENSES, Claim, DefenseEntry, Family, Paper, Recipe, linf

DEFENSES.add(
    DefenseEntry(
        name="Liao2018HGD",
        summary="A U-Net removes what it takes for the perturbation, trained on the classifier's logits.",
        family=Family.PURIFICATION,
        paper=Paper(
            title="Defense against Adversarial Attacks Using High-Level Representation Guided Denoiser",
            authors="Liao et al.",
            year=2018,
            url="https://arxiv.org/abs/1712.02976",
            venue="CVPR",
        ),
        tasks=("classification",),
        build="defenses.purifiers.hgd:build",
        base="Undefended",
        recipe=Recipe(
            train="defenses.recipes.hgd:train",
            options={
                "epochs": 10,
                "batch_size": 32,
                "weight_decay": 1e-4,
                "eps": 8 / 255,
                "steps": 4,
                "bfloat16": True,
            },
        ),
        trained_for=linf(8 / 255),
        claims=(
            Claim(
                value=0.75,
                metric="robust_accuracy",
                dataset="ImageNet",
                protocol="Linf 4/255; Athalye and Carlini 2018 (arXiv:1804.03286): 0 white-box",
                source="Quoted by robust-ml.org",
                budget=linf(4 / 255),
            ),
        ),
        departures="A small U-Net, whose output is cut off at 0 and 1, trained by AdamW with a one-cycle schedule. Its "
        "training images are attacked by PGD, in bfloat16, at one budget on the one classifier it guards, afresh in "
        "every epoch, in place of a fixed set from FGSM and I-FGSM on several classifiers.",
    )
)
