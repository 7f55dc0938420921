"""What an entry asks of weights and the card beside them: revisions, recipe's options, a released file's checksum."""

from __future__ import annotations

import fnmatch
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from defenses.checkpoints import card_path, file_sha256, read_card
from registry import Checkpoint, DatasetSpec, DefenseEntry, Recipe


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


def released(entry: DefenseEntry, dataset_name: str, seed: int) -> Checkpoint | None:
    """Returns the released weights of an entry for a data set and a training seed, or None."""
    fitting = (item for item in entry.checkpoints if (item.dataset, item.seed) == (dataset_name, seed))
    return next(fitting, None)


def unfit(path: Path, entry: DefenseEntry, dataset: DatasetSpec, seed: int, base_sha256: str | None = None) -> str:
    """Returns in words why a weight file is not that of the entry as it is, or "" where it is.

    A file with a card is judged by the card, see `outdated`. One without has to be the released file where there is
    one; else it is refused where the entry has a recipe, since a training that was killed while it wrote leaves such a
    file; the weights of any other entry come from elsewhere, and nothing is asked of them.

    Args:
        path: The weight file.
        entry: The defense.
        dataset: The data set.
        seed: The training seed.
        base_sha256: Checksum of the weights of its base that are present; None where there are none to compare.

    Raises:
        CheckpointError: The card is no JSON object.
    """
    card = read_card(path)
    if card:
        return outdated(card, entry, dataset, base_sha256)
    release = released(entry, dataset.name, seed)
    if release is not None:
        found = file_sha256(path)
        return "" if found == release.sha256 else f"sha256 {found}, expected {release.sha256} as released"
    return "" if entry.recipe is None else f"no card, expected {card_path(path).name} beside it"


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
