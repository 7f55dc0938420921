"""Scores of stochastic defenses against the number of draws that their attacks average over; it never ranks."""

from registry import PROTOCOLS, AttackProtocol, Budget, CellFacts, Member, Paper, Randomness, ThreatModel, linf

APGD, MIM = "attacks.apgd:APGD", "attacks.momentum:MIM"
SWEEP = ((20, 16), (50, 32), (100, 64))
"""(steps, draws a step): 320, 1600 and 6400 draws in all."""


def sweep_members(facts: CellFacts, budget: Budget) -> tuple[Member, ...]:
    """Returns attacks of ascending numbers of draws, two of each: APGD on the mean margin of the draws, and momentum
    steps on the cross-entropy of their mean probability; of label maps both on the mean soft Dice.

    A member's `robust_after` is cumulative: it is the mean worst score over all members up to this one, on the draws
    that select candidates, and each member begins at the worst candidates of those before it. Along the members it is
    therefore the curve of score against draws, `backwards` says how many were spent, and where it still falls at its
    end the number is an upper bound. How noisy one gradient is - the cosine between two independent ones, with the
    draws behind each - stands in the record of the ranking protocol, as the values of its note `noisy-gradient`.
    """
    labelled = facts.task == "classification"
    aims = [{"objective": "margin"}, {"pooled": True}] if labelled else [{"objective": "soft-dice"}] * 2
    backward = "bpda" if facts.hidden_stages else "true"  # behind a stage without gradient no number of draws helps
    members = []
    for steps, draws in SWEEP:
        effort = {"steps": steps, "eot_samples": draws}
        momentum, total = effort | {"step_size": 0.1, "decay": 0.9}, steps * draws
        members += [
            Member(name=f"apgd-{total}", attack=APGD, options=effort, backward=backward, **aims[0]),
            Member(
                name=f"mim-{'pooled-' * labelled}{total}", attack=MIM, options=momentum, backward=backward, **aims[1]
            ),
        ]
    return tuple(members)


PROTOCOLS.add(
    AttackProtocol(
        name="adaptive:eot-sweep",
        title="Expectation over transformation with 320, 1600 and 6400 draws in all; scores after each member are "
        "cumulative, and an upper bound while they still fall",
        threat_model=ThreatModel(),
        budgets=(linf(4 / 255), linf(8 / 255)),
        tasks=("classification", "segmentation"),
        members=sweep_members,
        randomness=frozenset({Randomness.SAMPLE, Randomness.MODEL}),
        reference=Paper(
            title="Synthesizing Robust Adversarial Examples",
            authors="Athalye et al.",
            year=2018,
            url="https://arxiv.org/abs/1707.07397",
            venue="ICML",
        ),
    )
)
