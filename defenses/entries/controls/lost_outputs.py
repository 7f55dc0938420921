"""Broken controls whose outputs hide the gradient; the decision is that of the undefended model."""

from registry import DEFENSES, DefenseEntry, Family, KnownBy, Paper, Recipe, Truth


def add(name: str, summary: str, build: str, known_by: KnownBy, statement: str, **fields: object) -> None:
    """Registers a control behind the undefended model."""
    DEFENSES.add(
        DefenseEntry(
            name=name,
            summary=summary,
            family=Family.CONTROL_BROKEN,
            tasks=("classification",),
            build=f"defenses.controls.outputs:{build}",
            base="Undefended",
            truth=Truth(known_by=known_by, statement=statement),
            **fields,
        )
    )


add(
    "ControlLargeLogits",
    "Multiplies the logits by 10000.",
    "scaled",
    KnownBy.BASE,
    "The decisions are the undefended model's; softmax saturates, so that cross-entropy has no gradient.",
    build_options={"factor": 1e4},
)
add(
    "ControlSaturated",
    "Squashes the logits until outputs are exactly 1 and -1.",
    "saturated",
    KnownBy.BASE,
    "The decisions are the undefended model's; float32 tanh is flat, so that no loss has a gradient.",
    build_options={"gain": 100.0},
    one_label=True,
)
add(
    "ControlProbabilities",
    "Returns probabilities where logits are expected.",
    "probabilities",
    KnownBy.BASE,
    "The decisions are the undefended model's; a second softmax over probabilities saturates.",
    one_label=True,
)
add(
    "ControlVotes",
    "Counts the votes of five fixed noisy copies, without gradient.",
    "votes",
    KnownBy.BASE,
    "Copies are half a grey level apart and nearly always agree; counts have no gradient and few levels.",
    build_options={"copies": 5, "sigma": 0.002},
    differentiable=False,
    one_label=True,
)
DEFENSES.add(
    DefenseEntry(
        name="ControlDistillation",
        summary="Defensive distillation at temperature 100.",
        family=Family.CONTROL_BROKEN,
        paper=Paper(
            title="Distillation as a Defense to Adversarial Perturbations against Deep Neural Networks",
            authors="Papernot et al.",
            year=2016,
            url="https://arxiv.org/abs/1511.04508",
            venue="IEEE S&P",
        ),
        tasks=("classification",),
        one_label=True,
        build="defenses.architectures.default:build",
        build_options={"width": 8},
        recipe=Recipe(train="defenses.recipes.distillation:train", options={"epochs": 20, "temperature": 100.0}),
        truth=Truth(
            known_by=KnownBy.ATTACK,
            statement="Its logits are a hundred times larger than usual: cross-entropy has no gradient, a margin has.",
        ),
    )
)
