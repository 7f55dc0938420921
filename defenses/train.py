"""Trains a defense by its recipe and stores the weights with a card that says how they came about."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from datasets.batch import Dataset
from defenses import checkpoints
from defenses.build import build_untrained, defended_model
from defenses.cards import merged_options
from defenses.recipes.resumption import resumable
from defenses.seeding import seeded
from registry import DATASETS, DEFENSES, TASKS, DatasetSpec, DefenseEntry, resolve
from registry.errors import InvalidEntryError
from registry.sources import TRAINING, sources_sha256


def train_defense(
    entry: DefenseEntry,
    dataset: Dataset,
    seed: int,
    *,
    device: str = "cpu",
    folder: Path,
    progress: Callable[[float, str], None] | None = None,
) -> Path:
    """Trains a defense on a data set and writes its weights below a folder.

    The state of an unfinished training lies beside where the weights will be; the same call goes on from it, unless the
    code has changed: that of the repository, or what lies beside and below the files of the entries that take part. A
    command that trains calls `registry.sources.sources_sha256` before anything else, so that the code is what it began
    with.

    Args:
        entry: Must have a recipe; the weights of its base are looked for in the repository and below `folder`.
        dataset: In memory; the split test is not read.
        seed: Training seed: initialisation, order, augmentation, inner attacks.
        device: Torch device.
        folder: Where <dataset>/<Defense>-s<seed>.safetensors and its card go.
        progress: Told the finished fraction and a short text after every step, or None.

    Returns:
        Path of the weight file.

    Raises:
        InvalidEntryError: The entry has no recipe, or its options are not the recipe's.
        CheckpointError: The weights of its base are absent.
    """
    if entry.recipe is None:
        raise InvalidEntryError(f"defense {entry.name} has no recipe: there is nothing to train" + _base_hint(entry))
    base, base_card, before = None, None, {}
    if entry.base is not None:
        base, info = defended_model(DEFENSES[entry.base], dataset.spec, seed, folder)
        base_card = {"defense": entry.base, "sha256": info.sha256}
        before = {name: tensor.clone() for name, tensor in base.state_dict().items()}
    with seeded(seed, device):
        model = build_untrained(entry, dataset.spec, base=base)
    options = merged_options(entry.recipe, dataset.spec.name)
    path = checkpoints.checkpoint_path(folder, entry.name, dataset.spec.name, seed)
    card = {
        "defense": entry.name,
        "defense_revision": entry.revision,
        "dataset": dataset.spec.name,
        "dataset_revision": dataset.spec.revision,
        "data_sha256": dataset.sha256,
        "seed": seed,
        "base": base_card,
        "recipe": entry.recipe.card(),
        "device": device,
    }
    build = {"build": entry.card()["build"], "build_options": dict(entry.build_options), "torch": torch.__version__}
    build["sources"] = sources_sha256(TRAINING, _entry_files(entry, dataset.spec))
    with resumable(path, {**card, **build}):
        training = resolve(entry.recipe.train)(model, dataset, options, seed=seed, device=device, progress=progress)
        outcome = {
            "options": training.options,
            "curve": list(training.curve),
            "selected_epoch": training.selected_epoch,
            "seconds": training.seconds,
            "parameters": sum(parameter.numel() for parameter in model.parameters()),
        }
        kept = checkpoints.kept_tensors(model, base, before) if base is not None else ()
        checkpoints.save(path, model, {**card, **outcome}, without=kept)
    return path


def _entry_files(entry: DefenseEntry, spec: DatasetSpec) -> list[Path]:
    """Returns the files that added a defense, its bases, a data set and its task; one that nobody added has none."""
    chain = [entry]
    while chain[-1].base is not None:
        chain.append(DEFENSES[chain[-1].base])
    parts = [*((DEFENSES, link.name) for link in chain), (DATASETS, spec.name), (TASKS, spec.task)]
    origins = [registry.origin(name) for registry, name in parts if name in registry]
    return [Path(origin.rpartition(":")[0]) for origin in origins]


def _base_hint(entry: DefenseEntry) -> str:
    return f"; it wraps {entry.base}, train that one" if entry.base else ""
