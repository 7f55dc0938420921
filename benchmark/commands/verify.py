"""`verify`: recomputes records from their certificates, without attacking."""

from __future__ import annotations

import argparse

from benchmark.commands.options import (
    add_command,
    add_data,
    add_device,
    add_entries,
    add_patterns,
    add_results,
    chosen_keys,
    load_given_entries,
)


def add_to(commands: argparse._SubParsersAction) -> None:
    """Adds the command to the parser."""
    parser = add_command(
        commands,
        "verify",
        "recompute the scores of records from data, weights and adversarials, without attacking",
        "\n'breastmnist/*'\n--results my_results 'phantom2/JPEG/standard-*'",
    )
    add_patterns(parser)
    add_results(parser)
    add_data(parser)
    add_device(parser)
    add_entries(parser)
    parser.set_defaults(execute=execute)


def execute(args: argparse.Namespace) -> int:
    """Prints a line for each record; 1 where one does not hold."""
    import sys
    import time

    from benchmark.data_folder import data_root
    from benchmark.environment import resolve_device
    from benchmark.recorded import Place
    from benchmark.verification import Ending, Verifier
    from benchmark.weights import checkpoints_folder
    from results.store import RecordStore

    load_given_entries(args)
    store = RecordStore(args.results)
    keys = chosen_keys(store.keys(), args)
    place = Place(
        data_root=data_root(args.data),
        checkpoints=checkpoints_folder(args.results),
        device=resolve_device(args.device),
    )
    verifier, counts, started = Verifier(store, place), dict.fromkeys(Ending, 0), time.monotonic()
    for key in keys:
        found = verifier.check(key)
        counts[found.ending] += 1
        print(f"{found.ending:<4}  {key}: {found.text}", flush=True)
    print(
        f"{len(keys)} records: {counts[Ending.VERIFIED]} verified, {counts[Ending.FAILED]} failed, "
        f"{counts[Ending.SKIPPED]} skipped, in {time.monotonic() - started:.1f} s"
    )
    if keys and not counts[Ending.VERIFIED] and not counts[Ending.FAILED]:
        print("nothing could be verified: every record was skipped, see above", file=sys.stderr)
        return 1
    return 1 if counts[Ending.FAILED] else 0
