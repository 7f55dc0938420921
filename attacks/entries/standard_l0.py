"""The standard ensemble for L0, a number of pixels: white-box, exhaustive, score-based and transfer attacks."""

from registry import PROTOCOLS, AttackProtocol, Budget, CellFacts, Member, Need, Norm, Paper, ThreatModel

GRID = tuple(Budget(norm=Norm.L0, eps=pixels) for pixels in (1, 3, 5, 10, 25))
FULL = Budget(norm=Norm.L0, eps=10)
"""Gets the full effort; the others draw the curve with less, which every record states."""
EXHAUSTIVE = 10_000
"""Single pixels that are tried at most: all of 28 x 28 with 8 colours, or of 64 x 64 with 2."""


def members(facts: CellFacts, budget: Budget) -> tuple[Member, ...]:
    """Returns the ensemble of a cell, the cheapest first.

    At one pixel Sparse-RS would search the set that the exhaustive attack goes through.
    """
    full = budget == FULL
    steps, restarts, queries = (100, 5, 5000) if full else (40, 5, 1000)
    pgd, ensemble = "attacks.pgd_l0:PGD0", []
    if facts.stages:  # first: through a stage without gradient the others only spend their steps
        options = {"steps": steps, "restarts": 2}
        ensemble.append(Member(name="pgd0-bpda", attack=pgd, options=options, objective="margin", backward="bpda"))
    options = {"steps": steps, "restarts": restarts}
    ensemble.append(Member(name="pgd0", attack=pgd, options=options, objective="margin"))
    if facts.n_classes > 2 and not facts.multi_label:
        targets = {"steps": steps, "restarts": min(9 if full else 3, facts.n_classes - 1)}
        ensemble.append(Member(name="pgd0-targeted", attack=pgd, options=targets, objective="targeted-margin"))
    if facts.has_twin:
        options = {"steps": steps // 2, "restarts": 2}
        ensemble.append(Member(name="transfer", attack=pgd, options=options, objective="margin", source=Need.TWIN))
    if budget.size <= 1:
        options, attack = {"queries": EXHAUSTIVE}, "attacks.one_pixel:OnePixel"
        return (*ensemble, Member(name="one-pixel", attack=attack, options=options, objective="margin"))
    options, attack = {"queries": queries}, "attacks.sparse_rs:SparseRS"
    return (*ensemble, Member(name="sparse-rs", attack=attack, options=options, objective="margin"))


PROTOCOLS.add(
    AttackProtocol(
        name="standard:l0",
        title="Worst case over an ensemble for a number of pixels: PGD0, one pixel exhaustively, Sparse-RS, transfer",
        threat_model=ThreatModel(norm=Norm.L0),
        budgets=GRID,
        tasks=("classification",),
        members=members,
        needs=frozenset({Need.TWIN}),
        ranks=True,
        reference=Paper(
            title="Sparse-RS: a versatile framework for query-efficient sparse black-box adversarial attacks",
            authors="Croce, Andriushchenko, Singh, Flammarion and Hein",
            year=2022,
            url="https://arxiv.org/abs/2006.12834",
            venue="AAAI",
        ),
    )
)
