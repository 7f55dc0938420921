"""What an entry asks of the card beside weights: its revision, that of the data set, and the options of its recipe."""

from __future__ import annotations

import fnmatch
import json
from collections.abc import Iterator, Mapping

from registry import DatasetSpec, DefenseEntry, Recipe


def merged_options(recipe: Recipe, dataset_name: str) -> dict[str, object]:
    """Returns the options of a recipe on a data set; later matching patterns of `per_dataset` win."""
    options = dict(recipe.options)
    for pattern, changes in recipe.per_dataset.items():
        if fnmatch.fnmatchcase(dataset_name, pattern):
            options.update(changes)
    return options


def outdated(card: Mapping[str, object], entry: DefenseEntry, dataset: DatasetSpec) -> str:
    """Returns in words what makes the weights of a card outdated, or "" where they are those of the entry as it is.

    Only the options that the entry states for the data set are compared: a card holds the recipe's defaults, too. A
    card that says nothing of its options, as that of weights from elsewhere, is not held to any; an empty card (there
    is none) is not held to anything.
    """
    return next(_differences(card, entry, dataset), "") if card else ""


def _differences(card: Mapping[str, object], entry: DefenseEntry, dataset: DatasetSpec) -> Iterator[str]:
    revisions = {"defense_revision": entry.revision, "dataset_revision": dataset.revision}
    for name, value in revisions.items():
        if card.get(name) != value:
            yield f"{name.replace('_', ' ')} {card.get(name)!r}, expected {value!r}"
    used = card.get("options")
    if entry.recipe is None or not isinstance(used, Mapping):
        return
    stated = json.loads(json.dumps(merged_options(entry.recipe, dataset.name)))  # a tuple is a list on a card
    for name, value in stated.items():
        if name not in used or used[name] != value:
            yield f"option {name} {used.get(name)!r}, expected {value!r}"
