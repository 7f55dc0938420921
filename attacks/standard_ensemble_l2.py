"""The members of the standard protocol for L2, by number of classes, randomness, declared stages and budget."""

from __future__ import annotations

from attacks.ensemble_parts import averaged, score_based, through_parts
from registry import Budget, CellFacts, Member, Need, Randomness


def members(facts: CellFacts, budget: Budget) -> tuple[Member, ...]:
    """Returns the ensemble of a cell, the strongest for its cost first; of a stochastic defense draws are averaged."""
    full, stochastic = budget == facts.ranked_budget, facts.randomness is not Randomness.NONE
    steps, restarts, queries = (100, 5, 5000) if full else (40, 1, 200)
    restarts, draws = (1, averaged(facts, 16 if full else 4)) if stochastic else (restarts, {})
    apgd, ensemble = "attacks.apgd:APGD", []
    if facts.stages:  # first: through a stage without gradient the others only spend their steps
        bpda = {"steps": steps, "step_size": 0.1, "restarts": 2 if full and not stochastic else 1} | draws
        pgd = "attacks.gradient:PGD"
        ensemble.append(Member(name="pgd-bpda", attack=pgd, options=bpda, objective="margin", backward="bpda"))
    if facts.n_classes == 2 or facts.multi_label:  # cross-entropy and margin have parallel gradients
        options = {"steps": steps, "restarts": restarts} | draws
        ensemble.append(Member(name="apgd-margin", attack=apgd, options=options, objective="margin"))
        fab_options, aim = {"steps": steps}, "margin"
    else:
        targets = {"steps": steps, "restarts": min(9 if full else 3, facts.n_classes - 1)} | averaged(facts, 4)
        ensemble.append(Member(name="apgd-margin", attack=apgd, options={"steps": steps} | draws, objective="margin"))
        ensemble.append(Member(name="apgd-targeted-margin", attack=apgd, options=targets, objective="targeted-margin"))
        fab_options, aim = {"steps": steps, "targets": targets["restarts"]}, "targeted-margin"
    if stochastic:  # FAB walks along a boundary, which moves with every draw
        run, source = {"steps": steps}, Need.FROZEN_DRAW
        ensemble.append(Member(name="apgd-pooled", attack=apgd, options=run | draws, objective="margin", pooled=True))
        ensemble.append(Member(name="frozen-draw", attack=apgd, options=run, objective="margin", source=source))
    else:
        fab = "attacks.fab:FAB"
        ensemble.append(Member(name="fab", attack=fab, options=fab_options, objective=aim, source="exact"))
    if facts.has_twin:
        options = {"steps": steps // 2}
        ensemble.append(Member(name="transfer", attack=apgd, options=options, objective="margin", source=Need.TWIN))
    ensemble += through_parts(facts, apgd, steps // 2, "margin", draws=16 if full else 4)
    return (*ensemble, score_based(facts, "square", "attacks.square_l2:SquareL2", queries, "margin"))
