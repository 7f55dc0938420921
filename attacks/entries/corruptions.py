"""Clinical corruptions, not attacks: noise, blur, contrast and compression at severity 1 to 5.

Every image is changed once, by a draw that depends on seed, severity and sample alone. A number is the mean score of
the changed images at one severity: no worst case over draws, severities or the unchanged image, so that it may be
above the clean score. Severities are not budgets of an attacker, and these protocols never rank.
"""

from registry import (
    PROTOCOLS,
    AttackProtocol,
    Budget,
    CellFacts,
    Knowledge,
    Member,
    Norm,
    Paper,
    ThreatKind,
    ThreatModel,
)

SEVERITIES = tuple(Budget(norm=Norm.SEVERITY, eps=severity) for severity in (1, 2, 3, 4, 5))
TITLES = {
    "poisson": "Poisson noise, at white of deviation 0.1, 0.2, 0.3, 0.4, 0.5 (MI-Protector gives lambda, no formula)",
    "gaussian": "Gaussian noise of deviation 0.04, 0.06, 0.08, 0.09, 0.10",
    "impulse": "Salt and pepper on 1, 2, 3, 5, 7 % of the values",
    "blur": "Gaussian blur of deviation 0.4, 0.6, 0.7, 0.8, 1 pixels at an edge of 32",
    "contrast": "Contrast reduced to 75, 50, 40, 30, 15 %",
    "jpeg": "JPEG of quality 80, 65, 58, 50, 40",
}


def changed_by(kind: str):
    """Returns the function that gives a cell's one member: the corruption of this name at the budget's severity."""

    def members(facts: CellFacts, budget: Budget) -> tuple[Member, ...]:
        options = {"kind": kind, "severity": int(budget.size)}
        return (Member(name=kind, attack="attacks.corruptions:Corruption", options=options),)

    return members


for name, title in TITLES.items():
    PROTOCOLS.add(
        AttackProtocol(
            name=f"corruption:{name}",
            title=title,
            threat_model=ThreatModel(kind=ThreatKind.CORRUPTION, norm=Norm.SEVERITY, knowledge=Knowledge.TRANSFER),
            budgets=SEVERITIES,
            tasks=("classification", "segmentation"),
            members=changed_by(name),
            cascades=False,
            reference=Paper(
                title="Benchmarking Neural Network Robustness to Common Corruptions and Perturbations",
                authors="Hendrycks and Dietterich",
                year=2019,
                url="https://arxiv.org/abs/1903.12261",
                venue="ICLR",
            ),
        )
    )
