"""`run`: trains and evaluates a suite, resuming where the last run stopped."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from benchmark.commands.options import (
    add_command,
    add_data,
    add_device,
    add_entries,
    add_results,
    load_given_entries,
    seeds,
    whole_number,
)

if TYPE_CHECKING:
    from benchmark.plan import Plan
    from benchmark.runner import Outcome, Run

INTERRUPTED = 130
"""Exit code after Ctrl-C."""


def add_to(commands: argparse._SubParsersAction) -> None:
    """Adds the command to the parser."""
    parser = add_command(
        commands,
        "run",
        "train and evaluate what a suite names; finished cells are not repeated",
        "--suite smoke\n"
        "--suite lite --dataset breastmnist --seeds 0,1,2 --jobs 2\n"
        "--suite full --task segmentation --dry-run\n"
        "--suite lite --entries my_defense.py --defense MyDefense --results my_results",
    )
    parser.add_argument(
        "--suite", metavar="{smoke,lite,full,controls}", required=True, help="what to run, see: list suites"
    )
    parser.add_argument("--task", metavar="T", help="only data sets of this task")
    for name, noun in (("dataset", "data sets"), ("defense", "defenses"), ("protocol", "protocols")):
        parser.add_argument(
            f"--{name}",
            metavar="GLOB",
            action="append",
            default=[],
            help=f"{noun} by name or shell pattern, instead of the suite's; may be given several times",
        )
    parser.add_argument("--n", metavar="N", type=whole_number, help="test samples of each data set, the first ones")
    parser.add_argument("--seeds", metavar="0,1,2", type=seeds, help="training seeds (default: the suite's)")
    add_device(parser)
    add_data(parser)
    add_results(parser)
    add_entries(parser)
    parser.add_argument(
        "--jobs",
        metavar="N",
        type=whole_number,
        default=1,
        help="cells computed side by side, in processes that share the cores or the GPU (default: 1)",
    )
    parser.add_argument("--dry-run", action="store_true", help="print the plan, with skips and an estimate, and stop")
    parser.add_argument("--retry-failed", action="store_true", help="repeat cells that failed in an earlier run")
    parser.add_argument("--quiet", action="store_true", help="no progress, only the summary")
    parser.set_defaults(execute=execute)


def execute(args: argparse.Namespace) -> int:
    """Plans, then runs what is missing, and prints how it ended."""
    plan = _plan(args)
    from registry.sources import EVALUATION, sources_sha256

    sources = sources_sha256(EVALUATION, args.entries)  # before anything runs: files may change meanwhile
    from benchmark.data_folder import data_root
    from benchmark.environment import resolve_device
    from benchmark.estimate import Costs
    from benchmark.runner import Run
    from benchmark.weights import checkpoints_folder
    from benchmark.work import Workplace
    from results.store import RecordStore

    device = resolve_device(args.device)
    store = RecordStore(args.results)
    costs = Costs()
    costs.learn_from(_comparable(store, plan), on_gpu=device != "cpu")
    work = Workplace(
        data_root=data_root(args.data),
        checkpoints=checkpoints_folder(args.results),
        device=device,
        results=args.results,
        sources=sources,
    )
    if args.dry_run:
        from benchmark.plan_text import describe

        print(describe(plan, store, work, costs, retry_failed=args.retry_failed))
        return 0
    run = Run(plan, store, work, costs, retry_failed=args.retry_failed, quiet=args.quiet)
    try:
        _walk(run, args)
    except KeyboardInterrupt:
        print(
            f"interrupted after {len(run.outcome.done)} finished evaluations; nothing is half-written: "
            "the same command goes on from here",
            file=sys.stderr,
        )
        return INTERRUPTED
    print(_summary(plan, run.outcome, args))
    if not plan.evaluations and plan.skips:
        print("nothing could be evaluated: all that was asked for is skipped, see above", file=sys.stderr)
        return 1
    return run.outcome.exit_code


def _walk(run: Run, args: argparse.Namespace) -> None:
    """Works through the plan, with helpers where asked for; all share the cores of the machine evenly."""
    from benchmark.helpers import end_with_parent, helpers

    end_with_parent()
    if args.jobs == 1:
        run.walk()
        return
    import torch

    before = torch.get_num_threads()
    threads = max(1, before // args.jobs)
    torch.set_num_threads(threads)
    try:
        with helpers(args.words, args.jobs - 1, threads):
            run.walk()
    finally:
        torch.set_num_threads(before)


def _plan(args: argparse.Namespace) -> Plan:
    """Returns the plan of the command line; user's mistakes show up here, before anything heavy is imported."""
    import benchmark.suites  # noqa: F401 - registers the suites
    from benchmark.data_folder import data_root, present_datasets
    from benchmark.obstacles import Machine
    from benchmark.plan import plan
    from benchmark.selection import Choice, Registries, foreign_sources, select
    from registry import SUITES

    load_given_entries(args)
    choice = Choice(
        task=args.task,
        datasets=tuple(args.dataset),
        defenses=tuple(args.defense),
        protocols=tuple(args.protocol),
        n_samples=args.n,
        seeds=args.seeds,
    )
    selection = select(SUITES[args.suite], choice, Registries())
    from benchmark.environment import resolve_device

    insists = args.device != "auto"
    device = resolve_device(args.device)
    machine = Machine(
        datasets=present_datasets(selection.datasets, data_root(args.data)),
        large_inputs=insists or device != "cpu",
    )
    return plan(selection, machine, Registries(sources=foreign_sources()))


def _comparable(store, plan: Plan):
    """Yields the records on the data sets of a plan: those its cells are compared with."""
    from registry.errors import ResultsError

    datasets = {cell.dataset for cell in plan.evaluations}
    every = store.keys()
    for key in every:
        if key.split("/")[0] not in datasets:
            continue
        try:
            yield store.read(key)
        except ResultsError:
            continue


def _summary(plan: Plan, outcome: Outcome, args: argparse.Namespace) -> str:
    from benchmark.plan_text import skip_lines

    lines = [
        f"{len(outcome.done)} evaluations done now, {len(outcome.reused)} before, "
        f"{len(outcome.failed)} failed; records in {args.results}"
    ]
    lines.extend(f"failed: {key}: {text}" for key, text in outcome.failed.items())
    lines.extend(f"failed in an earlier run: {key}" for key in outcome.failed_before)
    if outcome.failed or outcome.failed_before:
        lines.append("see why: python -m benchmark show KEY; run failed cells again: add --retry-failed")
    lines.extend(skip_lines(plan.skips))
    if outcome.done or outcome.reused:
        lines.append(f"pages: python -m benchmark report --results {args.results}")
    return "\n".join(lines)
