"""The attacks of MI-Protector (UMAN, MMIFAN, DGMP) as its authors ran them: for comparison with their claims, no ranks.

Each attack is a protocol of its own that does not cascade: every eps begins at the clean image, without random start or
restart; each step follows the gradient of one draw of the defense's noise; and a number is the mean score at the last
point of that one attack, as a paper's "accuracy under PGD-20" is - not the worst case over attacks, steps or smaller
budgets. Only the last scoring differs: the authors predict each image on one draw, here its score is the mean over
100 fresh draws, the same quantity with less noise. The loss takes probabilities for logits, as the authors' does.

The grid has gaps: it lacks 12, 20 and 28/255, which the authors name for their multimodal models, and 0.6, 0.9 and 1.2
of their VGG16 tables. From eps 0.5 on any image can be made a uniform grey one.

Of ResNet-18 the authors report BIM and MIM of 100 steps; those of 20 steps belong to VGG16 and their multimodal models.

Admix and DeCoWA are made for transfer; which options they had and whose gradients they took is not known. Here they
have the options of their own papers, which ascend the loss on logits, 10 steps, and follow the defended network itself.

`as-released:` protocols replay where the released code differs from the paper, as far as the engine lets an attack go:
it keeps all points in [0, 1] and projects the last one into the ball, so that the missing box clip and the true
distance of the iterate-centred projection cannot be scored here.
"""

from registry import PROTOCOLS, AttackProtocol, Budget, CellFacts, Family, Member, Need, Paper, ThreatModel, linf

HUNDREDTHS = [hundredths / 100 for hundredths in (*range(1, 11), 20, 30)]
LEVELS = [level / 255 for level in (8, 16, 24, 32)]
GRID = tuple(linf(eps) for eps in sorted(HUNDREDTHS + LEVELS))
"""The hundredths of the released notebooks, and the levels that the authors' guide names for ResNet-18."""
TRANSFER_EPS = (linf(32 / 255),)
PAPER = Paper(
    title="Towards building robust models for unimodal and multimodal medical imaging data",
    authors="Dhar et al.",
    year=2026,
    url="https://doi.org/10.1016/j.inffus.2025.103822",
    venue="Information Fusion",
)
FAMILIES = {"as-released:mi-protector-bare": frozenset({Family.PURIFICATION})}
PGD_20 = {"steps": 20, "step_size": 0.25}
MIM = {"steps": 20, "step_size": 0.1, "momentum": "gradients"}
STEPS = "attacks.replay:ReplayedSteps"
REPLAYS = {
    "paper:mi-protector-fgsm": ("FGSM alone, loss on probabilities", STEPS, {"steps": 1, "step_size": 1.0}),
    "paper:mi-protector-bim": (
        "BIM-20 alone, loss on probabilities, at its last step",
        STEPS,
        {"steps": 20, "step_size": 0.1},
    ),
    "paper:mi-protector-mim": ("MIM-20 alone, loss on probabilities, at its last step", STEPS, MIM),
    "paper:mi-protector-bim-100": (
        "BIM-100 alone, loss on probabilities, at its last step",
        STEPS,
        {"steps": 100, "step_size": 0.1},
    ),
    "paper:mi-protector-mim-100": (
        "MIM-100 alone, loss on probabilities, at its last step",
        STEPS,
        MIM | {"steps": 100},
    ),
    "paper:mi-protector-pgd-20": ("PGD-20 alone, loss on probabilities, at its last step", STEPS, PGD_20),
    "paper:mi-protector-pgd-100": (
        "PGD-100 alone, loss on probabilities, at its last step",
        STEPS,
        PGD_20 | {"steps": 100},
    ),
    "paper:mi-protector-admix": (
        "Admix alone, loss on probabilities, at its last step",
        "attacks.admix:Admix",
        {"last_only": True},
    ),
    "paper:mi-protector-decowa": (
        "DeCoWA alone, loss on probabilities, at its last step",
        "attacks.decowa:DeCoWA",
        {"last_only": True},
    ),
    "as-released:mi-protector-drifting": (
        "MMIFAN's PGD-20 as released, clipped around each iterate; its last point is projected into ball and [0, 1]",
        STEPS,
        PGD_20 | {"clip_to": "iterate"},
    ),
    "as-released:mi-protector-bare": (
        "DGMP's files pgd_100 as released: 10 steps on the bare classifier, scored through the purifier",
        STEPS,
        PGD_20 | {"steps": 10},
    ),
}
"""Title, attack and options by protocol; released MMIFAN ascends the binary cross-entropy of Keras on its outputs."""


def replayed(protocol: str):
    """Returns the function that gives a cell's one member under this protocol.

    DGMP's authors attack the classifier without the purifier; where a model does not show it, the whole is attacked.
    """
    name, (_, attack, options) = protocol.partition("mi-protector-")[2], REPLAYS[protocol]
    drifting = name == "drifting"

    def members(facts: CellFacts, budget: Budget) -> tuple[Member, ...]:
        return (
            Member(
                name=name,
                attack=attack,
                options=options,
                objective="clamped-binary-cross-entropy" if drifting else "probability-cross-entropy",
                source=Need.BARE if name == "bare" and facts.has_bare else "exact",
            ),
        )

    return members


for protocol, (title, attack, _) in REPLAYS.items():
    PROTOCOLS.add(
        AttackProtocol(
            name=protocol,
            title=f"MI-Protector: {title}" if protocol.startswith("paper:") else title,
            threat_model=ThreatModel(),
            budgets=GRID if attack == STEPS else TRANSFER_EPS,
            tasks=("classification",),
            members=replayed(protocol),
            families=FAMILIES.get(protocol, frozenset()),
            cascades=False,
            reference=PAPER,
        )
    )
