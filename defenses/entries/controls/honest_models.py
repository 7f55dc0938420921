"""Honest controls: defenses without any trick, which no flag may contest."""

from registry import DEFENSES, Budget, DefenseEntry, Family, KnownBy, Norm, Recipe, Truth


def add(name: str, summary: str, build: str, known_by: KnownBy, statement: str, **fields: object) -> None:
    """Registers an honest control."""
    DEFENSES.add(
        DefenseEntry(
            name=name,
            summary=summary,
            family=Family.CONTROL_HONEST,
            tasks=("classification",),
            build=build,
            truth=Truth(known_by=known_by, statement=statement),
            **fields,
        )
    )


add(
    "ControlLinear",
    "A linear classifier.",
    "defenses.controls.plain:linear",
    KnownBy.CERTIFICATE,
    "Its worst input is known in closed form, so its robust score is exact.",
    recipe=Recipe(train="defenses.recipes.standard:train", options={"epochs": 20, "weight_decay": 0.5}),
    certificate="defenses.certified.closed_form:certify_linear",
    one_label=True,
)
add(
    "ControlConstant",
    "Always answers the same class.",
    "defenses.controls.plain:constant",
    KnownBy.CERTIFICATE,
    "No input changes its answer: its robust score is the share of that class, and worth nothing.",
    recipe=Recipe(train="defenses.recipes.standard:train", options={"epochs": 4, "lr": 0.05}),
    certificate="defenses.certified.closed_form:certify_constant",
    one_label=True,
)
add(
    "ControlSmallLogits",
    "Multiplies the logits of the PGD-trained model by 0.001.",
    "defenses.controls.outputs:scaled",
    KnownBy.BASE,
    "The decisions are the PGD-trained model's; its gradients are small, but nothing hides them.",
    build_options={"factor": 1e-3},
    base="Madry2018PGDAT",
)
add(
    "ControlMeanFilter",
    "A 3 x 3 mean filter in front of the PGD-trained model.",
    "defenses.controls.inputs:mean_filter",
    KnownBy.ATTACK,
    "The filter is linear, and the network behind it has honest gradients.",
    base="Madry2018PGDAT",
)
add(
    "ControlL2Training",
    "Adversarial training within Euclidean balls.",
    "defenses.architectures.default:build",
    KnownBy.ATTACK,
    "Trained against another norm than the ranked one; its gradients are honest.",
    build_options={"width": 8},
    recipe=Recipe(
        train="defenses.recipes.pgd_at:train",
        options={"epochs": 12, "norm": "L2", "eps": 0.5, "steps": 3, "validation_steps": 5, "bfloat16": True},
        per_dataset={"breastmnist": {"epochs": 20, "eps": 0.25}},
    ),
    trained_for=Budget(norm=Norm.L2, eps=0.5),
)
