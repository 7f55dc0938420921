from registry import DEFENSES, DefenseEntry, Family, Paper, Randomness

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
        departures="Edges grow by up to 331/299, as in the paper, and by at least one pixel; bilinear instead of "
        "nearest-neighbour resizing, since images are small; a score is the mean over single passes.",
    )
)
