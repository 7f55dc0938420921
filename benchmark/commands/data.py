"""`data`: lists, downloads, verifies and prepares data sets."""

from __future__ import annotations

import argparse

from benchmark.commands.options import add_command, add_data, add_entries

ACTIONS = ("list", "download", "verify", "prepare")


def add_to(commands: argparse._SubParsersAction) -> None:
    """Adds the command to the parser."""
    parser = add_command(
        commands,
        "data",
        "list, download, verify or prepare data sets",
        "list\ndownload breastmnist\nverify\nprepare msd_hippocampus",
    )
    parser.add_argument("action", choices=ACTIONS, metavar="{" + ",".join(ACTIONS) + "}", help="what to do")
    parser.add_argument("name", nargs="?", metavar="NAME", help="data set or shell pattern (default: all that apply)")
    add_data(parser)
    add_entries(parser)
    parser.set_defaults(execute=execute)


def execute(args: argparse.Namespace) -> int:
    """Does it."""
    return 0
