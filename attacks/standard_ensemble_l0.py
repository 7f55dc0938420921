"""The members of the standard protocol for a number of pixels, by number of classes, randomness and budget."""

from __future__ import annotations

from dataclasses import replace

from attacks.ensemble_parts import averaged, score_based, through_parts
from registry import Budget, CellFacts, Member, Need, Randomness

LIMITS = {"inner": {"inset": 0.15}, "near": {"most_change": 0.3}}
"""Values that filters of single pixels let through: grey ones, and those near the original's."""
EXHAUSTIVE = 10_000
"""Single pixels that are tried at most, each colour of each: all of 28 x 28 in 8 colours or 9 grey levels."""


def members(facts: CellFacts, budget: Budget) -> tuple[Member, ...]:
    """Returns the ensemble of a cell; of a stochastic defense draws are averaged.

    Single pixels and Sparse-RS ask the model in full precision: of all that they try only one candidate is judged.

    One pixel is tried exhaustively in 9 grey levels or 8 corner colours as far as `EXHAUSTIVE` goes; Sparse-RS searches
    the rest. At the end both run again, for less long, with each of `LIMITS`. At the ranked budget PGD takes 300 steps:
    of 61 right images of BreastMNIST 5 restarts of 100 leave 17 with 10 pixels, 20 more of 100 leave 14 of these, 5
    more of 300 leave 12.
    """
    full, stochastic, draws = budget == facts.ranked_budget, facts.randomness is not Randomness.NONE, averaged(facts, 4)
    steps, few, restarts, queries = (300, 50, 5, 5000) if full else (40, 20, 5, 1000)
    pgd, ensemble = "attacks.pgd_l0:PGD0", []
    if facts.stages:  # first: through a stage without gradient the others only spend their steps
        ensemble += _pgd0(facts, steps, restarts, full, "bpda")
    ensemble += _pgd0(facts, steps, restarts, full, "true")
    if facts.has_twin:
        options = {"steps": few, "restarts": 2}
        ensemble.append(Member(name="transfer", attack=pgd, options=options, objective="margin", source=Need.TWIN))
    if stochastic:
        options, source = {"steps": steps, "restarts": 2}, Need.FROZEN_DRAW
        ensemble.append(Member(name="frozen-draw", attack=pgd, options=options, objective="margin", source=source))
    ensemble += through_parts(facts, pgd, few, "margin", draws=4, restarts=3)
    if budget.size <= 1:
        options, attack = {"queries": EXHAUSTIVE, "grey_levels": 9} | draws, "attacks.one_pixel:OnePixel"
        ensemble.append(Member(name="one-pixel", attack=attack, options=options, objective="margin", source="exact"))
    return (*ensemble, _sparse_rs(facts, "sparse-rs", queries), *_within_limits(facts, few, queries // 5))


def _within_limits(facts: CellFacts, steps: int, queries: int) -> list[Member]:
    """Returns attacks whose values stand out little, or are neither black nor white, for filters that replace such.

    Against a model that replaces values within 0.1 of 0 and 1 (BreastMNIST, n 24, 10 pixels) 33 % survive PGD0 (100
    steps, 5 restarts) and Sparse-RS (3,000 queries) without limits; PGD0 (50 steps, 3 restarts) and Sparse-RS (1,000
    queries) with the inset alone leave 12 %.
    """
    options = {"steps": steps, "restarts": 3} | averaged(facts, 4)
    backward, members = "bpda" if facts.stages else "true", []
    for name, limit in LIMITS.items():
        pgd = {"attack": "attacks.pgd_l0:PGD0", "objective": "margin", "backward": backward}
        members.append(Member(name=f"pgd0-{name}", options=options | limit, **pgd))
    return members + [_sparse_rs(facts, f"sparse-rs-{name}", queries, **limit) for name, limit in LIMITS.items()]


def _sparse_rs(facts: CellFacts, name: str, queries: int, **limit: float) -> Member:
    search = score_based(facts, name, "attacks.sparse_rs:SparseRS", queries, "margin")
    return replace(search, options={**search.options, **limit}, source="exact")


def _pgd0(facts: CellFacts, steps: int, restarts: int, full: bool, backward: str) -> list[Member]:
    """Returns PGD on the margin, and of several classes on targets, in two rounds of which the second steps shorter.

    Where there are more wrong classes than a round has targets, the second round aims at further ones first.
    """
    pgd, suffix = "attacks.pgd_l0:PGD0", "-bpda" if backward == "bpda" else ""
    options = {"steps": steps, "restarts": restarts} | averaged(facts, 4)
    members = [Member(name=f"pgd0{suffix}", attack=pgd, options=options, objective="margin", backward=backward)]
    if facts.n_classes > 2 and not facts.multi_label:
        targets = min(9 if full else 3, facts.n_classes - 1)
        options = options | {"restarts": 2 * targets, "targets": targets}
        name, aim = f"pgd0-targeted{suffix}", "targeted-margin"
        members.append(Member(name=name, attack=pgd, options=options, objective=aim, backward=backward))
    return members
