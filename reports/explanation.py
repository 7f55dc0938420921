"""Why a row has its status, in plain words: reasons, flags, attacks, escalation, and what would settle it."""

from __future__ import annotations

import difflib
import textwrap
from collections.abc import Iterable, Sequence

from registry.errors import UnknownEntryError
from reports.control_explanation import explain_control, is_a_control
from reports.ensembles import OLDER
from reports.html import count, seconds
from reports.leaderboard import CONTESTED, UNVERIFIED, Leaderboard, Row, Standings
from reports.pages import front_board
from reports.pooling import Pooled, PooledMember

WIDTH = 110

MEANING = {
    "verified": "complete, and no probe found a sign that the number is too high",
    CONTESTED: "a probe found a sign that the number is too high, or an adaptive attack that its kind of defense needs "
    "has not run, or not to its end, so it is printed as an upper bound",
    UNVERIFIED: "incomplete, or measured on something else than the defense",
}
SETTLES = {
    "dishonest-gradient": "an attack whose backward pass goes around what bends the gradient: give each such module a "
    "`bpda_twin`, a smooth stand-in, or hand in adversarials with `challenge`",
    "zero-gradient": "a smooth stand-in (`bpda_twin`) for the stage that stops the gradient, or adversarials handed in",
    "jumping-margin": "an attack on what decides: outputs that follow the decision, a `bpda_twin` of the stage "
    "that hides it, or adversarials handed in with `challenge`",
    "discontinuous": "one answer for an image and for its rounded form: attack the model as people will use it, on "
    "multiples of 1/255, and hand in what is found with `challenge`",
    "black-box-beats-white-box": "a white-box attack that breaks at least what the black-box one broke",
    "unbounded-survivors": "an attack that breaks everything at eps = 1, as some attack must",
    "not-converged": "more steps, restarts or draws, until doubling them lowers nothing",
    "not-monotone": "longer runs at the larger budget, until its score is no higher than that of the smaller one",
    "one-step-beats-many": "a step size or a restart with which many steps do at least as well as one",
    "noise-beats-gradient": "a gradient attack that breaks at least what random points in the ball break",
    "stochastic-undeclared": 'declare `randomness="sample"` or "model" in the entry, or "none" where nothing is drawn, '
    "and run it again",
    "stateful": "outputs that depend on the input alone: no buffers that a forward pass changes, no batch statistics",
    "train-mode": "all modules in eval mode after `eval()`, or the randomness declared",
}
"""What would settle a red flag, by its name."""


def explain(standings: Standings, defense: str, dataset: str) -> str:
    """Returns why the rows of a defense on a data set have their status; of a control, what the exam says of it.

    Args:
        standings: All boards and exams.
        defense: Name of the defense.
        dataset: Name of the data set.

    Raises:
        UnknownEntryError: No record is about this pair; near matches are in the text.
    """
    groups: dict[object, list[tuple[Leaderboard, Row]]] = {}
    for board in standings.boards:
        for row in board.rows:
            if (row.defense.name, board.dataset.name) == (defense, dataset):
                groups.setdefault(board.threat_model, []).append((board, row))
    failures = [c for c in standings.failed if (c.defense.name, c.dataset.name) == (defense, dataset)]
    control = explain_control(standings, defense, dataset)
    if not groups and not failures and not control:
        raise UnknownEntryError(_unknown(standings, defense, dataset))
    parts = [*control, *(_explain(steps) for steps in groups.values())]
    for cell in failures:
        failure = cell.record.failure
        why = f"{failure.kind}: {failure.message}" if failure else "no reason was recorded"
        parts.append(
            f"{cell.record.key} failed: {why}\nwhat would settle it: mend that, and run it with --retry-failed"
        )
    return "\n\n".join(parts)


def _explain(steps: Sequence[tuple[Leaderboard, Row]]) -> str:
    """Returns the words on one threat model: the front budget in full, the others by their numbers."""
    board = front_board(found for found, _ in steps)
    row = next(row for found, row in steps if found is board)
    bound = "at most " if row.upper_bound else ""
    place = f", rank {row.rank}" if row.rank else ", without a rank"
    lines = [
        f"{row.defense.name} on {board.dataset.title}, {board.budget.label}: {row.status}{place}",
        _wrapped(f"{row.status} means: {MEANING.get(row.status, 'see the methodology page')}"),
        "",
        f"  clean {board.quality:<12} {_number(row.clean)}",
        f"  robust {board.quality:<11} {bound}{_number(row.robust)}",
    ]
    if row.lowered_by:
        lines.append(f"  best known         {_number(row.best_known)}, by {', '.join(row.lowered_by)}")
    others = [f"{found.budget.label} {_percent(own)} {own.status}" for found, own in steps if found is not board]
    if others:
        lines.append(_wrapped(f"other budgets: {'; '.join(others)}", "  "))
    lines += ["", "Why", *_bullets(row.reasons or ("every member ran on every sample, and no flag is red",))]
    elsewhere = _elsewhere((found, own) for found, own in steps if found is not board)
    lines += ["", "Why at other budgets", *_bullets(elsewhere)] if elsewhere else []
    lines += ["", *_flags(row), "", *_attacks(row), *_escalation(row)]
    return "\n".join([*lines, "", "What would settle it", *_bullets(_settles(row))])


def _elsewhere(steps: Iterable[tuple[Leaderboard, Row]]) -> list[str]:
    """Returns why rows are not verified at other budgets, or older than the ensemble; same words together."""
    groups: dict[str, list[str]] = {}
    for board, row in steps:
        why = "; ".join(text for text in row.reasons if OLDER not in text) or "no reason was recorded"
        texts = [f"{row.status} because {why}"] if row.status in (CONTESTED, UNVERIFIED) else []
        for text in (*texts, *(text for text in row.reasons if OLDER in text)):
            groups.setdefault(text, []).append(board.budget.label)
    return [f"{', '.join(labels)}: {text}" for text, labels in groups.items()]


