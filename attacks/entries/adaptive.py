"""Attacks that know the trick of a defense; they never rank, but lower the best-known number."""

from registry import PROTOCOLS, AttackProtocol, Budget, CellFacts, Member, Need, Randomness, ThreatModel, linf

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
