"""`doctor`: what this machine has, what is missing, and how to get it."""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import platform
import re
import shutil
import textwrap
from contextlib import suppress
from pathlib import Path

from benchmark.commands.options import add_command, add_data, add_entries, add_results
from benchmark.table import format_table
from registry import DATASETS, ROOT, load_entries


def add_to(commands: argparse._SubParsersAction) -> None:
    """Adds the command to the parser."""
    parser = add_command(
        commands,
        "doctor",
        "tell what is here, what is missing and how to get it",
        "\n--data my_data --results my_results",
    )
    add_data(parser)
    add_results(parser)
    add_entries(parser)
    parser.set_defaults(execute=execute)


def execute(args: argparse.Namespace) -> int:
    """Prints the findings; 1 where something is missing that every run needs, else 0."""
    problems: list[str] = []
    print(f"Python {platform.python_version()} on {platform.system()} {platform.machine()}, {os.cpu_count()} CPU cores")
    print(_packages(problems))
    print(_device(problems))
    for broken in load_entries(args.entries):
        problems.append(f"entry file {broken.file} is left out: {broken.error}")
    print(_data(args.data))
    print(_results(args.results, problems))
    print("\n" + ("\n".join(f"missing: {text}" for text in problems) or "no package and no folder is missing"))
    return 1 if problems else 0


def _packages(problems: list[str]) -> str:
    rows = []
    for line in (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines():
        requirement = line.partition("#")[0].strip()
        if not requirement:
            continue
        name = re.match(r"[\w.-]+", requirement).group()
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            version = "absent"
            problems.append(f"package {name}: python -m pip install -r requirements.txt")
        rows.append((name, version, requirement[len(name) :]))
    return "\nPackages\n" + format_table(("package", "here", "tested"), rows)


def _device(problems: list[str]) -> str:
    try:
        import torch
    except ImportError:
        return "\nDevice: unknown without torch"
    if not torch.cuda.is_available():
        return f"\nDevice: cpu ({torch.get_num_threads()} threads), no CUDA device; large inputs are left out of runs"
    names = [f"cuda:{index} {torch.cuda.get_device_name(index)}" for index in range(torch.cuda.device_count())]
    return f"\nDevice: {', '.join(names)}"


def _data(given: Path | None) -> str:
    from benchmark.data_folder import data_root, present_datasets
    from datasets.locate import remedy

    root = data_root(given)
    here = present_datasets(DATASETS, root)
    absent = [spec for spec in DATASETS if spec.name not in here]
    groups = {
        "generated": [spec.name for spec in DATASETS if spec.embedded],
        "here": [spec.name for spec in DATASETS if not spec.embedded and spec.name in here],
        "absent, get them with python -m benchmark data download NAME": [s.name for s in absent if s.source.urls],
    }
    lines = [f"\nData in {root}{_free(root)}"]
    for state, names in groups.items():
        lines += textwrap.wrap(f"{state}: {', '.join(names) or 'none'}", 110, subsequent_indent="  ")
    for spec in absent:
        if not spec.source.urls:
            lines += textwrap.wrap(f"absent: {spec.name}. {remedy(spec)}", 110, subsequent_indent="  ")
    return "\n".join(lines)


def _results(folder: Path, problems: list[str]) -> str:
    nearest = _nearest(folder)
    writable = nearest.is_dir() and os.access(nearest, os.W_OK)
    if not writable:
        problems.append(f"{folder} cannot be written; make it writable or choose another with --results")
    from results.store import UNFINISHED, RecordStore

    count = len(RecordStore(folder).keys()) if folder.is_dir() else 0
    said = f"\nResults in {folder}: {count} records, {'writable' if writable else 'NOT writable'}{_free(folder)}"
    return said + _interrupted(folder / UNFINISHED)


def _interrupted(folder: Path) -> str:
    """Returns what interrupted cells keep, where there are any."""
    cells = sorted(folder.glob("*"))
    text = (
        f"\n{len(cells)} interrupted cell(s) keep {_bytes_below(folder) / 1e6:.0f} MB in {folder} "
        "until they are finished; it may be deleted"
    )
    return text if cells else ""


def _bytes_below(folder: Path) -> int:
    """Returns how much the files below a folder hold; what a run takes away meanwhile counts as nothing."""
    total = 0
    for where, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):
                total += Path(where, name).stat().st_size
    return total


def _free(folder: Path) -> str:
    return f", {shutil.disk_usage(_nearest(folder)).free / 1e9:.1f} GB free"


def _nearest(folder: Path) -> Path:
    """Returns the folder, or the nearest one above it that exists."""
    folder = folder.expanduser().absolute()
    while not folder.exists():
        folder = folder.parent
    return folder
