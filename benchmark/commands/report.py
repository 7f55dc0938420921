"""`report`: pages, tables and JSON from records alone."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from benchmark.commands.options import RESULTS, SITE, add_command, add_results
from registry import ROOT

README = ROOT / "README.md"
"""Holds the tables of the committed records."""


def add_to(commands: argparse._SubParsersAction) -> None:
    """Adds the command to the parser."""
    parser = add_command(
        commands,
        "report",
        "build the leaderboards and pages from the records",
        "\n--results my_results --out my_pages\n--check",
    )
    add_results(parser)
    parser.add_argument(
        "--out", metavar="DIR", type=Path, default=SITE, help="folder of the pages (default: reports/site)"
    )
    parser.add_argument("--check", action="store_true", help="write nothing; fail when the pages in --out are stale")
    parser.set_defaults(execute=execute)


def execute(args: argparse.Namespace) -> int:
    """Builds the pages, or compares them with what would be built."""
    from registry.errors import ResultsError
    from reports.readme import update
    from reports.site import build_site, check_site
    from results.store import RecordStore

    if not args.results.is_dir():
        raise ResultsError(f"no results folder at {args.results}; make records first: python -m benchmark run")
    store = RecordStore(args.results)
    committed = args.out.resolve() == SITE and args.results.resolve() == RESULTS
    if args.check:
        stale = check_site(store, args.out)
        if committed and not stale and not update(README, args.out / "leaderboard.json", check=True):
            stale.append("stale: the tables of README.md")
        for line in stale:
            print(line)
        if stale:
            print(f"{len(stale)} stale page(s) in {args.out}; build them: python -m benchmark report", file=sys.stderr)
        else:
            print(f"the pages in {args.out} are those of {len(store.keys())} records")
        return 1 if stale else 0
    files = build_site(store, args.out)
    if committed:
        update(README, args.out / "leaderboard.json", check=False)
    print(f"{len(files)} files from {len(store.keys())} records in {args.out}")
    print(f"open {args.out / 'index.html'}")
    return 0
