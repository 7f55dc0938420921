"""`challenge`: adversarials that somebody hands in, checked and evaluated."""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmark.commands.options import (
    add_command,
    add_data,
    add_device,
    add_entries,
    add_results,
    eps,
    load_given_entries,
    seed,
)


def add_to(commands: argparse._SubParsersAction) -> None:
    """Adds the command to the parser."""
    parser = add_command(
        commands,
        "challenge",
        "evaluate adversarials that you hand in; they lower the best-known number where they do better",
        "found.npz --defense JPEG --dataset breastmnist --eps 4/255\n"
        "found.npz --defense JPEG --dataset breastmnist --eps 0.5 --norm L2 --by Doe2027",
    )
    parser.add_argument(
        "file",
        metavar="FILE.npz",
        type=Path,
        help="arrays adversarials (n, ...), float32 in [0, 1] or uint8, and sample_ids (n,), rows of the test split",
    )
    parser.add_argument("--defense", metavar="D", required=True, help="name of the defense")
    parser.add_argument("--dataset", metavar="S", required=True, help="name of the data set")
    parser.add_argument("--eps", metavar="E", type=eps, required=True, help="budget in input units, e.g. 4/255")
    parser.add_argument(
        "--norm", choices=("Linf", "L2", "L0"), default="Linf", help="norm of the budget; L0: pixels (default: Linf)"
    )
    parser.add_argument("--seed", metavar="N", type=seed, default=0, help="training seed of the weights (default: 0)")
    parser.add_argument("--by", metavar="NAME", default="", help="who found them; boards name you")
    add_results(parser)
    add_data(parser)
    add_device(parser)
    add_entries(parser)
    parser.set_defaults(execute=execute)


def execute(args: argparse.Namespace) -> int:
    """Evaluates the file and writes a record where it lowers a best-known score."""
    from benchmark.challenge import Challenge, evaluate_challenge
    from benchmark.data_folder import data_root
    from benchmark.environment import resolve_device
    from benchmark.weights import checkpoints_folder
    from registry import Budget, Norm
    from results.store import RecordStore

    load_given_entries(args)
    store = RecordStore(args.results)
    challenge = Challenge(
        path=args.file,
        defense=args.defense,
        dataset=args.dataset,
        budget=Budget(norm=Norm(args.norm), eps=args.eps),
        seed=args.seed,
        by=args.by,
    )
    result = evaluate_challenge(
        challenge,
        store,
        data_root=data_root(args.data),
        checkpoints=checkpoints_folder(args.results),
        device=resolve_device(args.device),
    )
    print("\n".join(_lines(result, challenge.budget.label)))
    if result.lowered:
        print(f"record: {store.write(result.record, result.table, result.adversarials)}")
        print(f"pages: python -m benchmark report --results {args.results}")
    return 0


def _lines(result, label: str) -> list[str]:
    record = result.record
    n, robust, clean = record.n_planned, record.budgets[0].metrics["robust"].value, record.clean["clean"].value
    lines = [f"accepted: {n} adversarials within {label} take {record.quality} from {clean:.1%} to {robust:.1%} there"]
    if result.ranked is None:
        lines.append(f"no ranking record of these weights at {label}: {result.lowered} of {n} samples lowered, kept")
    elif result.lowered:
        before, after = result.before.estimate, result.after.estimate
        lines.append(
            f"lowers the best-known score of {result.lowered} samples: {before.value:.1%} -> {after.value:.1%} "
            f"(n = {after.n}, {result.ranked.key})"
        )
    else:
        known = result.before.estimate
        lines.append(
            f"lowers no sample: the best known of {known.value:.1%} (n = {known.n}) stays, and nothing is written"
        )
    return lines