def _flags(row: Row) -> list[str]:
    if not row.flags:
        return ["Flags", "  no probe was run"]
    several = len(row.seeds) > 1
    red = [f"{f.flag.name}{f' (seed {f.seed})' if several else ''}: {f.flag.evidence}" for f in row.flags if f.flag.red]
    quiet = [f"{f.flag.name}{f' (seed {f.seed})' if several else ''}: {f.flag.evidence}" for f in row.flags]
    lines = [f"Flags: {len(red)} red of {len(row.flags)} probes and notes", *_bullets(red, "RED ")]
    return [*lines, *_bullets([text for text in quiet if text not in red])]


def _attacks(row: Row) -> list[str]:
    """Returns which attack broke how many, with its effort; an attack met only what survived those before it."""
    lines = ["Attacks in the order they ran, each on what had survived"]
    width = max((len(member.name) for member in row.members), default=0)
    for member in row.members:
        lines.append(f"  {member.name:<{width}}  {_did(member)}")
    return lines if row.members else ["Attacks", "  none ran"]


def _did(member: PooledMember) -> str:
    effort = f"{count(member.forwards)} forwards, {count(member.backwards)} backwards, {seconds(member.seconds)}"
    text = f"broke {member.broken} of {member.attempted}, left {member.robust_after:.1%} ({effort})"
    return text + (f", ERRORS on {member.errors}" if member.errors else "")


def _escalation(row: Row) -> list[str]:
    """Returns what was tried after a red flag, where the records say."""
    lines = []
    for cell in row.cells:
        escalation = getattr(cell.record, "escalation", None)
        if escalation is None:
            continue
        names = ", ".join(flag.name for flag in escalation.flags)
        text = (
            f"after {names} it was tried by itself to do better, and the score went from "
            f"{escalation.robust_before:.1%} to {escalation.robust_after:.1%}; strongest gradient: "
            f"{escalation.strongest} ({escalation.why})"
        )
        lines += ["", f"Escalation (seed {cell.seed})", *_bullets([text])]
        lines += _bullets(f"{m.name} broke {m.broken} of {m.attempted}" for m in escalation.members)
        if escalation.failure:
            lines += _bullets([f"it did not finish: {escalation.failure}"])
    return lines


def _settles(row: Row) -> list[str]:
    """Returns what to do about a row that is not verified or older than its ensemble; nothing where it is neither."""
    texts = " ".join(row.reasons)
    run = f"python -m benchmark run --suite full --dataset {row.cells[0].dataset.name} --defense {row.defense.name}"
    older = (
        [f"move {', '.join(row.records)} out of the results folder and run it again: {run}"] if OLDER in texts else []
    )
    if row.status not in (CONTESTED, UNVERIFIED):
        return older or ["nothing is open; anyone may still lower it: python -m benchmark challenge FILE.npz --help"]
    found = [f"{name}: {SETTLES[name]}" for name in row.red_flags if name in SETTLES]
    if "knows its trick" in texts:
        found.append("an attack that knows its trick at this budget, as said above")
    if "probes were not run" in texts or "did not run" in texts or "planned" in texts or "other samples" in texts:
        found.append(f"run it in full: {run}")
    if "ended with an error" in texts:
        found.append("an attack that ends without error; its traceback: python -m benchmark show " + row.records[0])
    if "missing, damaged" in texts:
        found.append(f"restore its sample table from git, or run it again: {run}")
    return [*found, *older] or [f"run it again: {run}"]


def _unknown(standings: Standings, defense: str, dataset: str) -> str:
    pairs = [(row.defense.name, board.dataset.name) for board in standings.boards for row in board.rows]
    pairs += [(row.defense.name, row.dataset.name) for exam in standings.exams for row in exam.rows]
    pairs += [(cell.defense.name, cell.dataset.name) for cell in standings.others]
    defenses, datasets = {name for name, _ in pairs}, {name for _, name in pairs}
    for kind, name, known in (("defense", defense, defenses), ("data set", dataset, datasets)):
        if name not in known:
            by_case = [other for other in sorted(known) if other.lower() == name.lower()]
            near = by_case or difflib.get_close_matches(name, sorted(known), n=3, cutoff=0.6)
            hint = f"did you mean {' or '.join(near)}?" if near else "known names: python -m benchmark list"
            return f"no record of {kind} {name!r}; {hint}"
    if is_a_control(standings, defense):
        where = sorted({exam.dataset.name for exam in standings.exams})
        return f"{defense}, a control, was not evaluated on {dataset}; exams are held on {', '.join(where)}"
    return (
        f"no protocol that ranks has attacked {defense} on {dataset} yet; "
        f"run it: python -m benchmark run --suite full --dataset {dataset} --defense {defense}"
    )


def _number(pooled: Pooled) -> str:
    found = pooled.estimate
    return f"{found.value:.1%} (95 % interval {found.low:.1%} to {found.high:.1%}, n = {found.n})"


def _percent(row: Row) -> str:
    return f"{'at most ' if row.upper_bound else ''}{row.standing.value:.1%}"


def _bullets(texts: Iterable[str], mark: str = "") -> list[str]:
    return [textwrap.fill(f"- {mark}{text}", WIDTH, initial_indent="  ", subsequent_indent="    ") for text in texts]


def _wrapped(text: str, indent: str = "") -> str:
    return textwrap.fill(text, WIDTH, initial_indent=indent, subsequent_indent=indent + "  ")
