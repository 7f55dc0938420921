"""The members of the protocol that ranks, by task, randomness, declared stages and budget."""

from __future__ import annotations

from collections.abc import Mapping

from attacks.ensemble_parts import APGD, MIM, averaged, score_based, through_parts, through_stand_ins
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
        ensemble = _stochastic(facts, name, objective)
    if facts.stages:  # first: through a stage without gradient the others only spend their steps
        bpda = {"steps": steps, "step_size": 0.1, "restarts": 1 if stochastic else min(2, restarts)}
        bpda |= averaged(facts, 4)
        ensemble.insert(
            0,
            Member(name="pgd-bpda", attack="attacks.gradient:PGD", options=bpda, objective=objective, backward="bpda"),
        )
    if facts.hidden_stages and facts.task == "segmentation" and not stochastic:
        ensemble[1:1] = segmentation_members(full=name != "curve", backward="bpda")
    elif facts.hidden_stages:
        ensemble[1:1] = through_stand_ins(facts, steps, min(2, restarts), 9 if name == "full" else 3, objective)
    if facts.has_twin:
        options = {"steps": steps // 2}
        ensemble.append(Member(name="transfer", attack=APGD, options=options, objective=objective, source=Need.TWIN))
    ensemble += through_parts(facts, APGD, steps // 2, objective, draws=16 if name == "full" else 4)
    return (*ensemble, score_based(facts, "square", "attacks.square:Square", queries, objective))


def _classification(facts: CellFacts, effort: Mapping[str, int]) -> list[Member]:
    """With 2 classes cross-entropy and margin have parallel input gradients: restarts take the place of targets.

    FAB is searched in full precision: it lives on the boundary, where a rounded copy decides otherwise. Several labels
    have no such boundary: cross-entropy, which never saturates, takes its place.
    """
    fab, steps, restarts = "attacks.fab:FAB", effort["steps"], effort["restarts"]
    if facts.multi_label:
        options = {"steps": steps, "restarts": restarts}
        return [
            Member(name="apgd-ce", attack=APGD, options=options),
            Member(name="apgd-margin", attack=APGD, options=options, objective="margin"),
        ]
    if facts.n_classes == 2:
        options = {"steps": steps, "restarts": restarts}
        return [
            Member(name="apgd-margin", attack=APGD, options=options, objective="margin"),
            Member(name="fab", attack=fab, options={"steps": effort["fab"]}, objective="margin", source="exact"),
        ]
    targets = min(9 if restarts > 1 else 3, facts.n_classes - 1)
    options, boundary = {"steps": steps, "restarts": targets}, {"steps": effort["fab"], "targets": targets}
    return [
        Member(name="apgd-ce", attack=APGD, options={"steps": steps}),
        Member(name="apgd-targeted-margin", attack=APGD, options=options, objective="targeted-margin"),
        Member(name="fab-targeted", attack=fab, options=boundary, objective="targeted-margin", source="exact"),
    ]


def _stochastic(facts: CellFacts, effort: str, objective: str) -> list[Member]:
    """Draws are swept: one noisy gradient is weak, and many steps with few draws may beat few with many.

    Runs with few draws are repeated; of several classes each is a target, too. A step of APGD is as long as its best
    noisy value allows, and one lucky draw shortens it: momentum steps of one length stand beside it. No budget but the
    full one says more than an upper bound.
    """
    sweep = {"full": ((1, 2), (4, 2), (16, 3)), "middle": ((1, 1), (4, 1)), "curve": ((4, 1),)}[effort]
    steps = 40 if effort == "curve" else 100

    def apgd(name: str, draws: int, restarts: int = 1, objective: str = objective, **more) -> Member:
        options = {"steps": steps, "restarts": restarts, "eot_samples": draws}
        return Member(name=name, attack=APGD, options=options, objective=objective, **more)

    members = [apgd(f"apgd-eot{draws}", draws, restarts) for draws, restarts in sweep]
    most = sweep[-1][0]
    momentum = {"steps": steps, "step_size": 0.1, "decay": 0.9}
    for name, draws, pooled in (("mim-eot4", 4, False), (f"mim-pooled{most}", most, True)):
        options = momentum | {"eot_samples": draws}
        members.append(Member(name=name, attack=MIM, options=options, objective=objective, pooled=pooled))
    if effort == "full" and facts.task == "classification":  # averaged over draws, it is not parallel to the margin
        members.append(apgd(f"apgd-ce-eot{most}", most, 1, "cross-entropy"))
    if facts.task == "segmentation":
        members.append(apgd("apgd-sharp-eot4", 4, 1, "sharp-dice"))
    if facts.task == "classification" and facts.n_classes > 2 and not facts.multi_label:
        targets = min(9 if effort == "full" else 3, facts.n_classes - 1)
        members.append(apgd("apgd-targeted-eot4", 4, targets, "targeted-margin"))
    return [*members, apgd("frozen-draw", 1, source=Need.FROZEN_DRAW)]
