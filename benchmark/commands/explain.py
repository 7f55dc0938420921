"""`explain`: why a row has its status, from records alone."""

from __future__ import annotations

import argparse

from benchmark.commands.options import add_command, add_results


def add_to(commands: argparse._SubParsersAction) -> None:
    """Adds the command to the parser."""
    parser = add_command(
        commands,
        "explain",
        "say in plain words why a row has its status, and what would settle it",
        "JPEG breastmnist\nJPEG breastmnist --results my_results",
    )
    parser.add_argument("defense", metavar="DEFENSE", help="name of the defense")
    parser.add_argument("dataset", metavar="DATASET", help="name of the data set")
    add_results(parser)
    parser.set_defaults(execute=execute)


def execute(args: argparse.Namespace) -> int:
    """Prints status, reasons, flags, attacks and remedies."""
    from registry.errors import ResultsError
    from reports.explanation import explain
    from reports.standings import build_standings
    from results.store import RecordStore

    if not args.results.is_dir():
        raise ResultsError(f"no results folder at {args.results}; make records first: python -m benchmark run")
    print(explain(build_standings(RecordStore(args.results)), args.defense, args.dataset))
    return 0
