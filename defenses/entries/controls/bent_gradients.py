"""Broken controls whose input transformation hides the gradient; each leaves nearly all decisions as they were."""

from registry import DEFENSES, DefenseEntry, Family, KnownBy, Paper, Truth

SQUEEZING = Paper(
    title="Feature Squeezing: Detecting Adversarial Examples in Deep Neural Networks",
    authors="Xu et al.",
    year=2018,
    url="https://arxiv.org/abs/1704.01155",
    venue="NDSS",
)
OBFUSCATED = Paper(
    title="Obfuscated Gradients Give a False Sense of Security",
    authors="Athalye et al.",
    year=2018,
    url="https://arxiv.org/abs/1802.00420",
    venue="ICML",
)


def add(name: str, summary: str, build: str, statement: str, **fields: object) -> None:
    """Registers a control in front of the undefended model."""
    DEFENSES.add(
        DefenseEntry(
            name=name,
            summary=summary,
            family=Family.CONTROL_BROKEN,
            tasks=("classification",),
            build=f"defenses.controls.inputs:{build}",
            base="Undefended",
            truth=Truth(known_by=KnownBy.BASE, statement=statement),
            **fields,
        )
    )


add(
    "ControlQuantised",
    "Rounds the input to 8 bits, the levels it came from, and declares nothing.",
    "quantised",
    "Images have 8 bits already and a budget of whole grey levels ends on them: nothing changes but the gradient, "
    "which is zero.",
    build_options={"bits": 8},
    paper=OBFUSCATED,
)
add(
    "ControlSine",
    "Adds a ripple of half a grey level to the input.",
    "sine",
    "No value moves by more than half a grey level, but the derivative swings between -19 and 21.",
    build_options={"height": 0.002, "frequency": 10000.0},
)
add(
    "ControlNumpyBits",
    "Clears the lowest bit of the 8-bit image in NumPy.",
    "drop_bits",
    "One grey level is lost, and with it every path of the gradient.",
    build_options={"bits": 1},
    differentiable=False,
)
add(
    "ControlHardClip",
    "Clips the input to [0.05, 0.7].",
    "hard_clip",
    "Clipped values have no gradient; all others can be attacked as before.",
    build_options={"low": 0.05, "high": 0.7},
)
add(
    "ControlJPEG",
    "JPEG compression at quality 95, not declared.",
    "jpeg",
    "At this quality compression is close to the identity, but rounded values have no gradient.",
    build_options={"quality": 95},
    paper=OBFUSCATED,
)
add(
    "ControlSqueezing",
    "Feature squeezing to 6 bits, declared.",
    "squeezed",
    "Levels are four grey levels apart, so that a budget of four reaches the next one; the stand-in leads through it.",
    build_options={"bits": 6},
    differentiable=False,
    paper=SQUEEZING,
    departures="Squeezes every input, instead of comparing predictions with and without.",
)
