"""What others have published of these methods, held against the records: one relation of each family.

Numbers of different data and networks cannot be compared; which of two methods is ahead, and what breaks, can.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import fmean

from reports.leaderboard import Leaderboard, Row, Standings
from results.record import RecordStatus

BREAST, PNEUMONIA = "breastmnist", "pneumoniamnist"
NOTICEABLE, CLEAR, LARGE = 0.05, 0.2, 0.5
"""Differences of scores that a relation speaks of as such."""
BROKEN = 0.15
"""Robust score under which a defense has fallen."""


@dataclass(frozen=True, kw_only=True)
class Check:
    """One published relation."""

    statement: str
    source: str
    numbers: tuple[tuple[str, float], ...]
    """What was measured: a label, and a score from 0 to 1."""
    holds: bool


class _Measured:
    """Scores by defense; each one that is asked for is noted."""

    def __init__(self, standings: Standings) -> None:
        self._boards = standings.boards
        self._others = standings.others
        self.noted: dict[str, float] = {}

    def clean(self, defense: str, dataset: str = BREAST) -> float:
        return self._note(f"{defense}, clean", self._row(defense, dataset, 8).clean.value)

    def robust(self, defense: str, dataset: str = BREAST, levels: int = 8) -> float:
        row = self._row(defense, dataset, levels)
        return self._note(f"{defense}, Linf {levels}/255", row.robust.value)

    def certified(self, defense: str) -> float:
        found = self._row(defense, BREAST, 8).certified
        if found is None:
            raise LookupError(f"{defense} has no certified score")
        return self._note(f"{defense}, certified at Linf 8/255", found.value)

    def under(self, protocol: str, defense: str, label: str) -> float:
        """Returns the score under a protocol that does not rank, at one budget; the mean over training seeds."""
        found = [
            result.metrics["robust"].value
            for cell in self._others
            if (cell.dataset.name, cell.defense.name, cell.protocol) == (BREAST, defense, protocol)
            and cell.record.status is RecordStatus.DONE
            for budget, result in cell.budgets
            if budget.label == label and "robust" in result.metrics
        ]
        if not found:
            raise LookupError(f"no record of {defense} under {protocol} at {label}")
        return self._note(f"{defense}, {protocol}, {label}", fmean(found))

    def _note(self, label: str, value: float) -> float:
        self.noted[label] = value
        return value

    def _row(self, defense: str, dataset: str, levels: int) -> Row:
        return _rows(self._boards, dataset, f"Linf {levels}/255")[defense]


def _rows(boards: tuple[Leaderboard, ...], dataset: str, label: str) -> Mapping[str, Row]:
    here = (board for board in boards if (board.dataset.name, board.budget.label) == (dataset, label))
    return {row.defense.name: row for board in here for row in board.rows}


def external_checks(standings: Standings) -> tuple[Check, ...]:
    """Returns every relation whose scores the records hold, with what was measured."""
    found = []
    for (statement, source), holds in RELATIONS.items():
        measured = _Measured(standings)
        try:
            kept = holds(measured)
        except LookupError:
            continue
        found.append(Check(statement=statement, source=source, numbers=tuple(measured.noted.items()), holds=kept))
    return tuple(found)


def _adversarial_training(m: _Measured) -> bool:
    costs = m.clean("Madry2018PGDAT") < m.clean("Undefended")
    return m.robust("Madry2018PGDAT") > m.robust("Undefended") + LARGE and costs


def _trades(m: _Measured) -> bool:
    """Not so on BreastMNIST at 4/255, where both keep the same."""
    pairs = [(m.robust("Zhang2019TRADES", PNEUMONIA, n), m.robust("Madry2018PGDAT", PNEUMONIA, n)) for n in (4, 8)]
    costs = m.clean("Zhang2019TRADES", PNEUMONIA) < m.clean("Madry2018PGDAT", PNEUMONIA)
    return costs and all(trades > plain for trades, plain in pairs)


def _weights(m: _Measured) -> bool:
    return m.robust("Wu2020AWP") >= m.robust("Madry2018PGDAT")


def _one_step(m: _Measured) -> bool:
    return m.robust("Wong2020FastAT") > m.robust("Madry2018PGDAT") - NOTICEABLE


def _penalty(m: _Measured) -> bool:
    """At 4/255, the budget of both selections."""
    none, penalty, trained = (
        m.robust(name, levels=4) for name in ("Undefended", "Ross2018InputGradient", "Madry2018PGDAT")
    )
    return none + CLEAR < penalty < trained


def _noise_in_training(m: _Measured) -> bool:
    noisy, plain = (
        m.under("corruption:gaussian", name, "severity 5") for name in ("GaussianAugmentation", "Undefended")
    )
    return noisy > plain + NOTICEABLE and m.robust("GaussianAugmentation") < m.robust("Madry2018PGDAT") - LARGE


def _one_draw(m: _Measured) -> bool:
    published = m.under("paper:mi-protector-pgd-20", "Dhar2026NUMAN", "Linf 8/255")
    return m.robust("Dhar2026NUMAN") < published - CLEAR


def _transformations(m: _Measured) -> bool:
    limit = m.robust("Undefended") + NOTICEABLE
    return all(score < limit for score in [m.robust(name) for name in ("JPEG", "BitDepth", "MedianFilter")])


def _purifiers(m: _Measured) -> bool:
    names = ("Liao2018HGD", "Meng2017MagNet", "Tsai2025DenoisingAE")
    return all(score < BROKEN for score in [m.robust(name) for name in names])


def _certificate(m: _Measured) -> bool:
    return m.certified("Gowal2018IBP") <= m.robust("Gowal2018IBP")


RELATIONS: Mapping[tuple[str, str], Callable[[_Measured], bool]] = {
    (
        "Adversarial training costs clean accuracy and gains most under attack",
        "Madry et al. 2018",
    ): _adversarial_training,
    ("TRADES pays clean accuracy and keeps more than plain adversarial training", "Zhang et al. 2019"): _trades,
    ("Weights perturbed in training cost no robustness", "Wu et al. 2020"): _weights,
    ("One gradient step from a random start comes near PGD", "Wong et al. 2020"): _one_step,
    (
        "A penalty on the input gradient helps, less than adversarial training",
        "Ross and Doshi-Velez 2018",
    ): _penalty,
    (
        "Noise in training helps against corruptions and hardly against attacks",
        "Ford et al. 2019",
    ): _noise_in_training,
    ("Noise at inference looks far stronger where each step follows one draw", "Athalye et al. 2018"): _one_draw,
    ("Input transformations fall to attacks that know them", "Athalye et al. 2018"): _transformations,
    ("Purifiers fall to attacks through them", "Athalye and Carlini 2018"): _purifiers,
    ("A certificate lies under every attack", "Gowal et al. 2018"): _certificate,
}
"""Relations by statement and source."""
