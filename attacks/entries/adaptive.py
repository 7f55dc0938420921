"""Attacks that know the trick of a defense; they never rank, but lower the best-known number."""

from registry import PROTOCOLS, AttackProtocol, Family, Need, Paper, Randomness, ThreatModel, linf

PROTOCOLS.add(
    AttackProtocol(
        name="adaptive:bare",
        title="Long white-box runs on the undefended network, each point scored through the defense",
        threat_model=ThreatModel(),
        budgets=(linf(4 / 255), linf(8 / 255)),
        tasks=("classification",),
        members="attacks.adaptive_members:bare_members",
        needs=frozenset({Need.TWIN}),
        revision=2,
    )
)
PROTOCOLS.add(
    AttackProtocol(
        name="adaptive:purifier",
        title="Long runs against a purifier: end to end, BPDA, from its bare network, on its features",
        threat_model=ThreatModel(),
        budgets=(linf(4 / 255), linf(8 / 255)),
        tasks=("classification", "segmentation"),
        members="attacks.adaptive_members:purifier_members",
        needs=frozenset({Need.TWIN}),
        revision=2,
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
PROTOCOLS.add(
    AttackProtocol(
        name="adaptive:straight-through",
        title="Gates of noise on the way back as if they did not clip (straight-through), averaged over 4 and 16 draws",
        threat_model=ThreatModel(),
        budgets=(linf(4 / 255), linf(8 / 255)),
        tasks=("classification",),
        members="attacks.adaptive_members:straight_members",
        families=frozenset({Family.NOISE_INJECTION}),
        randomness=frozenset({Randomness.SAMPLE}),
        reference=Paper(
            title="Estimating or Propagating Gradients Through Stochastic Neurons for Conditional Computation",
            authors="Bengio et al.",
            year=2013,
            url="https://arxiv.org/abs/1308.3432",
            venue="arXiv",
        ),
    )
)
