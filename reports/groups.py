"""Data sets whose test samples are not independent of each other, and what that does to intervals and ranks."""

from __future__ import annotations

from reports.leaderboard import Leaderboard


def dependence(board: Leaderboard) -> str:
    """Returns what to know of a board whose samples come in groups; empty for all others."""
    codes = board.design.codes(board.n)
    if codes is None:
        return ""
    return (
        f"The {board.n} test samples come from {int(codes.max()) + 1} groups (the splits are "
        f"{board.dataset.split_rule}), and those of one group resemble each other. The bootstrap therefore draws whole "
        "groups, and paired tests flip the sign of whole groups."
    )
