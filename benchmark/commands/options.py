"""Options that several commands share, with their defaults."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from registry import ROOT, load_entries

RESULTS = ROOT / "results" / "records"
"""Default results folder."""
SITE = ROOT / "reports" / "site"
"""Default folder of the pages."""
SEED_LIMIT = 2**62
"""Seeds are smaller than this: torch takes whole numbers of 64 bits, and what is drawn adds to them."""


def add_command(
    commands: argparse._SubParsersAction, name: str, summary: str, examples: str
) -> argparse.ArgumentParser:
    """Adds a command with its one-line summary and its examples, and returns its parser."""
    lines = [f"  python -m benchmark {name} {line}".rstrip() for line in examples.split("\n")]
    return commands.add_parser(
        name,
        help=summary,
        description=summary[0].upper() + summary[1:] + ".",
        epilog="\n".join(["examples:", *lines]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


def load_given_entries(args: argparse.Namespace) -> None:
    """Loads all entries, those of --entries included, and says which files are left out as broken."""
    for broken in load_entries(args.entries):
        print(f"note: {broken.file} is left out: {broken.error}", file=sys.stderr)


def add_results(parser: argparse.ArgumentParser) -> None:
    """Adds --results."""
    parser.add_argument(
        "--results", metavar="DIR", type=Path, default=RESULTS, help="folder of the records (default: results/records)"
    )


def add_data(parser: argparse.ArgumentParser) -> None:
    """Adds --data."""
    parser.add_argument(
        "--data",
        metavar="DIR",
        type=Path,
        help="folder of the data sets (default: MEDROBUST_DATA, else a folder in your user data directory)",
    )


def add_device(parser: argparse.ArgumentParser) -> None:
    """Adds --device."""
    parser.add_argument(
        "--device", default="auto", metavar="{auto,cpu,cuda:K}", help="where to compute (default: auto)"
    )


def add_entries(parser: argparse.ArgumentParser) -> None:
    """Adds --entries."""
    parser.add_argument(
        "--entries",
        metavar="PATH",
        type=Path,
        action="append",
        default=[],
        help="entry file, or folder of them, outside the repository; may be given several times",
    )


def whole_number(text: str) -> int:
    """Returns a number of 1 or more, as argparse wants it."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of 1 or more, got {text!r}")
    return int(text)


def seed(text: str) -> int:
    """Returns a seed, as argparse wants it."""
    if not text.isdecimal() or len(text) > len(str(SEED_LIMIT)) or int(text) >= SEED_LIMIT:
        raise argparse.ArgumentTypeError(f"expected a whole number from 0 to {SEED_LIMIT - 1}, got {text!r}")
    return int(text)


def eps(text: str) -> float:
    """Returns a radius written as "4/255" or "0.0157", as argparse wants it."""
    try:
        above, _, below = text.partition("/")
        return float(above) / float(below or 1)
    except (ValueError, ZeroDivisionError):
        raise argparse.ArgumentTypeError(f"expected a number such as 4/255 or 0.5, got {text!r}") from None


def seeds(text: str) -> tuple[int, ...]:
    """Returns seeds written as "0,1,2", as argparse wants them."""
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() for part in parts):
        raise argparse.ArgumentTypeError(f"expected whole numbers with commas, e.g. 0,1,2, got {text!r}")
    return tuple(seed(part) for part in parts)


def add_patterns(parser: argparse.ArgumentParser) -> None:
    """Adds which records a command looks at."""
    parser.add_argument(
        "patterns",
        metavar="GLOB",
        nargs="*",
        help="records by key, its beginning, or a shell pattern of it (default: all)",
    )


def chosen_keys(keys: tuple[str, ...], args: argparse.Namespace) -> tuple[str, ...]:
    """Returns the keys that any pattern names; without a pattern, all."""
    from fnmatch import fnmatchcase

    from registry.errors import UnknownEntryError

    if not keys:
        raise UnknownEntryError(f"{args.results} holds no records; make some: python -m benchmark run")
    if not args.patterns:
        return keys
    chosen: set[str] = set()
    for pattern in args.patterns:
        matches = {key for key in keys if fnmatchcase(key, pattern) or key.startswith(pattern)}
        if not matches:
            raise UnknownEntryError(f"no record matches {pattern!r} among {len(keys)} in {args.results}")
        chosen |= matches
    return tuple(key for key in keys if key in chosen)
