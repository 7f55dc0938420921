"""The standard ensemble for L2: white-box, transfer and score-based attacks; only its worst case counts."""

from registry import PROTOCOLS, AttackProtocol, Budget, Need, Norm, Paper, ThreatModel

GRID = tuple(Budget(norm=Norm.L2, eps=eps) for eps in (0.25, 0.5, 1.0))
FULL = Budget(norm=Norm.L2, eps=0.5)
"""Gets the full effort; the others draw the curve with less, which every record states."""

PROTOCOLS.add(
    AttackProtocol(
        name="standard:l2",
        title="Worst case over an ensemble for L2: APGD, FAB, BPDA, transfer from the undefended twin, Square",
        threat_model=ThreatModel(norm=Norm.L2),
        budgets=GRID,
        tasks=("classification",),
        members="attacks.standard_ensemble_l2:members",
        needs=frozenset({Need.TWIN}),
        ranks=True,
        ranked_budget=FULL,
        revision=2,
        reference=Paper(
            title="Reliable evaluation of adversarial robustness with an ensemble of diverse parameter-free attacks",
            authors="Croce and Hein",
            year=2020,
            url="https://arxiv.org/abs/2003.01690",
            venue="ICML",
        ),
    )
)
