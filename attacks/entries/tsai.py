"""The one-pixel attack as the denoising autoencoder's authors evaluate it, and its exhaustive counterpart."""

import math

from registry import (
    PROTOCOLS,
    AttackProtocol,
    Budget,
    CellFacts,
    Family,
    Knowledge,
    Member,
    Need,
    Norm,
    Paper,
    ThreatModel,
)

CONFIDENT = -math.log(0.05)
"""Cross-entropy at which the search ends: the true class has a probability of 5 %."""
CRAFTED = "attacks.crafted:Crafted"
GREY_BOX = frozenset({Family.UNDEFENDED, Family.PURIFICATION, Family.INPUT_TRANSFORMATION})
"""Families whose members have a fixed network behind them, on which the attack is crafted."""
THREAT = ThreatModel(norm=Norm.L0, knowledge=Knowledge.TRANSFER)
PAPER = Paper(
    title="One Pixel Attack for Fooling Deep Neural Networks",
    authors="Su et al.",
    year=2019,
    url="https://arxiv.org/abs/1710.08864",
    venue="IEEE TEVC",
)


def evolved(facts: CellFacts, budget: Budget) -> tuple[Member, ...]:
    """Returns differential evolution with 400 candidates and 100 generations on the bare network."""
    options = {
        "attack": "attacks.one_pixel_de:OnePixelDE",
        "options": {"population": 400, "generations": 100},
        "surrogate": _bare(facts),
        "stop_above": CONFIDENT,
    }
    return (Member(name="one-pixel-de", attack=CRAFTED, options=options),)


def exhaustive(facts: CellFacts, budget: Budget) -> tuple[Member, ...]:
    """Returns every pixel with every colour of a set on the bare network; the most harmful one is tried."""
    options = {"attack": "attacks.one_pixel:OnePixel", "options": {"grey_levels": 9}, "surrogate": _bare(facts)}
    return (Member(name="one-pixel-exhaustive", attack=CRAFTED, options=options),)


def _bare(facts: CellFacts) -> str | None:
    """Returns where the bare network is found: the model shows it, or it is the twin, or the model is bare itself."""
    return str(Need.BARE) if facts.has_bare else str(Need.TWIN) if facts.has_twin else None


PROTOCOLS.add(
    AttackProtocol(
        name="paper:tsai",
        title="One-pixel attack by differential evolution, crafted on the bare network, tried through the defense once",
        threat_model=THREAT,
        budgets=tuple(Budget(norm=Norm.L0, eps=pixels) for pixels in (1, 3, 5)),
        tasks=("classification",),
        members=evolved,
        needs=frozenset({Need.TWIN}),
        families=GREY_BOX,
        cascades=False,
        revision=2,
        reference=PAPER,
    )
)
PROTOCOLS.add(
    AttackProtocol(
        name="paper:tsai-exhaustive",
        title="Every pixel in 9 grey levels, or 8 corner colours, on the bare network; the worst through the defense",
        threat_model=THREAT,
        budgets=(Budget(norm=Norm.L0, eps=1),),
        tasks=("classification",),
        members=exhaustive,
        needs=frozenset({Need.TWIN}),
        families=GREY_BOX,
        cascades=False,
        revision=3,
        reference=PAPER,
    )
)
