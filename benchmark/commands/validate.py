"""`validate`: every clause of an entry's contract, passed or what to mend."""

from __future__ import annotations

import argparse
import sys

from benchmark.commands.options import add_command, add_data, add_entries, load_given_entries


def add_to(commands: argparse._SubParsersAction) -> None:
    """Adds the command to the parser."""
    parser = add_command(
        commands,
        "validate",
        "check one entry against its contract, on generated data, in less than a minute",
        "JPEG\nbreastmnist\nstandard\nmy_defense.py",
    )
    parser.add_argument("entry", metavar="NAME|PATH", help="name of a defense, data set or protocol, or an entry file")
    add_data(parser)
    add_entries(parser)
    parser.set_defaults(execute=execute)


def execute(args: argparse.Namespace) -> int:
    """Prints the verdicts; 0 only if all clauses hold."""
    from benchmark.validation import entries_named, validate_entry

    load_given_entries(args)
    failed = 0
    for registry, entry in entries_named(args.entry):
        print(f"{registry.kind} {entry.name} ({registry.origin(entry.name)})")
        for verdict in validate_entry(registry, entry, data=args.data, say=_say):
            mark = "passed" if verdict.ok else "MEND  "
            print(f"  {mark}  {verdict.clause}" + (f": {verdict.message}" if verdict.message else ""))
            failed += not verdict.ok
    print(f"{failed} clause(s) to mend" if failed else "every clause holds")
    return 1 if failed else 0


def _say(text: str) -> None:
    print(f"  ... {text}", file=sys.stderr, flush=True)
