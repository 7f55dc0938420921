"""The standard ensemble for L0, a number of pixels: white-box, exhaustive, score-based and transfer attacks."""

from registry import PROTOCOLS, AttackProtocol, Budget, Need, Norm, Paper, ThreatModel

GRID = tuple(Budget(norm=Norm.L0, eps=pixels) for pixels in (1, 3, 5, 10, 25))
FULL = Budget(norm=Norm.L0, eps=10)
"""Gets the full effort; the others draw the curve with less, which every record states."""

PROTOCOLS.add(
    AttackProtocol(
        name="standard:l0",
        title="Worst case over an ensemble for a number of pixels: PGD0, Sparse-RS (in grey values, too), transfer, "
        "one pixel exhaustively",
        threat_model=ThreatModel(norm=Norm.L0),
        budgets=GRID,
        tasks=("classification",),
        members="attacks.standard_ensemble_l0:members",
        needs=frozenset({Need.TWIN}),
        ranks=True,
        ranked_budget=FULL,
        revision=2,
        reference=Paper(
            title="Sparse-RS: a versatile framework for query-efficient sparse black-box adversarial attacks",
            authors="Croce, Andriushchenko, Singh, Flammarion and Hein",
            year=2022,
            url="https://arxiv.org/abs/2006.12834",
            venue="AAAI",
        ),
    )
)
