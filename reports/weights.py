"""How the weights behind a row were trained, as their own cards say: for which budget and on which device."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import replace

from registry import Budget
from registry.errors import InvalidEntryError
from reports.cards import Cell


def trained_for(cells: Iterable[Cell]) -> tuple[Budget, ...]:
    """Returns the budgets that the weights of some cells were trained for, ascending; empty where the entry names none.

    The norm is the entry's, eps that of the weights' recipe on this data set. Recipes of entries without a budget may
    call another thing eps, so theirs is not read.
    """
    budgets = [_budget(cell) for cell in cells]
    found = {budget.label: budget for budget in budgets if budget is not None}
    return tuple(sorted(found.values(), key=lambda budget: budget.size))


def _budget(cell: Cell) -> Budget | None:
    """Returns the budget of one cell's weights: the entry's, unless their card holds another eps that is possible."""
    budget, options = cell.defense.trained_for, _card(cell).get("options")
    eps = options.get("eps") if isinstance(options, Mapping) else None
    if budget is not None and isinstance(eps, int | float):
        with suppress(InvalidEntryError):
            return replace(budget, eps=float(eps))
    return budget


def training_devices(cells: Iterable[Cell]) -> tuple[str, ...]:
    """Returns the devices that trained the weights of some cells, as far as their cards say."""
    return tuple(sorted({str(card["device"]) for card in map(_card, cells) if card.get("device")}))


def _card(cell: Cell) -> Mapping[str, object]:
    return cell.record.checkpoint.card if cell.record.checkpoint else {}
