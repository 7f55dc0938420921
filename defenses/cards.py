"""What an entry asks of the card beside weights: its revision, that of the data set, and the options of its recipe."""

from __future__ import annotations

import fnmatch
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence

from registry import DatasetSpec, DefenseEntry, Recipe


def merged_options(recipe: Recipe, dataset_name: str) -> dict[str, object]:
    """Returns the options of a recipe on a data set; later matching patterns of `per_dataset` win."""
    options = dict(recipe.options)
    for pattern, changes in recipe.per_dataset.items():
        if fnmatch.fnmatchcase(dataset_name, pattern):
            options.update(changes)
    return options


def joined(digests: Sequence[str]) -> str:
    """Returns the checksum of a chain of weight files, the innermost base first: of a single file its own."""
    return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()


def outdated(
    card: Mapping[str, object], entry: DefenseEntry, dataset: DatasetSpec, base_sha256: str | None = None
) -> str:
    """Returns in words what makes the weights of a card outdated, or "" where they are those of the entry as it is.

    Only the options that the entry states for the data set are compared: a card holds the recipe's defaults, too. A
    card that says nothing of its options, as that of weights from elsewhere, is not held to any; an empty card (there
    is none) is not held to anything.

    Args:
        card: The card beside the weights.
        entry: The defense.
        dataset: The data set.
        base_sha256: Checksum of the weights of its base that are present; None where there are none to compare.
    """
    return next(_differences(card, entry, dataset, base_sha256), "") if card else ""


def _differences(
    card: Mapping[str, object], entry: DefenseEntry, dataset: DatasetSpec, base_sha256: str | None
) -> Iterator[str]:
    revisions = {"defense_revision": entry.revision, "dataset_revision": dataset.revision}
    for name, value in revisions.items():
        if card.get(name) != value:
            yield f"{name.replace('_', ' ')} {card.get(name)!r}, expected {value!r}"
    base = card.get("base")
    if base_sha256 is not None and isinstance(base, Mapping) and base.get("sha256") != base_sha256:
        yield f"weights {base.get('sha256')} of its base {base.get('defense')}, expected {base_sha256}"
    used = card.get("options")
    if entry.recipe is None or not isinstance(used, Mapping):
        return
    stated = json.loads(json.dumps(merged_options(entry.recipe, dataset.name)))  # a tuple is a list on a card
    for name, value in stated.items():
        if name not in used or used[name] != value:
            yield f"option {name} {used.get(name)!r}, expected {value!r}"
