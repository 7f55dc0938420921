"""The members of protocols that know the trick of a defense."""

from __future__ import annotations

from attacks.ensemble_parts import APGD, MIM, averaged
from registry import Budget, CellFacts, Member, Need, Randomness


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
        options = {"steps": 50, "restarts": 1, "eot_samples": 8}
        members.append(Member(name="apgd-eot", attack=APGD, options=options, objective="margin"))
    else:
        members.append(Member(name="apgd-margin", attack=APGD, options=long, objective="margin"))
    if facts.stages:
        bpda = {"steps": 100, "step_size": 0.1, "restarts": 2} | averaged(facts, 4)
        member = Member(
            name="pgd-bpda", attack="attacks.gradient:PGD", options=bpda, objective="margin", backward="bpda"
        )
        members.append(member)
    return tuple(members)


def purifier_members(facts: CellFacts, budget: Budget) -> tuple[Member, ...]:
    """Returns long runs against a purifier: end to end, through the identity, from its bare network, on its features.

    The gradient of a stochastic purifier is averaged over 16 draws where it is followed end to end.
    """
    stochastic, labelled = facts.randomness is not Randomness.NONE, facts.task == "classification"
    objective = "margin" if labelled else "soft-dice"
    end_to_end = {"steps": 100, "restarts": 1 if stochastic else 5} | averaged(facts, 16)
    members = [Member(name="apgd-end-to-end", attack=APGD, options=end_to_end, objective=objective)]
    if stochastic and labelled:
        members.append(Member(name="apgd-pooled", attack=APGD, options=end_to_end, objective=objective, pooled=True))
    if facts.stages:
        bpda = {"steps": 100, "step_size": 0.1, "restarts": 2} | averaged(facts, 4)
        pgd = "attacks.gradient:PGD"
        members.append(Member(name="pgd-bpda", attack=pgd, options=bpda, objective=objective, backward="bpda"))
    long = {"steps": 100, "restarts": 5}
    if facts.has_bare:
        members.append(Member(name="transfer-bare", attack=APGD, options=long, objective=objective, source=Need.BARE))
    if facts.has_mechanism and labelled:
        options, aim = {"steps": 100, "restarts": 2} | averaged(facts, 16), "feature-distance"
        members.append(Member(name="apgd-features", attack=APGD, options=options, objective=aim, source=Need.MECHANISM))
    if facts.has_twin:
        members.append(Member(name="transfer", attack=APGD, options=long, objective=objective, source=Need.TWIN))
    return tuple(members)


def straight_members(facts: CellFacts, budget: Budget) -> tuple[Member, ...]:
    """Returns momentum steps that follow gates of noise as if they did not clip, with few draws and with many.

    The gradient of a clipped gate is zero wherever it is shut or wide open, which is most of it. Of a model without
    such gates they are steps along its own gradient.
    """
    members = []
    for name, steps, draws, pooled in (("mim-straight-4", 100, 4, False), ("mim-straight-pooled-16", 50, 16, True)):
        options = {"steps": steps, "step_size": 0.1, "decay": 0.9} | averaged(facts, draws)
        aim = {"objective": "margin", "backward": "straight", "pooled": pooled}
        members.append(Member(name=name, attack=MIM, options=options, **aim))
    return tuple(members)
