"""What `explain` says of a control: it stands on no board, the exam judges it."""

from __future__ import annotations

import textwrap

from reports.controls import is_control
from reports.exam import TOLERANCE, ControlRow, Outcome
from reports.leaderboard import Standings

WIDTH = 110
POINTS = f"{100 * TOLERANCE:.0f} points"
OUTCOMES = {
    Outcome.CAUGHT: f"it is broken, and the benchmark says so: a flag keeps it from being verified, or its score is at "
    f"most {POINTS} above 0 or an exact truth",
    Outcome.MISSED: "it is broken, and was verified at a number that is too high: the benchmark was fooled",
    Outcome.NOT_GRADED: f"it is broken and was verified above {POINTS}, and nothing but its own attacks is known of it",
    Outcome.ACCEPTED: "it is honest, was verified, and is not above its exact truth",
    Outcome.NOT_CONTESTED: "it is honest and was verified; nothing but its own attacks is known of its score",
    Outcome.FALSE_ALARM: "it is honest, and a flag keeps it from being verified",
    Outcome.TOO_HIGH: "it is honest, and was verified at a number that is too high: the attacks are too weak",
    Outcome.INCOMPLETE: "it was not evaluated to the end",
}
"""What an outcome means."""


def is_a_control(standings: Standings, defense: str) -> bool:
    """Returns whether a defense is known as a control, which stands on no board."""
    rows = (row for exam in standings.exams for row in exam.rows)
    known = any(row.defense.name == defense and row.defense.family.startswith("control-") for row in rows)
    return known or any(cell.defense.name == defense and is_control(cell) for cell in standings.others)


def explain_control(standings: Standings, defense: str, dataset: str) -> list[str]:
    """Returns what the exam says of a control on a data set, one text; nothing for what is no control there."""
    rows = [row for exam in standings.exams for row in exam.rows if row.defense.family.startswith("control-")]
    found = [_explain(row) for row in rows if (row.defense.name, row.dataset.name) == (defense, dataset)]
    cells = [c for c in standings.others if (c.defense.name, c.dataset.name) == (defense, dataset) and is_control(c)]
    if found or not cells:
        return found
    protocols = ", ".join(sorted({cell.protocol for cell in cells}))
    run = f"python -m benchmark run --suite controls --dataset {dataset} --defense {defense}"
    return [
        f"{defense} on {cells[0].dataset.title}: a control, which stands on no board\n"
        + _wrapped(f"no exam holds it at the data set's ranked budget; its records are of {protocols}")
        + "\n\nWhat would settle it\n"
        + _wrapped(f"- run it: {run}")
    ]


def _explain(row: ControlRow) -> str:
    kind = "broken" if row.broken else "honest"
    lines = [
        f"{row.defense.name} on {row.dataset.title}, {row.budget.label}: a control ({kind}), {row.outcome}",
        _wrapped("a control stands on no board: something is known of its score, and it tests the benchmark itself"),
        _wrapped(f"{row.outcome} means: {OUTCOMES[row.outcome]}"),
    ]
    if row.defense.truth is not None:
        lines.append(_wrapped(f"what is known of it, by {row.defense.truth.known_by}: {row.defense.truth.statement}"))
    if row.measured is not None:
        lines += ["", f"  clean    {row.clean:.1%} (n = {row.n})", f"  measured {row.measured:.1%}"]
        exact = "exactly" if row.exact else "at most, the lowest of any attack on the same weights,"
        if row.apart:
            exact = f"about, since {row.apart:.1%} of clean images score otherwise than by the model that it wraps,"
        lines.append(f"  truth    {exact} {row.truth:.1%}")
    lines += ["", "Why", *(_wrapped(f"- {text}") for text in (f"status: {row.status}", *row.reasons))]
    lines.append(_wrapped(f"- red flags: {row.flags_in_words}"))
    if row.outcome is Outcome.INCOMPLETE:
        run = f"python -m benchmark run --suite controls --dataset {row.dataset.name} --defense {row.defense.name}"
        lines += ["", "What would settle it", _wrapped(f"- run it in full: {run}")]
    return "\n".join([*lines, "", "All controls: python -m benchmark controls"])


def _wrapped(text: str) -> str:
    return textwrap.fill(text, WIDTH, initial_indent="  ", subsequent_indent="    ")
