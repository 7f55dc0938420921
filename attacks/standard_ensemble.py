"""The members of the protocol that ranks, by task, randomness, declared stages and budget."""

from __future__ import annotations

from collections.abc import Mapping

from attacks.segmentation_members import segmentation_members
from registry import Budget, CellFacts, Member, Need, Randomness, linf

EFFORTS = {
    "full": {"steps": 100, "restarts": 5, "fab": 100, "queries": 5000, "segmentation_queries": 500},
    "middle": {"steps": 100, "restarts": 1, "fab": 50, "queries": 1000, "segmentation_queries": 100},
    "curve": {"steps": 40, "restarts": 1, "fab": 20, "queries": 200, "segmentation_queries": 50},
}
"""Options of the members by effort."""


def members(facts: CellFacts, budget: Budget) -> tuple[Member, ...]:
    """Returns the ensemble of a cell, the strongest for its cost first.

    The ranked budget gets the full effort, Linf 4/255 a middle one where it is not ranked; the others draw the curve
    with less. Every record states what was spent.
    """
    name = "full" if budget == facts.ranked_budget else "middle" if budget == linf(4 / 255) else "curve"
    effort = EFFORTS[name]
    steps, restarts, queries = effort["steps"], effort["restarts"], effort["queries"]
    objective = "margin"
    if facts.task == "segmentation":
        queries, objective = effort["segmentation_queries"], "soft-dice"
        ensemble = segmentation_members(full=name != "curve")
    else:
        ensemble = _classification(facts, effort)
    stochastic = facts.randomness is not Randomness.NONE
    if stochastic:
        ensemble = _stochastic(name, objective)
    if facts.stages:  # first: through a stage without gradient the others only spend their steps
        bpda = {"steps": steps, "step_size": 0.1, "restarts": min(2, restarts)}
        ensemble.insert(
            0,
            Member(name="pgd-bpda", attack="attacks.gradient:PGD", options=bpda, objective=objective, backward="bpda"),
        )
    if facts.has_twin:
        options = {"steps": steps // 2}
        ensemble.append(
            Member(name="transfer", attack="attacks.apgd:APGD", options=options, objective=objective, source=Need.TWIN)
        )
    ensemble += _through_parts(facts, steps, objective, effort=name)
    options = {"queries": queries}
    if stochastic:
        options = {"queries": queries // 4, "eot_samples": 4}  # the same number of evaluations
    square = Member(
        name="square", attack="attacks.square:Square", options=options, objective=objective, pooled=stochastic
    )
    return (*ensemble, square)


def _through_parts(facts: CellFacts, steps: int, objective: str, *, effort: str) -> list[Member]:
    """Attacks that know what a defense of several parts is made of: its bare network, and the features it lives on."""
    apgd, members = "attacks.apgd:APGD", []
    draws = 16 if effort == "full" else 4
    options = {"steps": steps // 2} | ({"eot_samples": draws} if facts.randomness is not Randomness.NONE else {})
    if facts.has_bare:
        bare = {"steps": steps // 2}
        members.append(Member(name="transfer-bare", attack=apgd, options=bare, objective=objective, source=Need.BARE))
    if facts.has_mechanism and facts.task == "classification":
        aimed = {"objective": "feature-distance", "source": Need.MECHANISM}
        members.append(Member(name="apgd-features", attack=apgd, options=options, **aimed))
    return members


def _classification(facts: CellFacts, effort: Mapping[str, int]) -> list[Member]:
    """With 2 classes cross-entropy and margin have parallel input gradients: restarts take the place of targets.

    FAB is searched in full precision: it lives on the boundary, where a rounded copy decides otherwise.
    """
    apgd, fab, steps, restarts = "attacks.apgd:APGD", "attacks.fab:FAB", effort["steps"], effort["restarts"]
    if facts.n_classes == 2 or facts.multi_label:
        options = {"steps": steps, "restarts": restarts}
        return [
            Member(name="apgd-margin", attack=apgd, options=options, objective="margin"),
            Member(name="fab", attack=fab, options={"steps": effort["fab"]}, objective="margin", source="exact"),
        ]
    targets = min(9 if restarts > 1 else 3, facts.n_classes - 1)
    options, boundary = {"steps": steps, "restarts": targets}, {"steps": effort["fab"], "targets": targets}
    return [
        Member(name="apgd-ce", attack=apgd, options={"steps": steps}),
        Member(name="apgd-targeted-margin", attack=apgd, options=options, objective="targeted-margin"),
        Member(name="fab-targeted", attack=fab, options=boundary, objective="targeted-margin", source="exact"),
    ]


def _stochastic(effort: str, objective: str) -> list[Member]:
    """Draws are swept: one noisy gradient is weak, and many steps with few draws may beat few with many."""
    sweep, steps = {"full": ((1, 4, 16), 100), "middle": ((1, 4), 100), "curve": ((4,), 40)}[effort]

    def apgd(name: str, draws: int, **options) -> Member:
        return Member(
            name=name,
            attack="attacks.apgd:APGD",
            options={"steps": steps, "eot_samples": draws},
            objective=objective,
            **options,
        )

    return [
        *(apgd(f"apgd-eot{draws}", draws) for draws in sweep),
        apgd(f"apgd-pooled{sweep[-1]}", sweep[-1], pooled=True),
        apgd("frozen-draw", 1, source=Need.FROZEN_DRAW),
    ]
