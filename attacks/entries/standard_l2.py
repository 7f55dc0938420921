"""The standard ensemble for L2: white-box, transfer and score-based attacks; only its worst case counts."""

from registry import PROTOCOLS, AttackProtocol, Budget, CellFacts, Member, Need, Norm, Paper, ThreatModel

GRID = tuple(Budget(norm=Norm.L2, eps=eps) for eps in (0.25, 0.5, 1.0))
FULL = Budget(norm=Norm.L2, eps=0.5)
"""Gets the full effort; the others draw the curve with less, which every record states."""


def members(facts: CellFacts, budget: Budget) -> tuple[Member, ...]:
    """Returns the ensemble of a cell, the strongest for its cost first."""
    full = budget == FULL
    steps, restarts, queries = (100, 5, 5000) if full else (40, 1, 200)
    apgd, ensemble = "attacks.apgd:APGD", []
    if facts.stages:  # first: through a stage without gradient the others only spend their steps
        bpda = {"steps": steps, "step_size": 0.1, "restarts": 2 if full else 1}
        pgd = "attacks.gradient:PGD"
        ensemble.append(Member(name="pgd-bpda", attack=pgd, options=bpda, objective="margin", backward="bpda"))
    if facts.n_classes == 2 or facts.multi_label:  # cross-entropy and margin have parallel gradients
        options = {"steps": steps, "restarts": restarts}
        ensemble.append(Member(name="apgd-margin", attack=apgd, options=options, objective="margin"))
        fab_options, aim = {"steps": steps}, "margin"
    else:
        targets = {"steps": steps, "restarts": min(9 if full else 3, facts.n_classes - 1)}
        ensemble.append(Member(name="apgd-margin", attack=apgd, options={"steps": steps}, objective="margin"))
        ensemble.append(Member(name="apgd-targeted-margin", attack=apgd, options=targets, objective="targeted-margin"))
        fab_options, aim = {"steps": steps, "targets": targets["restarts"]}, "targeted-margin"
    ensemble.append(Member(name="fab", attack="attacks.fab:FAB", options=fab_options, objective=aim, source="exact"))
    if facts.has_twin:
        options = {"steps": steps // 2}
        ensemble.append(Member(name="transfer", attack=apgd, options=options, objective="margin", source=Need.TWIN))
    square = {"queries": queries}
    return (*ensemble, Member(name="square", attack="attacks.square_l2:SquareL2", options=square, objective="margin"))


PROTOCOLS.add(
    AttackProtocol(
        name="standard:l2",
        title="Worst case over an ensemble for L2: APGD, FAB, BPDA, transfer from the undefended twin, Square",
        threat_model=ThreatModel(norm=Norm.L2),
        budgets=GRID,
        tasks=("classification",),
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
