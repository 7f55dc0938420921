"""What the standard ensembles of all norms share: averaged gradients, and attacks on the parts of a defense."""

from __future__ import annotations

from registry import CellFacts, Member, Need, Randomness

APGD, MIM = "attacks.apgd:APGD", "attacks.momentum:MIM"
"""Gradient attacks of the ensembles in Linf and L2."""


def averaged(facts: CellFacts, draws: int) -> dict[str, int]:
    """Returns the option that averages answers over draws of a stochastic defense; nothing for a deterministic one."""
    return {} if facts.randomness is Randomness.NONE else {"eot_samples": draws}


def through_stand_ins(facts: CellFacts, steps: int, restarts: int, targets: int, objective: str) -> list[Member]:
    """Returns attacks through the stand-ins of stages that hide their gradient: all others get none from them.

    Auto-PGD, or steps with momentum where draws make its step sizes a matter of luck; at every target where there are
    several classes.

    Args:
        facts: What the cell is.
        steps: Gradient steps.
        restarts: Runs on the objective.
        targets: Classes that are aimed at, at most.
        objective: What is ascended.
    """
    noisy = facts.randomness is not Randomness.NONE
    attack, name = (MIM, "mim") if noisy else (APGD, "apgd")
    options = {"steps": steps} | ({"step_size": 0.1, "decay": 0.9} if noisy else {}) | averaged(facts, 16)
    through = {"attack": attack, "backward": "bpda"}
    members = [
        Member(name=f"{name}-bpda", options=options | {"restarts": restarts}, objective=objective, **through),
    ]
    if facts.task == "classification" and facts.n_classes > 2 and not facts.multi_label:
        options = options | {"restarts": min(targets, facts.n_classes - 1)} | averaged(facts, 4)
        aim = "targeted-margin"
        members.append(Member(name=f"{name}-targeted-bpda", options=options, objective=aim, **through))
    return members


def through_parts(
    facts: CellFacts, attack: str, steps: int, objective: str, *, draws: int, restarts: int = 1
) -> list[Member]:
    """Returns attacks that know what a defense is made of: its bare network, and the features it lives on.

    Args:
        facts: What the defense shows.
        attack: Reference of a gradient attack in the norm of the ensemble.
        steps: Gradient steps.
        objective: What is ascended on the bare network.
        draws: Draws averaged in each gradient of a stochastic defense's features.
        restarts: Runs on the features. One that begins at the original learns nothing: the distance is flat there.
    """
    members, options = [], {"steps": steps}
    if facts.has_bare:
        members.append(
            Member(name="transfer-bare", attack=attack, options=options, objective=objective, source=Need.BARE)
        )
    if facts.has_mechanism and facts.task == "classification":
        options = options | averaged(facts, draws) | ({"restarts": restarts} if restarts > 1 else {})
        aim = {"objective": "feature-distance", "source": Need.MECHANISM}
        name = f"{attack.rpartition(':')[2].lower()}-features"
        members.append(Member(name=name, attack=attack, options=options, **aim))
    return members


def score_based(facts: CellFacts, name: str, attack: str, queries: int, objective: str) -> Member:
    """Returns a score-based attack; against a stochastic defense the same number of evaluations, four a query.

    It climbs the mean objective of the draws: that of their mean probability hangs on the scale of the logits.
    """
    if facts.randomness is Randomness.NONE:
        return Member(name=name, attack=attack, options={"queries": queries}, objective=objective)
    options = {"queries": queries // 4, "eot_samples": 4}
    return Member(name=name, attack=attack, options=options, objective=objective)
