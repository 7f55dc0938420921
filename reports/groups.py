"""Data sets whose test samples are not independent of each other, and what that does to intervals and ranks."""

from __future__ import annotations

from reports.leaderboard import Leaderboard

SOURCES = {"msd_hippocampus": "slices of 52 volumes, 6 of each"}
"""What the samples of a whole test split are, by data set: records do not say which of them belong together."""


def dependence(board: Leaderboard) -> str:
    """Returns what to know of a board whose samples come in groups; empty for all others."""
    source = SOURCES.get(board.dataset.name)
    if source is None:
        return ""
    return (
        f"The {board.dataset.n_test} test samples are {source}, and those of one resemble each other. Intervals and "
        "paired tests count every sample on its own and are therefore too narrow: drawn by volume, 20 intervals "
        "of committed rows came out 2 to 31 % wider. Read close ranks with that in mind."
    )
