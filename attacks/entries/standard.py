"""The protocol that ranks: an ensemble of white-box, transfer and score-based attacks; only its worst case counts."""

from registry import PROTOCOLS, AttackProtocol, Budget, CellFacts, Member, Need, Paper, ThreatModel, linf

GRID = tuple(linf(level / 255) for level in (1, 2, 4, 8, 16, 32))


def members(facts: CellFacts, budget: Budget) -> tuple[Member, ...]:
    """Returns the ensemble of a cell, the strongest for its cost first.

    Linf 4/255 and the data set's ranked budget get the full effort; the others draw the curve with less, which every
    record states.
    """
    full = budget in (linf(4 / 255), facts.ranked_budget)
    if facts.task == "segmentation":
        steps, restarts, queries, objective = 100 if full else 40, 1, 500 if full else 50, "soft-dice"
        ensemble = _segmentation(steps)
    else:
        steps, restarts, queries, objective = (100, 5, 5000, "margin") if full else (40, 1, 200, "margin")
        ensemble = _classification(facts, steps, restarts)
    if facts.stages:  # first: through a stage without gradient the others only spend their steps
        bpda = {"steps": steps, "step_size": 0.1, "restarts": 2 if full else 1}
        ensemble.insert(
            0,
            Member(name="pgd-bpda", attack="attacks.gradient:PGD", options=bpda, objective=objective, backward="bpda"),
        )
    if facts.has_twin:
        options = {"steps": steps // 2}
        ensemble.append(
            Member(name="transfer", attack="attacks.apgd:APGD", options=options, objective=objective, source=Need.TWIN)
        )
    square = Member(name="square", attack="attacks.square:Square", options={"queries": queries}, objective=objective)
    return (*ensemble, square)


def _classification(facts: CellFacts, steps: int, restarts: int) -> list[Member]:
    """With 2 classes cross-entropy and margin have parallel input gradients: restarts take the place of targets."""
    apgd = "attacks.apgd:APGD"
    if facts.n_classes == 2 or facts.multi_label:
        options = {"steps": steps, "restarts": restarts}
        return [Member(name="apgd-margin", attack=apgd, options=options, objective="margin")]
    targets = {"steps": steps, "restarts": min(9 if restarts > 1 else 3, facts.n_classes - 1)}
    return [
        Member(name="apgd-ce", attack=apgd, options={"steps": steps}),
        Member(name="apgd-targeted-margin", attack=apgd, options=targets, objective="targeted-margin"),
    ]


def _segmentation(steps: int) -> list[Member]:
    """Graded scores never stop early: the second objective begins where the first one ended."""
    apgd = "attacks.apgd:APGD"
    return [
        Member(name="apgd-dice", attack=apgd, options={"steps": steps}, objective="soft-dice"),
        Member(name="apgd-ce", attack=apgd, options={"steps": steps}),
    ]


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
