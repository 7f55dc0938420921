"""No page is built from numbers that contradict a proof: best-known scores against certificates."""

from __future__ import annotations

import numpy as np

from registry.errors import ResultsError, ViolatedCertificateError
from reports.cards import Cell
from reports.scores import ContestScores
from reports.selection import Contest
from results.best_known import ReadSamples
from results.certificates import CERTIFIED, certified_column, violated
from results.sample_table import SAMPLE_ID


def check_contest(contest: Contest, scores: ContestScores, samples_of: ReadSamples) -> None:
    """Compares the lowest score that any record holds of a sample with its certificate.

    Args:
        contest: The cells that meet.
        scores: Their per-sample scores.
        samples_of: Reads a record's sample table.

    Raises:
        ViolatedCertificateError: A score is lower than its certificate allows.
    """
    for name, cells in contest.entrants.items():
        found = scores.of(name)
        for seed, cell in enumerate(cells):
            for label, bounds in _bounds(cell, samples_of).items():
                if found is None or label not in found.best_known:
                    continue
                stochastic = cell.defense.randomness != "none"
                below = violated(found.best_known[label][seed], bounds, stochastic=stochastic)
                if below.any():
                    raise ViolatedCertificateError(
                        f"record {cell.record.key}: {int(below.sum())} samples have a best-known score at {label} "
                        f"below their certificate, e.g. sample {found.sample_ids[below.argmax()]}; no page is built: "
                        "the certificate of the entry is wrong, or a record is"
                    )


def _bounds(cell: Cell, samples_of: ReadSamples) -> dict[str, np.ndarray]:
    """Returns the certificates of a cell by the budget's label, in the order of the sample ids."""
    with_bounds = {budget.label: k for k, (budget, result) in enumerate(cell.budgets) if CERTIFIED in result.metrics}
    if not with_bounds:
        return {}
    try:
        frame = samples_of(cell.record).sort_values(SAMPLE_ID)
    except ResultsError:  # the pages name the lost table
        return {}
    columns = {label: certified_column(k) for label, k in with_bounds.items()}
    return {label: frame[name].to_numpy(np.float64) for label, name in columns.items() if name in frame}
