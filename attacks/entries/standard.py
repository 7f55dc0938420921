"""The protocol that ranks: an ensemble of white-box, transfer and score-based attacks; only its worst case counts."""

from registry import PROTOCOLS, AttackProtocol, Need, Paper, ThreatModel, linf

GRID = tuple(linf(level / 255) for level in (1, 2, 4, 8, 16, 32))

PROTOCOLS.add(
    AttackProtocol(
        name="standard",
        title="Worst case over an ensemble: APGD, FAB, BPDA, transfer from the undefended twin, Square",
        threat_model=ThreatModel(),
        budgets=GRID,
        tasks=("classification", "segmentation"),
        members="attacks.standard_ensemble:members",
        needs=frozenset({Need.TWIN}),
        ranks=True,
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
