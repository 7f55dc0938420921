"""The page of a corruption board, as HTML and as Markdown."""

from __future__ import annotations

from jinja2 import Environment

from reports.addresses import board_page, corruption_page, defense_page
from reports.corrupted_scores import CorruptedScore
from reports.corruption import CorruptionBoard, CorruptionRow
from reports.html import percent
from reports.leaderboard import Leaderboard, Standings
from reports.markdown import escape, table_line
from reports.pages import BELOW_ROOT, task_spec
from reports.rank_correlation import ENOUGH_ROWS, Correlation
from results.record import Estimate

PLAIN = ("the corruption mean", "the ranked robust score")
BALANCED = ("the balanced corruption mean", "the balanced ranked robust score")
VERBS = {1: "score higher", -1: "score lower", 0: "are not shown to score higher or lower"}
"""What rows that score higher under attack do under corruptions, by the direction of a correlation."""


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
        correlations=correlation_texts(board),
        rows=[{"row": row, "href": BELOW_ROOT + defense_page(row.defense.name)} for row in board.rows],
        robust=robust_text,
        balanced_robust=balanced_robust_text,
        markdown=BELOW_ROOT + corruption_page(board.dataset.name, "md"),
    )


def render_corruption_markdown(board: CorruptionBoard) -> str:
    """Returns one corruption board as a Markdown file."""
    pair = " %" if board.chance is None else " % (balanced)"
    heads = ["Defense", "Seeds", "n", "Clean %"]
    heads += [] if board.chance is None else ["Balanced mean %"]
    heads += ["Mean %", *(escape(name) + pair for name in board.names), "Ranked robust" + pair]
    lines = [
        f"# {escape(board.dataset.title)}, corruptions ({task_spec(board.dataset.task).title})",
        "",
        f"Mean {board.quality} over severities, no worst case. " + " ".join(correlation_texts(board)),
        "",
        *_constant_lines(board),
        table_line(heads),
        table_line("---" for _ in heads),
        *(table_line(_cells(row, board)) for row in board.rows),
    ]
    return "\n".join([*lines, ""])


def _constant_lines(board: CorruptionBoard) -> list[str]:
    """Returns the line of the constant predictor, the meaning of the marks, and the order of the rows."""
    lines = []
    if board.constant_predictor is not None:
        lines = [f"Constant predictor: {percent(board.constant_predictor)} % (n = {board.n})."]
        lines += ["▽: the interval lies below the constant predictor."]
    if board.chance is not None:
        chance = percent(board.chance)
        lines += [f"Balanced accuracy of a constant answer: {chance} %. ◇: the interval is not above that."]
        lines += ["Rows are ordered by their balanced mean."]
    return [" ".join(lines), ""] if lines else []


def _cells(row: CorruptionRow, board: CorruptionBoard) -> list[str]:
    average, robust = row.average, robust_text(row)
    if board.chance is not None and row.balanced_robust is not None:
        robust += f" ({balanced_robust_text(row)})"
    return [
        f"[{escape(row.defense.name)}](../{defense_page(row.defense.name)})",
        ", ".join(map(str, row.seeds)),
        str(row.n),
        percent(row.clean.value),
        *([] if board.chance is None else [_balanced(average, with_interval=True)]),
        _plain(average, with_interval=True),
        *(_both(row.average_of(name)) for name in board.names),
        robust,
    ]


def _both(score: CorruptedScore | None) -> str:
    return _plain(score) + (f" ({_balanced(score)})" if score and score.recalls else "")


def _plain(score: CorruptedScore | None, with_interval: bool = False) -> str:
    if score is None:
        return "–"
    return _with_ends(score.plain, with_interval) + (" ▽" if score.below_constant else "")


def _balanced(score: CorruptedScore | None, with_interval: bool = False) -> str:
    if score is None or not score.recalls:
        return "–"
    return _with_ends(score.balanced, with_interval) + (" ◇" if score.at_chance else "")


def _with_ends(found: Estimate, with_interval: bool) -> str:
    ends = f" [{percent(found.low)}, {percent(found.high)}]" if with_interval else ""
    return percent(found.value) + ends


def robust_text(row: CorruptionRow) -> str:
    """Returns the score at the ranked budget of a row's training seeds in percent, as the bound that it may be."""
    return _bound(row, row.robust)


def balanced_robust_text(row: CorruptionRow) -> str:
    """Returns the balanced accuracy at the ranked budget of the same training seeds in percent."""
    return _bound(row, row.balanced_robust)


def _bound(row: CorruptionRow, value: float | None) -> str:
    if value is None:
        return "–"
    return ("≤\u2009" if row.ranked.upper_bound else "") + percent(value)


def correlation_texts(board: CorruptionBoard) -> list[str]:
    """Returns the rank correlation of the plain scores, that of the balanced ones, and what the two of them mean."""
    texts = [correlation_text(board.correlation, PLAIN)]
    if board.chance is None:
        return texts
    texts.append(correlation_text(board.balanced_correlation, BALANCED))
    meaning = meaning_text(board.correlation, board.balanced_correlation, board.quality)
    return [*texts, meaning] if meaning else texts


def correlation_text(found: Correlation | None, of: tuple[str, str] = PLAIN) -> str:
    """Returns a rank correlation as a sentence, with the number of rows it is taken over and how far to trust it.

    Args:
        found: The correlation, None where it could not be taken.
        of: What the two scores are called.
    """
    if found is None:
        return f"Too few verified rows, or all equal: no rank correlation of {of[0]} with {of[1]}."
    interval = f" (95 % interval {found.interval[0]:.2f} to {found.interval[1]:.2f})" if found.interval else ""
    caution = f" Fewer than {ENOUGH_ROWS} rows are too few for an interval: it says little."
    return (
        f"Rank correlation of {of[0]} with {of[1]} of the same training seeds: "
        f"Spearman {found.spearman:.2f}{interval}, Kendall {found.kendall:.2f} (n = {found.n} rows)."
        + (caution if found.n < ENOUGH_ROWS else "")
    )


def meaning_text(plain: Correlation | None, balanced: Correlation | None, quality: str) -> str:
    """Returns in words what both rank correlations show, and which to trust; empty where rows are too few to tell.

    Args:
        plain: That of the mean scores.
        balanced: That of the balanced scores.
        quality: Name of the score, e.g. "accuracy".
    """
    if plain is None or balanced is None or None in (plain.direction, balanced.direction):
        return ""
    rows = "rows that score higher under attack"
    if plain.direction == balanced.direction:
        return f"By {quality} as by balanced accuracy, {rows} {VERBS[plain.direction]} under corruptions."
    return (
        f"By {quality}, {rows} {VERBS[plain.direction]} under corruptions; by balanced accuracy they "
        f"{VERBS[balanced.direction]}. Where the two differ, trust the second: a row that answers the majority class "
        f"whatever the image shows does well by {quality}, under attack and under corruptions, yet no better than any "
        "constant answer by balanced accuracy."
    )
