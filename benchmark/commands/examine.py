"""`examine`: asks recorded models what younger probes ask, and adds the flags to their records."""

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
        "examine",
        "ask recorded models what soundness probes ask that are younger than their records",
        "\n'breastmnist/*'\n--results my_results 'phantom2/Undefended/standard-*'",
    )
    add_patterns(parser)
    add_results(parser)
    add_data(parser)
    add_device(parser)
    add_entries(parser)
    parser.set_defaults(execute=execute)


def execute(args: argparse.Namespace) -> int:
    """Prints a line for each record that lacks a probe; 1 where one is of another model or data, or all are skipped."""
    import sys

    from benchmark.data_folder import data_root
    from benchmark.environment import resolve_device
    from benchmark.later_probes import LaterProbes
    from benchmark.recompute import WrongRecord
    from benchmark.recorded import Place, Skip
    from benchmark.weights import checkpoints_folder
    from registry.errors import BenchmarkError
    from results.store import RecordStore

    load_given_entries(args)
    store = RecordStore(args.results)
    place = Place(
        data_root=data_root(args.data),
        checkpoints=checkpoints_folder(args.results),
        device=resolve_device(args.device),
    )
    probes, counts = LaterProbes(store, place), dict.fromkeys(("asked", "RED", "skip", "FAIL"), 0)
    for key in chosen_keys(store.keys(), args):
        try:
            asked = probes.ask(key)
            if asked is None:
                continue
            ending, text = "RED" if asked.red else "asked", asked.text
        except Skip as reason:
            ending, text = "skip", str(reason)
        except (WrongRecord, BenchmarkError) as reason:
            ending, text = "FAIL", " ".join(str(reason).split())
        counts[ending] += 1
        print(f"{ending:<5}  {key}: {text}", flush=True)
    print(
        f"{sum(counts.values())} records lacked a probe: {counts['asked']} have it now, {counts['RED']} have a "
        f"red flag now, {counts['skip']} skipped, {counts['FAIL']} failed"
    )
    if counts["RED"]:
        print("a red flag asks for an escalation: move those records away and run their cells again")
    if counts["skip"] and counts["skip"] == sum(counts.values()):
        print("nothing could be asked: every record was skipped, see above", file=sys.stderr)
        return 1
    return 1 if counts["FAIL"] else 0
