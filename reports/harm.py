"""Who is hurt: class recalls, balanced accuracy and harmful confusions of a row, all of the score that ranks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from reports.cards import Cell
from reports.leaderboard import Change
from reports.pooling import Pooled, pool_estimates, pool_named
from reports.scores import EntrantScores
from results.recalls import balanced_mean, mean_of_shares
from results.record import BudgetResult, Estimate
from results.sample_design import SampleDesign
from results.statistics import is_binary, mean_estimate, united


@dataclass(frozen=True, kw_only=True)
class Harm:
    """What a mean hides."""

    class_recall: dict[str, Change]
    confusions: dict[str, Change]
    balanced: Change | None
    """Mean of the recalls; None where the classes of the samples are not known."""


def harm_of(cells: Sequence[Cell], results: Sequence[BudgetResult], own: EntrantScores | None, label: str) -> Harm:
    """Returns the harm of a row: from its lowest known scores, or as its records state it where those are lost.

    Args:
        cells: One cell for each seed.
        results: Their results at a budget.
        own: The scores of the same cells.
        label: Label of the budget.
    """
    recorded = changes([cell.record.clean_confusions for cell in cells], [result.confusions for result in results])
    members = _members(own, cells[0].dataset.class_names) if own and label in own.best_known else {}
    if not members:
        recalls = changes([cell.record.clean_class_recall for cell in cells], [found.class_recall for found in results])
        return Harm(class_recall=recalls, confusions=_confusions(cells[0], {}, recorded), balanced=None)
    lowest = own.best_known[label]
    before, after = _recalls(own.clean, members, own.design), _recalls(lowest, members, own.design)
    recalls = {name: Change(clean=before[name], attacked=after[name]) for name in members}
    return Harm(
        class_recall=recalls,
        confusions=_confusions(cells[0], recalls, recorded),
        balanced=Change(
            clean=_balanced(before, own.clean, members, own.design),
            attacked=_balanced(after, lowest, members, own.design),
        ),
    )


def _members(own: EntrantScores, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Returns the samples of each class that occurs, bool (n,), by name; empty where the classes are not known."""
    if own.labels is None:
        return {}
    members = {name: own.labels == place for place, name in enumerate(names)}
    return {name: inside for name, inside in members.items() if inside.any()}


def changes(clean: Sequence[Mapping[str, Estimate]], attacked: Sequence[Mapping[str, Estimate]]) -> dict[str, Change]:
    """Returns what the records of all seeds state before and under attack, by name."""
    before = pool_named(clean)
    return {name: Change(clean=before.get(name), attacked=pooled) for name, pooled in pool_named(attacked).items()}


def _recalls(scores: np.ndarray, members: Mapping[str, np.ndarray], design: SampleDesign) -> dict[str, Pooled]:
    """Returns the recall of each class from the scores of all samples, (seeds, n)."""
    return {
        name: pool_estimates([mean_estimate(own, is_binary(own), design.take(inside)) for own in scores[:, inside]])
        for name, inside in members.items()
    }


def _balanced(
    recalls: Mapping[str, Pooled], scores: np.ndarray, members: Mapping[str, np.ndarray], design: SampleDesign
) -> Pooled:
    """Returns the mean of the recalls of all classes; recalls of classes that share patients are not independent."""
    shares = mean_of_shares([recall.estimate for recall in recalls.values()]) if is_binary(scores) else None
    if shares is not None and design.groups is None:
        estimate = shares
    else:
        drawn = balanced_mean(scores.mean(axis=0), np.stack(list(members.values())), design)
        estimate = drawn if shares is None else united(shares, drawn)
    seeds = np.mean([recall.seeds for recall in recalls.values()], axis=0)
    return Pooled(estimate=estimate, seeds=tuple(seeds.tolist()))


def _confusions(cell: Cell, recalls: Mapping[str, Change], recorded: dict[str, Change]) -> dict[str, Change]:
    """Returns the harmful confusions: of two classes, what the recall of the harmed one lacks.

    With more classes an attack stops at any wrong answer, so that no one has looked for this one. A detector's recall
    also lacks what it rejects; there the records count.
    """
    if len(cell.dataset.class_names) > 2:
        return {title: replace(change, at_least=True) for title, change in recorded.items()}
    if cell.defense.family == "detection":
        return recorded
    found = {title: recalls.get(cell.dataset.harmed.get(title, "")) for title in recorded}
    return {title: _complement(found[title]) if found[title] else change for title, change in recorded.items()}


def _complement(recall: Change) -> Change:
    return Change(clean=_rest(recall.clean), attacked=_rest(recall.attacked))


def _rest(pooled: Pooled) -> Pooled:
    own = pooled.estimate
    estimate = Estimate(value=1 - own.value, low=1 - own.high, high=1 - own.low, n=own.n)
    return replace(pooled, estimate=estimate, seeds=tuple(1 - value for value in pooled.seeds))
