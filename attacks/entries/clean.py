"""The clean protocol: nothing is changed; every other number is read against it."""

from registry import PROTOCOLS, AttackProtocol, Budget, CellFacts, Member, ThreatKind, ThreatModel


def members(facts: CellFacts, budget: Budget) -> tuple[Member, ...]:
    """Returns no members: nobody attacks."""
    return ()


PROTOCOLS.add(
    AttackProtocol(
        name="clean",
        title="Unchanged inputs",
        threat_model=ThreatModel(kind=ThreatKind.CLEAN),
        budgets=(),
        tasks=("classification", "segmentation"),
        members=members,
    )
)
