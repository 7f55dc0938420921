"""Boards as Markdown, for people who read the repository instead of the site."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable

from reports.addresses import board_page, defense_page
from reports.groups import dependence
from reports.html import https, percent
from reports.leaderboard import Leaderboard, Row, Standings
from reports.pages import task_spec, unprobed
from reports.pooling import Pooled

HEADINGS = (
    "Rank",
    "Defense",
    "n",
    "Clean %",
    "Robust %",
    "Drop",
    "ASR %",
    "Best known %",
    "Balanced %, clean → attacked",
    "Trained for",
    "Claimed %",
    "Status",
    "Paper",
)


def render_overview(standings: Standings, fronts: Iterable[Leaderboard]) -> str:
    """Returns leaderboard.md: the ranked board of every data set.

    Args:
        standings: All boards.
        fronts: The board of each data set that is printed here.
    """
    lines = ["# MedRobustBench leaderboards", ""]
    lines += [
        f"Built from {standings.n_records} records. Scores in percent of n test samples, with 95 % intervals.",
        "",
    ]
    for board in fronts:
        lines += [f"## {escape(board.dataset.title)}, {escape(board.budget.label)}", "", *_table(board, ""), ""]
        others = [found for found in standings.boards if found.dataset.name == board.dataset.name]
        links = [f"[{escape(found.budget.label)}]({board_page(found, 'md')})" for found in others]
        lines += [f"All budgets: {', '.join(links)}.", ""]
    if standings.unreadable:
        lines += [f"{len(standings.unreadable)} records could not be read.", ""]
    return "\n".join(lines)


def render_board_markdown(board: Leaderboard) -> str:
    """Returns one board as a Markdown file."""
    title = f"# {escape(board.dataset.title)}, {escape(board.budget.label)} ({task_spec(board.dataset.task).title})"
    return "\n".join([title, "", *_table(board, "../"), ""])


def escape(text: str) -> str:
    """Returns submitted text as one line of Markdown without markup, links or HTML in it."""
    one_line = " ".join(html.escape(text, quote=False).split())
    return re.sub(r"([\\`*_{}\[\]()#|~!:])", r"\\\1", one_line)


def _table(board: Leaderboard, root: str) -> list[str]:
    lines = []
    if board.constant_predictor is not None:
        lines += [f"Constant predictor: {percent(board.constant_predictor)} % (n = {board.n}).", ""]
    if found := dependence(board):
        lines += [escape(found), ""]
    if not board.ranks:
        lines += [
            f"Not the ranked budget, which is {escape(board.dataset.ranked_budget.label)}. {unprobed(board)}".rstrip(),
            "",
        ]
    lines += [table_line(HEADINGS), table_line("---" for _ in HEADINGS)]
    lines += [table_line(_cells(row, root)) for row in board.rows]
    for failed in board.failures:
        empty = [""] * (len(HEADINGS) - 4)
        lines.append(table_line(["–", escape(failed.defense.name), *empty, f"failed: {escape(failed.message)}", ""]))
    reasons = [f"- {escape(row.defense.name)}: {escape('; '.join(row.reasons))}" for row in board.rows if row.reasons]
    return [*lines, "", *reasons] if reasons else lines


def _cells(row: Row, root: str) -> list[str]:
    paper = row.defense.paper
    url = https(paper.url) if paper else None
    name = escape(f"{paper.authors} {paper.year}") if paper else "–"
    best = ("≤ " if row.upper_bound else "") + percent(row.best_known.value)
    return [
        str(row.rank) if row.rank else "–",
        f"[{escape(row.defense.name)}]({root}{defense_page(row.defense.name)})",
        str(row.n),
        _score(row.clean),
        ("≤ " if row.upper_bound else "")
        + _score(row.robust)
        + (" ▽" if row.below_constant else "")
        + (" ◇" if row.like_constant else ""),
        ("≥ " if row.upper_bound else "") + percent(row.drop),
        _success(row),
        f"**{best}**" if row.lowered_by else best,
        _balanced(row),
        escape(", ".join(budget.label for budget in row.trained_for)) or "–",
        ", ".join(percent(claim.value) for claim in row.claims) or "none entered",
        row.status + (" ‡" if row.older_ensemble else ""),
        f"[{name}](<{url}>)" if url else name,
    ]


def _success(row: Row) -> str:
    found = row.attack_success_rate
    return ("≥ " if row.upper_bound else "") + _score(found) if found else "–"


def _balanced(row: Row) -> str:
    found = row.balanced
    if found is None:
        return "–"
    clean = percent(found.clean.value) if found.clean else "–"
    return f"{clean} → {'≤ ' if row.upper_bound else ''}{_score(found.attacked)}"


def _score(pooled: Pooled) -> str:
    return f"{percent(pooled.value)} [{percent(pooled.estimate.low)}, {percent(pooled.estimate.high)}]"


def table_line(cells: Iterable[str]) -> str:
    """Returns one row of a table."""
    return "| " + " | ".join(cells) + " |"
