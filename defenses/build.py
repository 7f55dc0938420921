"""Builds a defended model with its weights and those of the model it wraps."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from torch import nn

from defenses import checkpoints
from defenses.cards import joined, outdated, released, unfit
from defenses.seeding import seeded
from registry import DEFENSES, DatasetSpec, DefenseEntry, Source, resolve
from registry.errors import CheckpointError


@dataclass(frozen=True, kw_only=True)
class CheckpointInfo:
    """Which weights a defended model holds."""

    sha256: str
    """Checksum of the weight file; of the joined checksums where a chain of bases has several files."""
    seed: int
    """Training seed."""
    files: tuple[Path, ...]
    """Weight files, the wrapped base first."""
    card: dict[str, object] = field(default_factory=dict)
    """Card of the last file, without the curve; empty where the file has none."""


def defended_model(
    entry: DefenseEntry, dataset: DatasetSpec, seed: int, folder: Path | None
) -> tuple[nn.Module, CheckpointInfo]:
    """Returns the trained model of an entry on the CPU, in eval mode, without gradients of its parameters.

    Weights are looked for in the repository, then below `folder`, then among the released ones of the entry, which
    are downloaded into `folder`, also in place of a file there without a card that is another one. An entry with a base
    and no recipe has the weights of its base alone.

    Args:
        entry: What to build.
        dataset: What it was trained on.
        seed: Training seed.
        folder: Local folder of weights, or None to take only those of the repository.

    Raises:
        CheckpointError: Weights are absent (the text says how to train them), refused, damaged, without the card that
            a training leaves, of an older revision of the defense or the data set, of other options of its recipe, or
            trained around other weights of its base.
    """
    chain = _chain(entry)
    model: nn.Module | None = None
    digests, files, card = [], [], {}
    with seeded(seed):
        for link in chain:
            base, model = model, build_untrained(link, dataset, base=model)
            if not _has_weights(link):
                continue
            below = None if base is None else joined(digests)
            path = _weights(link, dataset, seed, folder, below)
            card = checkpoints.read_card(path)
            _check(path, card, link, dataset, seed, below)
            release = None if card else released(link, dataset.name, seed)
            digests.append(checkpoints.load(path, model, release and release.sha256, base=base))
            files.append(path)
    model.eval().requires_grad_(False)
    kept = {name: value for name, value in card.items() if name != "curve"}
    return model, CheckpointInfo(sha256=joined(digests), seed=seed, files=tuple(files), card=kept)


def build_untrained(entry: DefenseEntry, dataset: DatasetSpec, *, base: nn.Module | None = None) -> nn.Module:
    """Returns the model of an entry as its factory makes it, around `base` where the entry wraps one."""
    options = dict(entry.build_options)
    if entry.base is not None:
        options["base"] = base
    return resolve(entry.build)(dataset, **options)


def _chain(entry: DefenseEntry) -> list[DefenseEntry]:
    """Returns the entries from the innermost base to the entry itself."""
    chain = [entry]
    while chain[-1].base is not None:
        below = DEFENSES[chain[-1].base]
        if below in chain:
            raise CheckpointError(f"the bases of {entry.name} lead in a circle at {below.name}; correct its entry")
        chain.append(below)
    return chain[::-1]


def _has_weights(entry: DefenseEntry) -> bool:
    return entry.recipe is not None or bool(entry.checkpoints)


def _weights(entry: DefenseEntry, dataset: DatasetSpec, seed: int, folder: Path | None, below: str | None) -> Path:
    path = checkpoints.find(
        entry.name, dataset.name, seed, folder, is_current=lambda path: not unfit(path, entry, dataset, seed, below)
    )
    if path is None or (not checkpoints.read_card(path) and unfit(path, entry, dataset, seed, below)):
        path = _download(entry, dataset, seed, folder) or path
    if path is None:
        raise CheckpointError(
            f"no weights of {entry.name} on {dataset.name} for seed {seed}; "
            f"train it: python -m benchmark train {entry.name} --dataset {dataset.name} --seed {seed}"
        )
    return path


def _download(entry: DefenseEntry, dataset: DatasetSpec, seed: int, folder: Path | None) -> Path | None:
    """Returns the released weights after fetching them into the folder, or None where none were released."""
    release = released(entry, dataset.name, seed)
    if release is None or folder is None:
        return None
    from datasets.download import download  # only this path reaches the network

    name = checkpoints.checkpoint_path(Path(), entry.name, dataset.name, seed).as_posix()
    source = Source(filename=name, sha256=release.sha256, urls=(release.url,))
    return download(source, folder, None)


def _check(
    path: Path, card: dict[str, object], entry: DefenseEntry, dataset: DatasetSpec, seed: int, below: str | None
) -> None:
    """Raises CheckpointError where the card says that the weights are of something else, or there should be one."""
    again = f"train it again: python -m benchmark train {entry.name} --dataset {dataset.name} --seed {seed}"
    wanted = {"defense": entry.name, "dataset": dataset.name, "seed": seed}
    strangers = [
        f"{name} {card.get(name)!r}, expected {value!r}" for name, value in wanted.items() if card.get(name) != value
    ]
    if card and (difference := next(iter(strangers), "") or outdated(card, entry, dataset, below)):
        raise CheckpointError(f"{path} was trained for {difference}; {again}")
    if not card and (difference := unfit(path, entry, dataset, seed, below)):
        remedy = again if entry.recipe is not None else "remove that file, so that the released one is downloaded"
        raise CheckpointError(f"{path} has {difference}; {remedy}")
