"""The page of a corruption board, as HTML and as Markdown."""

from __future__ import annotations

from jinja2 import Environment

from reports.addresses import board_page, corruption_page, defense_page
from reports.corruption import ENOUGH_ROWS, Correlation, CorruptionBoard, CorruptionRow
from reports.html import percent
from reports.leaderboard import Leaderboard, Standings
from reports.markdown import escape, table_line
from reports.pages import BELOW_ROOT, task_spec


def render_corruption(env: Environment, standings: Standings, board: CorruptionBoard, front: Leaderboard | None) -> str:
    """Returns the page of one corruption board.

    Args:
        env: The environment.
        standings: All boards, for the footer.
        board: The board.
        front: The adversarial board of the data set, or None where it has none.
    """
    return env.get_template("corruption.html").render(
        page="board",
        root=BELOW_ROOT,
        site=standings,
        board=board,
        task=task_spec(board.dataset.task),
        front={"label": front.budget.label, "href": BELOW_ROOT + board_page(front)} if front else None,
        correlation=correlation_text(board.correlation),
        rows=[{"row": row, "href": BELOW_ROOT + defense_page(row.defense.name)} for row in board.rows],
        robust=robust_text,
        markdown=BELOW_ROOT + corruption_page(board.dataset.name, "md"),
    )


def render_corruption_markdown(board: CorruptionBoard) -> str:
    """Returns one corruption board as a Markdown file."""
    heads = [
        "Defense",
        "Seeds",
        "n",
        "Clean %",
        "Mean %",
        *(f"{escape(name)} %" for name in board.names),
        "Ranked robust %",
    ]
    lines = [
        f"# {escape(board.dataset.title)}, corruptions ({task_spec(board.dataset.task).title})",
        "",
        f"Mean {board.quality} over severities, no worst case. {correlation_text(board.correlation)}",
        "",
        table_line(heads),
        table_line("---" for _ in heads),
    ]
    for row in board.rows:
        means = [row.mean, *(row.mean_of(name) for name in board.names)]
        lines.append(
            table_line(
                [
                    f"[{escape(row.defense.name)}](../{defense_page(row.defense.name)})",
                    ", ".join(map(str, row.seeds)),
                    str(row.n),
                    percent(row.clean.value),
                    *("–" if value is None else percent(value) for value in means),
                    robust_text(row),
                ]
            )
        )
    return "\n".join([*lines, ""])


def robust_text(row: CorruptionRow) -> str:
    """Returns the score at the ranked budget of a row's training seeds in percent, as the bound that it may be."""
    if row.robust is None:
        return "–"
    return ("≤\u2009" if row.ranked.upper_bound else "") + percent(row.robust)


def correlation_text(found: Correlation | None) -> str:
    """Returns the rank correlation as a sentence, with the number of rows it is taken over and how far to trust it."""
    if found is None:
        return "Too few verified rows, or all equal: no rank correlation with the ranked robust score."
    interval = f" (95 % interval {found.interval[0]:.2f} to {found.interval[1]:.2f})" if found.interval else ""
    caution = f" Fewer than {ENOUGH_ROWS} rows are too few for an interval: it says little."
    return (
        "Rank correlation of the corruption mean with the ranked robust score of the same training seeds: "
        f"Spearman {found.spearman:.2f}{interval}, Kendall {found.kendall:.2f} (n = {found.n} rows)."
        + (caution if found.n < ENOUGH_ROWS else "")
    )
