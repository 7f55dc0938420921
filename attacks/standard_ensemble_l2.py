"""The members of the standard protocol for L2, by number of classes, randomness, declared stages and budget."""

from __future__ import annotations

from attacks.ensemble_parts import APGD, averaged, score_based, through_parts, through_stand_ins
from registry import Budget, CellFacts, Member, Need, Randomness


def members(facts: CellFacts, budget: Budget) -> tuple[Member, ...]:
    """Returns the ensemble of a cell, the strongest for its cost first; of a stochastic defense draws are averaged."""
    full, stochastic = budget == facts.ranked_budget, facts.randomness is not Randomness.NONE
    steps, restarts, queries = (100, 5, 5000) if full else (40, 1, 200)
    draws, ensemble = averaged(facts, 16 if full else 4), []
    if facts.stages:  # first: through a stage without gradient the others only spend their steps
        bpda = {"steps": steps, "step_size": 0.1, "restarts": 1 if stochastic else min(2, restarts)} | draws
        pgd = "attacks.gradient:PGD"
        ensemble.append(Member(name="pgd-bpda", attack=pgd, options=bpda, objective="margin", backward="bpda"))
    if facts.hidden_stages:
        ensemble += through_stand_ins(facts, steps, min(2, restarts), 9 if full else 3, "margin")
    several = facts.n_classes > 2 and not facts.multi_label  # otherwise restarts take the place of targets
    options = {"steps": steps, "restarts": 1 if stochastic or several else restarts} | draws
    ensemble.append(Member(name="apgd-margin", attack=APGD, options=options, objective="margin"))
    targets = min(9 if full else 3, facts.n_classes - 1)
    if several:
        options = {"steps": steps, "restarts": targets} | averaged(facts, 4)
        ensemble.append(Member(name="apgd-targeted-margin", attack=APGD, options=options, objective="targeted-margin"))
    if stochastic:  # FAB walks along a boundary, which moves with every draw
        run, source = {"steps": steps}, Need.FROZEN_DRAW
        momentum = {"steps": steps, "step_size": 0.1, "decay": 0.9} | draws
        mim = "attacks.momentum:MIM"
        ensemble.append(Member(name="mim-pooled", attack=mim, options=momentum, objective="margin", pooled=True))
        ensemble.append(Member(name="frozen-draw", attack=APGD, options=run, objective="margin", source=source))
    elif facts.multi_label:  # several labels have no boundary to walk along
        ensemble.append(Member(name="apgd-ce", attack=APGD, options={"steps": steps, "restarts": restarts}))
    else:
        options = {"steps": steps} | ({"targets": targets} if several else {})
        aim = "targeted-margin" if several else "margin"
        ensemble.append(Member(name="fab", attack="attacks.fab:FAB", options=options, objective=aim, source="exact"))
    if facts.has_twin:
        options = {"steps": steps // 2}
        ensemble.append(Member(name="transfer", attack=APGD, options=options, objective="margin", source=Need.TWIN))
    ensemble += through_parts(facts, APGD, steps // 2, "margin", draws=16 if full else 4)
    return (*ensemble, score_based(facts, "square", "attacks.square_l2:SquareL2", queries, "margin"))
