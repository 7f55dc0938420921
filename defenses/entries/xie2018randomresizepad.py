from registry import DEFENSES, Claim, DefenseEntry, Family, Paper, Randomness, linf

DEFENSES.add(
    DefenseEntry(
        name="Xie2018RandomResizePad",
        summary="Random resizing and random padding in front of the undefended model.",
        family=Family.INPUT_TRANSFORMATION,
        paper=Paper(
            title="Mitigating Adversarial Effects Through Randomization",
            authors="Xie et al.",
            year=2018,
            url="https://arxiv.org/abs/1711.01991",
            venue="ICLR",
        ),
        tasks=("classification",),
        build="defenses.controls.randomised:resize_and_pad_base",
        base="Undefended",
        randomness=Randomness.SAMPLE,
        claims=(
            Claim(
                value=0.86,
                metric="robust_accuracy",
                dataset="ImageNet",
                protocol="Linf 10/255, images right without it; Athalye et al. 2018 (arXiv:1802.00420): 0",
                source="Quoted by robust-ml.org",
                budget=linf(10 / 255),
            ),
        ),
        departures="Edges grow by up to 331/299, as in the paper, and by at least one pixel; bilinear instead of "
        "nearest-neighbour resizing, since images are small; a score is the mean over single passes.",
    )
)
