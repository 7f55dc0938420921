"""Broken controls that are random, or no fixed function of one image; some do not say so."""

from registry import DEFENSES, DefenseEntry, Family, KnownBy, Paper, Randomness, Recipe, Truth


def add(
    name: str, summary: str, build: str, statement: str, known_by: KnownBy = KnownBy.ATTACK, **fields: object
) -> None:
    """Registers a control around the undefended model."""
    DEFENSES.add(
        DefenseEntry(
            name=name,
            summary=summary,
            family=Family.CONTROL_BROKEN,
            tasks=("classification",),
            build=f"defenses.controls.{build}",
            base="Undefended",
            truth=Truth(known_by=known_by, statement=statement),
            **fields,
        )
    )


add(
    "ControlLogitNoise",
    "Adds Gaussian noise to the logits, as declared.",
    "randomised:logit_noise",
    "Noise blurs scores, not the margin behind them: attacks that average, or follow the twin, push it far enough.",
    build_options={"sigma": 1.0},
    randomness=Randomness.SAMPLE,
)
add(
    "ControlCounter",
    "Counts its calls and shifts the logits with the count; not declared.",
    "moving:counter",
    "The same image is answered differently by each call; the margin behind the shift is the undefended model's.",
    build_options={"height": 1.0},
)
add(
    "ControlBatchStatistics",
    "Batch normalisation left in training mode.",
    "moving:batch_statistics",
    "Answers depend on the images of the batch; no number of single images is defined.",
)
add(
    "ControlAntiAdversary",
    "Optimises every input towards its own prediction before it is answered.",
    "moving:anti_adversary",
    "The decision is the undefended model's: on every image of BreastMNIST (156) and phantom2 (200), clean, at a "
    "random corner of its ball and after PGD-20 on that model. The gradient at the moved input says little.",
    known_by=KnownBy.BASE,
    build_options={"steps": 2, "step_size": 0.01},
    paper=Paper(
        title="Combating Adversaries with Anti-Adversaries",
        authors="Alfarra et al.",
        year=2022,
        url="https://arxiv.org/abs/2103.14347",
        venue="AAAI",
    ),
    one_label=True,
)
DEFENSES.add(
    DefenseEntry(
        name="ControlResizePad",
        summary="Random resizing and padding, as declared.",
        family=Family.CONTROL_BROKEN,
        paper=Paper(
            title="Mitigating Adversarial Effects Through Randomization",
            authors="Xie et al.",
            year=2018,
            url="https://arxiv.org/abs/1711.01991",
            venue="ICLR",
        ),
        tasks=("classification",),
        build="defenses.controls.randomised:resize_and_pad",
        build_options={"width": 8},
        recipe=Recipe(train="defenses.recipes.standard:train", options={"epochs": 20}),
        randomness=Randomness.SAMPLE,
        truth=Truth(
            known_by=KnownBy.ATTACK,
            statement="Differentiable for each draw: the mean over a few draws has an honest gradient.",
        ),
        departures="Bilinear instead of nearest-neighbour resizing, and in training too: small images stay readable.",
    )
)
