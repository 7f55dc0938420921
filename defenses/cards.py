"""What an entry asks of weights and the card beside them: revisions, building, training, and whole files."""

from __future__ import annotations

import fnmatch
import hashlib
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from defenses.checkpoints import card_path, file_sha256, read_card
from registry import Checkpoint, DatasetSpec, DefenseEntry, Recipe
from registry.lazy import reference_name

_PLACE = re.compile(r"^medrobust_entries_[0-9a-f]{8}_")  # see registry/discovery.py: it names the folder of an entry


def merged_options(recipe: Recipe, dataset_name: str) -> dict[str, object]:
    """Returns the options of a recipe on a data set; later matching patterns of `per_dataset` win."""
    return _merged(recipe.options, recipe.per_dataset, dataset_name)


def _merged(
    options: Mapping[str, object], per_dataset: Mapping[str, Mapping[str, object]], dataset_name: str
) -> dict[str, object]:
    merged = dict(options)
    for pattern, changes in per_dataset.items():
        if fnmatch.fnmatchcase(dataset_name, pattern):
            merged.update(changes)
    return merged


def joined(digests: Sequence[str]) -> str:
    """Returns the checksum of a chain of weight files, the innermost base first: of a single file its own."""
    return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()


def released(entry: DefenseEntry, dataset_name: str, seed: int) -> Checkpoint | None:
    """Returns the released weights of an entry for a data set and a training seed, or None."""
    fitting = (item for item in entry.checkpoints if (item.dataset, item.seed) == (dataset_name, seed))
    return next(fitting, None)


def unfit(path: Path, entry: DefenseEntry, dataset: DatasetSpec, seed: int, base_sha256: str | None = None) -> str:
    """Returns in words why a weight file is not that of the entry as it is, or "" where it is.

    A file with a card is judged by the card, see `outdated`, and has to be the file whose checksum stands there. One
    without has to be the released file where there is one; else it is refused where the entry has a recipe, since a
    training that was killed while it wrote leaves such a file; the weights of any other entry come from elsewhere, and
    nothing is asked of them. A file is read once for its checksum, however often it is asked for.

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
        return outdated(card, entry, dataset, base_sha256) or damage(path)
    release = released(entry, dataset.name, seed)
    if release is not None:
        found = file_sha256(path)
        return "" if found == release.sha256 else f"sha256 {found}, expected {release.sha256} as released"
    return "" if entry.recipe is None else f"no card, expected {card_path(path).name} beside it"


def damage(path: Path) -> str:
    """Returns in words that a file is not the one that its card names, or "" where it is, or the card names none.

    Raises:
        CheckpointError: The card cannot be read.
    """
    expected = read_card(path).get("sha256")
    found = file_sha256(path) if expected else ""
    return f"sha256 {found}, expected {expected} by its card" if expected and found != expected else ""


def outdated(
    card: Mapping[str, object], entry: DefenseEntry, dataset: DatasetSpec, base_sha256: str | None = None
) -> str:
    """Returns in words what makes the weights of a card outdated, or "" where they are those of the entry as it is.

    Compared are the revisions, the base's weights, how the model is built, the training function, and the options that
    the entry states for the data set or stated when the weights were trained; the recipe's defaults are not. A card is
    held to what it says: one without options, as that of weights from elsewhere, to none, an older one without `build`
    to no factory, and an empty one (there is none) to nothing.

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
    yield from _other_build(card, entry)
    yield from _other_training(card, entry, dataset)


def _other_build(card: Mapping[str, object], entry: DefenseEntry) -> Iterator[str]:
    """Yields in words how the model of a card was built otherwise than the entry builds it."""
    wanted = {"build": reference_name(entry.build), "build_options": dict(entry.build_options)}
    for name, value in wanted.items():
        if name in card and _comparable(card[name]) != _comparable(value):
            yield f"{name.replace('_', ' ')} {card[name]!r}, expected {value!r}"


def _other_training(card: Mapping[str, object], entry: DefenseEntry, dataset: DatasetSpec) -> Iterator[str]:
    """Yields in words how the weights of a card were trained otherwise than the entry says."""
    recipe, used = _mapping(card.get("recipe")), card.get("options")
    if entry.recipe is None:
        return
    function = reference_name(entry.recipe.train)
    if "train" in recipe and _comparable(recipe["train"]) != _comparable(function):
        yield f"training function {recipe['train']!r}, expected {function!r}"
    if not isinstance(used, Mapping):
        return
    stated = _comparable(merged_options(entry.recipe, dataset.name))
    for name, value in stated.items():
        if name not in used or not _alike(used[name], value):
            yield f"option {name} {used.get(name)!r}, expected {value!r}"
    before = _merged(_mapping(recipe.get("options")), _mapping(recipe.get("per_dataset")), dataset.name)
    for name in sorted(before.keys() - stated.keys()):
        yield f"option {name} {used.get(name)!r}, expected none, as the entry no longer states it"


def _mapping(value: object) -> Mapping:
    """Returns a part of a card, or an empty one where it is absent or something else."""
    return value if isinstance(value, Mapping) else {}


def _alike(found: object, stated: object) -> bool:
    """Returns whether two options are one; records keep 10 digits of a number."""
    if isinstance(found, float) and isinstance(stated, float):
        return math.isclose(found, stated, rel_tol=1e-9)
    return found == stated


def _comparable(value: object) -> object:
    """Returns a value as a card holds it, where a tuple is a list; a name of code without the folder of its entry."""
    if isinstance(value, str):
        return _PLACE.sub("", value)
    return json.loads(json.dumps(value))
