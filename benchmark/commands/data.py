"""`data`: lists, downloads, verifies and prepares data sets."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from benchmark.commands.options import add_command, add_data, add_entries, load_given_entries

if TYPE_CHECKING:
    from registry import DatasetSpec

ACTIONS = ("list", "download", "verify", "prepare")


def add_to(commands: argparse._SubParsersAction) -> None:
    """Adds the command to the parser."""
    parser = add_command(
        commands,
        "data",
        "list, download, verify or prepare data sets",
        "list\ndownload breastmnist\ndownload 'organ?mnist_64' --data my_data\nverify\nprepare msd_hippocampus",
    )
    parser.add_argument("action", choices=ACTIONS, metavar="{" + ",".join(ACTIONS) + "}", help="what to do")
    parser.add_argument(
        "name",
        nargs="?",
        metavar="NAME",
        help="data set or shell pattern; list and verify take all that are there without one",
    )
    add_data(parser)
    add_entries(parser)
    parser.set_defaults(execute=execute)


def execute(args: argparse.Namespace) -> int:
    """Does it for every data set of the name or pattern; 1 where one of several went wrong."""
    from benchmark.data_folder import data_root
    from registry import DATASETS
    from registry.errors import UserError

    load_given_entries(args)
    if args.name is None and args.action in ("download", "prepare"):
        raise UserError(f"data {args.action} needs the name of a data set; see: python -m benchmark data list")
    specs = DATASETS.select((args.name or "*",))
    root = data_root(args.data)
    if args.action == "list":
        return _list(specs, root)
    action = {"download": _download, "verify": _verify, "prepare": _prepare}[args.action]
    if args.name is None:
        from benchmark.data_folder import present_datasets

        here = present_datasets(specs, root)
        specs = tuple(spec for spec in specs if spec.name in here)
    return _each(specs, root, action)


def _each(specs: tuple[DatasetSpec, ...], root: Path, action: Callable[[DatasetSpec, Path], str]) -> int:
    """Prints one line for each data set; with a single one its error is the command's."""
    from registry.errors import BenchmarkError

    wrong = 0
    for spec in specs:
        try:
            print(f"{spec.name}: {action(spec, root)}", flush=True)
        except BenchmarkError as error:
            if len(specs) == 1:
                raise
            wrong += 1
            print(f"{spec.name}: {error}", flush=True)
    return 1 if wrong else 0


def _list(specs: tuple[DatasetSpec, ...], root: Path) -> int:
    from benchmark.data_folder import present_datasets
    from benchmark.table import format_table

    here = present_datasets(specs, root)
    rows = []
    for spec in specs:
        size = spec.source.size if spec.source else None
        state = "generated" if spec.embedded else "here" if spec.name in here else "absent"
        got = "" if state != "absent" else "download" if spec.source.urls else "by hand, see: data download NAME"
        rows.append((spec.name, spec.task, state, f"{size / 1e6:.1f} MB" if size else "", got, spec.license))
    print(f"data folder: {root}")
    print(format_table(("name", "task", "state", "size", "how to get it", "licence"), rows))
    return 0


def _download(spec: DatasetSpec, root: Path) -> str:
    from datasets.download import download

    if spec.source is None:
        return "generated, nothing to download"
    from tqdm import tqdm

    with tqdm(unit="B", unit_scale=True, desc=spec.name, leave=False, disable=not sys.stderr.isatty()) as bar:

        def tell(done: int, total: int | None) -> None:
            bar.total = total
            bar.update(done - bar.n)

        path = download(spec.source, root, tell)
    return str(path)


def _verify(spec: DatasetSpec, root: Path) -> str:
    """Checks the bytes of the file, then reads the arrays as a run does."""
    from datasets.download import verify

    if spec.source is not None:
        verify(spec.source, root, spec.name)
    dataset = spec.load(root)
    counts = "/".join(str(len(dataset.splits[name])) for name in spec.splits)
    return f"as published, {counts} samples, sha256 {dataset.sha256[:16]}"


def _prepare(spec: DatasetSpec, root: Path) -> str:
    """Packs the file of a data set from its original archive, where the code for that exists.

    A data set that is packed by this project has a module `datasets.prepare.<name>` with
    `prepare(spec: DatasetSpec, root: Path) -> Path`.
    """
    import importlib.util

    from datasets.locate import remedy
    from registry import resolve
    from registry.errors import DataMissingError

    if spec.source is None:
        return "generated, nothing to prepare"
    if importlib.util.find_spec(f"datasets.prepare.{spec.name}") is None:
        raise DataMissingError(f"{spec.name} is not packed by this project: {remedy(spec)}")
    return str(resolve(f"datasets.prepare.{spec.name}:prepare")(spec, root))
