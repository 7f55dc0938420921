"""Trains a defense by its recipe and stores the weights with a card that says how they came about."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path

import torch

from attacks.hardware import knows_bfloat16
from datasets.batch import Dataset, Split
from defenses import checkpoints
from defenses.build import build_untrained, defended_model
from defenses.cards import merged_options
from defenses.recipes.resumption import resumable
from defenses.seeding import seeded
from registry import DATASETS, DEFENSES, TASKS, DatasetSpec, DefenseEntry, resolve
from registry.errors import InvalidEntryError
from registry.sources import TRAINING, sources_sha256

LOW_PRECISION = ("bfloat16", "mixed_precision")
"""Options by which recipes compute in bfloat16, where the hardware has instructions for it."""


class TrainingSplits(dict[str, Split]):
    """The splits that a recipe gets: train and val."""

    def __missing__(self, name: str) -> Split:
        """Raises InvalidEntryError: a recipe asks for another split."""
        raise InvalidEntryError(
            f"expected a recipe to read the splits train and val, it asks for {name!r}; test samples are for "
            "evaluation alone: choose epochs, thresholds and everything else on val"
        )


def for_training(dataset: Dataset) -> Dataset:
    """Returns a data set without its split test: the same spec and checksum, and an error where a recipe asks for it.

    Args:
        dataset: With train and val, and any other splits.
    """
    splits = TrainingSplits((name, split) for name, split in dataset.splits.items() if name in ("train", "val"))
    return dataclasses.replace(dataset, splits=splits)


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
    machine computes otherwise (see `arithmetic`) or the code has changed: that of the repository, or what lies beside
    and below the files of the entries that take part. A command that trains calls `registry.sources.sources_sha256`
    before anything else, so that the code is what it began with.

    Args:
        entry: Must have a recipe; the weights of its base are looked for in the repository and below `folder`.
        dataset: In memory; the recipe gets it without its split test.
        seed: Training seed: initialisation, order, augmentation, inner attacks.
        device: Torch device.
        folder: Where <dataset>/<Defense>-s<seed>.safetensors and its card go.
        progress: Told the finished fraction and a short text after every step, or None.

    Returns:
        Path of the weight file.

    Raises:
        InvalidEntryError: The entry has no recipe, its options are not the recipe's, or the recipe asks for test.
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
        "build": entry.card()["build"],
        "build_options": dict(entry.build_options),
        "device": device,
        "arithmetic": arithmetic(device),
    }
    code = {"torch": torch.__version__, "sources": sources_sha256(TRAINING, _entry_files(entry, dataset.spec))}
    with resumable(path, {**card, **code}):
        told = {"seed": seed, "device": device, "progress": progress}
        training = resolve(entry.recipe.train)(model, for_training(dataset), options, **told)
        outcome = {
            "arithmetic": arithmetic(device, training.options),
            "options": training.options,
            "curve": list(training.curve),
            "selected_epoch": training.selected_epoch,
            "seconds": training.seconds,
            "parameters": sum(parameter.numel() for parameter in model.parameters()),
        }
        kept = checkpoints.kept_tensors(model, base, before) if base is not None else ()
        checkpoints.save(path, model, {**card, **outcome}, without=kept)
    return path


def arithmetic(device: str, options: Mapping[str, object] | None = None) -> dict[str, object]:
    """Returns what the last bits of a training depend on beside its seed and its code.

    Args:
        device: Torch device.
        options: All hyper-parameters of the training, or None to tell what the device can do.

    Returns:
        "bfloat16": whether the training computes in it; "threads": of the CPU; "processor": the widest vectors that
        torch uses on this CPU, e.g. "AVX2", or the name of the GPU.
    """
    where = torch.device(device)
    asked = options is None or any(options.get(name) for name in LOW_PRECISION)
    on_gpu = where.type == "cuda"
    return {
        "bfloat16": asked and knows_bfloat16(where),
        "threads": torch.get_num_threads(),
        "processor": torch.cuda.get_device_name(where) if on_gpu else torch.backends.cpu.get_cpu_capability(),
    }


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
