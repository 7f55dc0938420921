"""`controls`: the benchmark's own score, from records."""

from __future__ import annotations

import argparse

from benchmark.commands.options import add_command, add_results


def add_to(commands: argparse._SubParsersAction) -> None:
    """Adds the command to the parser."""
    parser = add_command(
        commands,
        "controls",
        "print how the benchmark did on defenses whose truth is known; evaluate them by: run --suite controls",
        "\n--results my_results\n--dataset phantom2",
    )
    parser.add_argument("--dataset", metavar="D", help="only this data set")
    add_results(parser)
    parser.set_defaults(execute=execute)


def execute(args: argparse.Namespace) -> int:
    """Prints a table for each data set; fails where a control was missed, falsely doubted or measured too high."""
    from registry.errors import ResultsError
    from reports.exam import Outcome
    from reports.standings import build_standings
    from results.store import RecordStore

    exams = build_standings(RecordStore(args.results)).exams
    exams = [exam for exam in exams if args.dataset in (None, exam.dataset.name)]
    if not exams:
        raise ResultsError(
            f"no record of a control in {args.results}; make some: python -m benchmark run --suite controls"
        )
    print("\n\n".join(_text(exam) for exam in exams))
    wrong = (Outcome.MISSED, Outcome.FALSE_ALARM, Outcome.TOO_HIGH)
    return 1 if any(exam.count(*wrong) for exam in exams) else 0


def _text(exam) -> str:
    from benchmark.table import format_table

    headings = ("control", "kind", "seeds", "n", "clean", "truth", "measured", "status", "outcome", "red flags")
    rows = [
        (
            row.defense.name,
            "broken" if row.broken else "honest",
            ",".join(map(str, row.seeds)) or "-",
            row.n,
            _percent(row.clean),
            "-" if row.truth is None else ("~ " if row.apart else "= " if row.exact else "<= ") + _percent(row.truth),
            _percent(row.measured),
            row.status,
            row.outcome,
            row.flags_in_words,
        )
        for row in exam.rows
    ]
    title = f"{exam.dataset.title}, {exam.rows[0].budget.label}: {exam.in_words}\n{exam.truths_in_words}"
    return f"{title}\n{format_table(headings, rows)}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"
