"""The protocol that ranks: an ensemble of white-box, transfer and score-based attacks; only its worst case counts."""

from registry import PROTOCOLS, AttackProtocol, Budget, CellFacts, Member, Need, Paper, ThreatModel, linf

GRID = tuple(linf(level / 255) for level in (1, 2, 4, 8, 16, 32))
FULL_EFFORT = (linf(4 / 255), linf(8 / 255))
"""Budgets that boards rank; the others draw the curve and are attacked with less effort, which is printed."""


def members(facts: CellFacts, budget: Budget) -> tuple[Member, ...]:
    """Returns the ensemble of a cell, the strongest for its cost first."""
    full = budget in FULL_EFFORT
    steps = 100 if full else 50
    white_box = _segmentation(steps) if facts.task == "segmentation" else _classification(facts, steps, full)
    margin = "soft-dice" if facts.task == "segmentation" else "margin"
    queries = {("classification", True): 5000, ("classification", False): 1000}.get((facts.task, full))
    queries = queries or (500 if full else 100)  # graded scores never stop early
    ensemble = list(white_box)
    if facts.stages:
        options = {"steps": steps, "step_size": 0.1, "restarts": 2 if full else 1}
        ensemble.append(
            Member(name="pgd-bpda", attack="attacks.gradient:PGD", options=options, objective=margin, backward="bpda")
        )
    if facts.has_twin:
        options = {"steps": steps}
        ensemble.append(
            Member(name="transfer", attack="attacks.apgd:APGD", options=options, objective=margin, source=Need.TWIN)
        )
    ensemble.append(
        Member(name="square", attack="attacks.square:Square", options={"queries": queries}, objective=margin)
    )
    return tuple(ensemble)


def _classification(facts: CellFacts, steps: int, full: bool) -> tuple[Member, ...]:
    """With 2 classes cross-entropy and margin have parallel input gradients: restarts take the place of targets."""
    apgd = "attacks.apgd:APGD"
    if facts.n_classes == 2 or facts.multi_label:
        options = {"steps": steps, "restarts": 5 if full else 2}
        return (Member(name="apgd-margin", attack=apgd, options=options, objective="margin"),)
    targets = min(9 if full else 3, facts.n_classes - 1)
    return (
        Member(name="apgd-ce", attack=apgd, options={"steps": steps}),
        Member(
            name="apgd-targeted-margin",
            attack=apgd,
            options={"steps": steps, "restarts": targets},
            objective="targeted-margin",
        ),
    )


def _segmentation(steps: int) -> tuple[Member, ...]:
    apgd = "attacks.apgd:APGD"
    return (
        Member(name="apgd-dice", attack=apgd, options={"steps": steps}, objective="soft-dice"),
        Member(name="apgd-ce", attack=apgd, options={"steps": steps}),
    )


PROTOCOLS.add(
    AttackProtocol(
        name="standard",
        title="Worst case over an ensemble: APGD, BPDA, transfer from the undefended twin, Square",
        threat_model=ThreatModel(),
        budgets=GRID,
        tasks=("classification", "segmentation"),
        members=members,
        needs=frozenset({Need.TWIN}),
        ranks=True,
        reference=Paper(
            title="Reliable evaluation of adversarial robustness with an ensemble of diverse parameter-free attacks",
            authors="Croce and Hein",
            year=2020,
            url="https://arxiv.org/abs/2003.01690",
            venue="ICML",
        ),
    )
)
