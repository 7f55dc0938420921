"""Published attack libraries as protocols of their own: they never rank, but lower the best-known number."""

from registry import PROTOCOLS, AttackProtocol, Budget, CellFacts, Member, Paper, ThreatModel, linf


def autoattack_members(facts: CellFacts, budget: Budget) -> tuple[Member, ...]:
    """Returns the published AutoAttack as one member; it runs its own cascade."""
    return (Member(name="autoattack", attack="attacks.third_party:PublishedAutoAttack"),)


def torchattacks_members(facts: CellFacts, budget: Budget) -> tuple[Member, ...]:
    """Returns PGD-40 and MI-FGSM-10 of torchattacks, with the step sizes of their papers relative to eps."""
    eps = budget.size
    pgd = {"name": "PGD", "alpha": eps / 10, "steps": 40}
    momentum = {"name": "MIFGSM", "alpha": eps / 5, "steps": 10}
    return (
        Member(name="torchattacks-pgd-40", attack="attacks.third_party:Torchattacks", options=pgd),
        Member(name="torchattacks-mifgsm-10", attack="attacks.third_party:Torchattacks", options=momentum),
    )


PROTOCOLS.add(
    AttackProtocol(
        name="reference:autoattack",
        title="The published AutoAttack, with the members that exist for the number of classes",
        threat_model=ThreatModel(),
        budgets=(linf(4 / 255), linf(8 / 255)),
        tasks=("classification",),
        one_label=True,
        members=autoattack_members,
        reference=Paper(
            title="Reliable evaluation of adversarial robustness with an ensemble of diverse parameter-free attacks",
            authors="Croce and Hein",
            year=2020,
            url="https://arxiv.org/abs/2003.01690",
            venue="ICML",
        ),
    )
)
PROTOCOLS.add(
    AttackProtocol(
        name="reference:torchattacks",
        title="PGD-40 and MI-FGSM-10 as the package torchattacks runs them",
        threat_model=ThreatModel(),
        budgets=(linf(4 / 255), linf(8 / 255)),
        tasks=("classification",),
        one_label=True,
        members=torchattacks_members,
        reference=Paper(
            title="Torchattacks: a PyTorch repository for adversarial attacks",
            authors="Kim",
            year=2020,
            url="https://arxiv.org/abs/2010.01950",
        ),
    )
)
