"""`train`: the weights of one defense on one data set, by the entry's recipe."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from benchmark.commands.options import (
    add_command,
    add_data,
    add_device,
    add_entries,
    add_results,
    load_given_entries,
    seed,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmark.cells import TrainingCell
    from registry import DatasetSpec, DefenseEntry


def add_to(commands: argparse._SubParsersAction) -> None:
    """Adds the command to the parser."""
    parser = add_command(
        commands,
        "train",
        "train a defense on a data set by its recipe, its base first where that is absent",
        "Madry2018PGDAT --dataset phantom2\nMadry2018PGDAT --dataset breastmnist --seed 1 --device cuda:0",
    )
    parser.add_argument("defense", metavar="DEFENSE", help="name of the defense, see: list defenses")
    parser.add_argument("--dataset", metavar="D", required=True, help="name of the data set, see: list datasets")
    parser.add_argument("--seed", metavar="S", type=seed, default=0, help="training seed (default: 0)")
    add_device(parser)
    add_data(parser)
    add_results(parser)
    add_entries(parser)
    parser.add_argument("--quiet", action="store_true", help="no progress")
    parser.set_defaults(execute=execute)


def execute(args: argparse.Namespace) -> int:
    """Trains, and prints where the weights are; weights of the defense itself are replaced."""
    entry, spec = _wanted(args)
    from registry.sources import TRAINING, sources_sha256

    sources_sha256(TRAINING, args.entries)  # reads the code before anything runs: files may change meanwhile
    from benchmark.data_folder import data_root
    from benchmark.environment import resolve_device
    from benchmark.estimate import Costs
    from benchmark.plan import trainings_of
    from benchmark.progress import Progress
    from benchmark.selection import Registries
    from benchmark.states import untrained
    from benchmark.training_cell import train_cell
    from benchmark.weights import checkpoints_folder, current_weights, is_trained
    from registry.errors import UserError
    from results.store import RecordStore

    device, root = resolve_device(args.device), data_root(args.data)
    folder = checkpoints_folder(args.results)
    cells = trainings_of(entry, spec, args.seed, Registries())
    cells = (*untrained(cells[:-1], lambda cell: is_trained(cell, folder)), cells[-1])
    progress = Progress(cells, Costs(), quiet=args.quiet)
    store, written = RecordStore(args.results), []
    try:
        for cell in cells:
            with store.claim(f"training/{cell.key}") as claim:
                if claim is None:
                    raise UserError(f"another process is training {cell.defense} on {cell.dataset}; wait until it ends")
                if cell is not cells[-1] and is_trained(cell, folder):  # it fits its base as that is trained now
                    progress.drop(cell)
                    continue
                progress.begin(cell)
                path = train_cell(cell, data_root=root, checkpoints=folder, device=device, progress=progress.inside)
                written.append(cell)
                progress.end(cell, "done")
    except KeyboardInterrupt:
        print(_interrupted(written), file=sys.stderr)
        return 130
    finally:
        progress.close()
    print(f"weights: {path}")
    used = current_weights(entry, spec.name, args.seed, folder)
    if used is not None and used != path:
        print(f"note: runs take the weights of the repository, {used}; remove that file to use yours", file=sys.stderr)
    return 0


def _wanted(args: argparse.Namespace) -> tuple[DefenseEntry, DatasetSpec]:
    """Returns what to train on what.

    Raises:
        UserError: The defense is not for the data set, or there is nothing to train.
    """
    from benchmark.obstacles import Obstacle, base_chain, defense_obstacle
    from registry import DATASETS, DEFENSES
    from registry.errors import UserError

    load_given_entries(args)
    entry, spec = DEFENSES[args.defense], DATASETS[args.dataset]
    chain = base_chain(entry, DEFENSES)
    obstacle = defense_obstacle(chain, spec)
    if entry.recipe is None:
        others = [link.name for link in chain if link.recipe is not None]
        remedy = f"train the one it wraps: {others[0]}" if others else "its weights are released ones"
        obstacle = obstacle or Obstacle(reason="it has no recipe of its own", remedy=remedy)
    if obstacle is not None:
        raise UserError(f"cannot train {entry.name} on {spec.name}: {obstacle.reason}; {obstacle.remedy}")
    return entry, spec


def _interrupted(written: Sequence[TrainingCell]) -> str:
    """Returns what to say after Ctrl-C."""
    names = f"the weights of {' and '.join(cell.defense for cell in written)}" if written else "no weights"
    return f"interrupted; {names} were written; the same command goes on from here"
