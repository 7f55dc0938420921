"""The result tables of README.md, between two marks, from `leaderboard.json` alone."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from registry import DATASETS
from registry.errors import ResultsError
from reports.ensembles import OLDER
from reports.markdown import escape
from results.atomic_file import write_atomically

BEGIN, END = "<!-- results: begin (made by python -m benchmark report) -->", "<!-- results: end -->"
SMALLER = "Linf 4/255"
"""Budget that every table shows beside the ranked one."""

Row = Mapping[str, object]


def with_tables(readme: str, leaderboard: str) -> str:
    """Returns the text of a README with its result tables made anew.

    Args:
        readme: The text, which holds both marks.
        leaderboard: The text of `leaderboard.json`.

    Raises:
        ResultsError: The marks are missing.
    """
    before, begin, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ResultsError(f"expected the marks {BEGIN!r} and {END!r} in the README, found {bool(begin)}, {bool(end)}")
    return f"{before}{begin}\n\n{_tables(json.loads(leaderboard)['rows'])}\n{end}{after}"


def update(readme: Path, leaderboard: Path, *, check: bool) -> bool:
    """Writes the tables of a README, or only compares them, and returns whether they were up to date.

    Raises:
        ResultsError: The marks are missing, or the file cannot be written and stays as it is.
    """
    old = readme.read_text(encoding="utf-8")
    new = with_tables(old, leaderboard.read_text(encoding="utf-8"))
    if new != old and not check:
        write_atomically(readme, new.encode())
    return new == old


def _tables(rows: Iterable[Row]) -> str:
    """Returns a table for each data set of real images that has a ranked board in a ball around each image."""
    balls = [row for row in rows if row["threat_model"]["kind"] == "ball" and row["threat_model"]["scope"] == "each"]
    smaller = {(row["dataset"], row["defense"]): row for row in balls if row["threat_model"]["label"] == SMALLER}
    tables = []
    for spec in DATASETS:
        ranked = [row for row in balls if row["dataset"] == spec.name and row["ranked_budget"]]
        if ranked and not spec.embedded:
            tables.append(_table(spec.title, ranked, smaller))
    return "\n".join(tables)


def _table(title: str, rows: list[Row], smaller: Mapping[tuple[str, str], Row]) -> str:
    label, quality = rows[0]["threat_model"]["label"], rows[0]["quality"]
    graded = quality != "accuracy"
    full = max(row["n"] for row in rows)
    heads = [f"{title} (n {full}), {escape(quality)} in %", "seeds", "clean"]
    heads += [f"robust at {label}", "95 % interval", f"at {SMALLER}"]
    heads += [*([] if graded else ["balanced, clean → robust"]), "status"]
    lines = [_line(heads), _line(["---"] * len(heads))]
    for row in sorted(rows, key=lambda row: (row["rank"] is None, -_best(row), row["defense"])):
        other = smaller.get((row["dataset"], row["defense"]))
        low, high = row["best_known_interval"] or row["robust_interval"]
        fewer = "" if row["n"] == full else f" (n {row['n']})"
        cells = [escape(row["defense"]) + fewer, str(len(row["seeds"])), _percent(row["clean"]), _bound(row)]
        cells += [f"{_percent(low)}-{_percent(high)}", _bound(other) if other else ""]
        cells += [] if graded else [_balanced(row)]
        lines.append(_line([*cells, _status(row)]))
    constant = rows[0]["constant_predictor"]
    if constant is not None:
        share = _percent(constant)
        chance = _percent(1 / len(DATASETS[rows[0]["dataset"]].class_names))
        name = "*any constant answer*" if graded else "*always the most frequent class*"
        balanced = [] if graded else [f"{chance} → {chance}"]
        lines.append(_line([name, "", share, share, "", share, *balanced, ""]))
    return "\n".join(lines) + "\n"


def _best(row: Row) -> float:
    """Returns the lowest score that is known of a row."""
    return min(row["robust"], row["robust"] if row["best_known"] is None else row["best_known"])


def _bound(row: Row) -> str:
    """Returns the lowest score, as a bound where it is one, with a mark where it lies under the constant answer."""
    mark = " ▽" if row["below_constant"] else ""
    return ("≤ " if row["upper_bound"] else "") + _percent(_best(row)) + mark


def _balanced(row: Row) -> str:
    found = row["balanced_accuracy"]
    bound = "≤ " if row["upper_bound"] else ""
    return "" if not found else f"{_percent(found['clean'])} → {bound}{_percent(found['attacked'])}"


def _status(row: Row) -> str:
    """Returns the status, with a mark where the record lacks an attack that runs today."""
    return row["status"] + (" ‡" if any(OLDER in reason for reason in row["reasons"]) else "")


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"
