"""`show`: one record, for a person to read."""

from __future__ import annotations

import argparse
import difflib
from pathlib import Path
from typing import TYPE_CHECKING

from benchmark.commands.options import add_command, add_results

if TYPE_CHECKING:
    from results.record import EvaluationRecord
    from results.store import RecordStore


def add_to(commands: argparse._SubParsersAction) -> None:
    """Adds the command to the parser."""
    parser = add_command(
        commands,
        "show",
        "print one record for people",
        "phantom2/JPEG/standard-s0\nresults/records/phantom2/JPEG/clean-s0-0123456789.json",
    )
    parser.add_argument("record", metavar="KEY|PATH", help="key of a record (its beginning is enough), or its file")
    add_results(parser)
    parser.set_defaults(execute=execute)


def execute(args: argparse.Namespace) -> int:
    """Prints the record."""
    from benchmark.record_text import describe
    from results.store import RecordStore

    print(describe(_find(args.record, RecordStore(args.results))))
    return 0


def _find(asked: str, store: RecordStore) -> EvaluationRecord:
    """Returns the record of a file, a key, or the only key that begins so.

    Raises:
        UnknownEntryError: No record or several are meant; near matches are in the text.
        ResultsError: The record cannot be read.
    """
    from registry.errors import UnknownEntryError
    from results.serialize import from_json

    path = Path(asked)
    if path.is_file():
        return from_json(path.read_text(encoding="utf-8", errors="replace"), str(path))
    keys = store.keys()
    begun = [key for key in keys if key == asked or key.startswith(asked)]
    if asked in keys or len(begun) == 1:
        return store.read(asked if asked in keys else begun[0])
    if begun:
        raise UnknownEntryError(f"{len(begun)} records begin with {asked!r}: {', '.join(begun[:5])}; name one of them")
    if not keys:
        raise UnknownEntryError(f"no record {asked!r}: {store.folder} holds none; make some: python -m benchmark run")
    near = difflib.get_close_matches(asked, keys, n=3, cutoff=0.6)
    hint = f"did you mean {' or '.join(near)}?" if near else f"a key begins like {keys[0].rpartition('-')[0]}"
    raise UnknownEntryError(f"no record {asked!r} among {len(keys)} in {store.folder}; {hint}")
