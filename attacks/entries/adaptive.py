"""Attacks that know the trick of a defense; they never rank, but lower the best-known number."""

from registry import (
    PROTOCOLS,
    AttackProtocol,
    Budget,
    CellFacts,
    Family,
    Member,
    Need,
    Paper,
    Randomness,
    ThreatModel,
    linf,
)

APGD = "attacks.apgd:APGD"


def bare_members(facts: CellFacts, budget: Budget) -> tuple[Member, ...]:
    """Returns long runs that follow the undefended network; on a stochastic victim also its own averaged gradient.

    For wrappers around the undefended model this is the attack that strips the wrapper: its steps come from the bare
    network, and each of its points is scored through the wrapper.
    """
    long = {"steps": 100, "restarts": 5}
    members = []
    if facts.has_twin:
        members.append(Member(name="apgd-bare", attack=APGD, options=long, objective="margin", source=Need.TWIN))
    if facts.randomness is not Randomness.NONE:
        averaged = {"steps": 50, "restarts": 1, "eot_samples": 8}
        members.append(Member(name="apgd-eot", attack=APGD, options=averaged, objective="margin"))
    else:
        members.append(Member(name="apgd-margin", attack=APGD, options=long, objective="margin"))
    if facts.stages:
        bpda = {"steps": 100, "step_size": 0.1, "restarts": 2}
        member = Member(
            name="pgd-bpda", attack="attacks.gradient:PGD", options=bpda, objective="margin", backward="bpda"
        )
        members.append(member)
    return tuple(members)


def purifier_members(facts: CellFacts, budget: Budget) -> tuple[Member, ...]:
    """Returns long runs against a purifier: end to end, through the identity, from its bare network, on its features.

    The gradient of a stochastic purifier is averaged over 16 draws where it is followed end to end.
    """
    stochastic = facts.randomness is not Randomness.NONE
    averaged = {"eot_samples": 16} if stochastic else {}
    end_to_end = {"steps": 100, "restarts": 1 if stochastic else 5} | averaged
    members = [Member(name="apgd-end-to-end", attack=APGD, options=end_to_end, objective="margin")]
    if stochastic:
        members.append(Member(name="apgd-pooled", attack=APGD, options=end_to_end, objective="margin", pooled=True))
    if facts.stages:
        bpda = {"steps": 100, "step_size": 0.1, "restarts": 2}
        pgd = "attacks.gradient:PGD"
        members.append(Member(name="pgd-bpda", attack=pgd, options=bpda, objective="margin", backward="bpda"))
    long = {"steps": 100, "restarts": 5}
    if facts.has_bare:
        members.append(Member(name="transfer-bare", attack=APGD, options=long, objective="margin", source=Need.BARE))
    if facts.has_mechanism:
        options, aim = {"steps": 100, "restarts": 2} | averaged, "feature-distance"
        members.append(Member(name="apgd-features", attack=APGD, options=options, objective=aim, source=Need.MECHANISM))
    if facts.has_twin:
        members.append(Member(name="transfer", attack=APGD, options=long, objective="margin", source=Need.TWIN))
    return tuple(members)


PROTOCOLS.add(
    AttackProtocol(
        name="adaptive:bare",
        title="Long white-box runs on the undefended network, each point scored through the defense",
        threat_model=ThreatModel(),
        budgets=(linf(4 / 255), linf(8 / 255)),
        tasks=("classification",),
        members=bare_members,
        needs=frozenset({Need.TWIN}),
    )
)
PROTOCOLS.add(
    AttackProtocol(
        name="adaptive:purifier",
        title="Long runs against a purifier: end to end, BPDA, from its bare network, on its features",
        threat_model=ThreatModel(),
        budgets=(linf(4 / 255), linf(8 / 255)),
        tasks=("classification",),
        members=purifier_members,
        needs=frozenset({Need.TWIN}),
        families=frozenset({Family.PURIFICATION}),
        reference=Paper(
            title="Evaluating the Adversarial Robustness of Adaptive Test-time Defenses",
            authors="Croce et al.",
            year=2022,
            url="https://arxiv.org/abs/2202.13711",
            venue="ICML",
        ),
    )
)
