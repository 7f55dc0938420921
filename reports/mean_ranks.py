"""Ranks over several data sets: of defenses that were ranked on all of them, among themselves."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import fmean

from reports.leaderboard import Leaderboard
from results.ranks import tie_groups


def mean_ranks(boards: Iterable[Leaderboard]) -> dict[str, float]:
    """Returns the mean rank of each defense that is ranked on every board that counts; empty for fewer than two.

    On each board those defenses are ranked again without the others: a rank counts the rows that are better, so that
    one entered on a single data set would worsen the mean of all that it beats there.

    Args:
        boards: One for each data set; small test sets do not count.
    """
    counted = [board for board in boards if board.in_aggregate]
    if len(counted) < 2:
        return {}
    compared = [row.defense.name for row in counted[0].ranked]
    compared = [name for name in compared if all(name in board.ranked_scores for board in counted[1:])]
    places = [_ranks(board, compared) for board in counted]
    return {name: fmean(place[name] for place in places) for name in compared}


def _ranks(board: Leaderboard, compared: Sequence[str]) -> dict[str, int]:
    if len(compared) == len(board.ranked):
        return {row.defense.name: row.rank for row in board.ranked}
    places = tie_groups({name: board.ranked_scores[name] for name in compared}, board.design)
    return {name: place.rank for name, place in places.items()}
