"""Which members today's ensemble of a protocol has that a record was made without, told from the record alone."""

from __future__ import annotations

from collections.abc import Sequence

from registry import DEFENSES, PROTOCOLS, AttackProtocol, Budget, CellFacts, DefenseEntry, Need
from registry.errors import BenchmarkError
from reports.cards import Cell

OLDER = "made by an older ensemble"
"""Beginning of the remark, behind the seeds where only some of a row are meant."""


def older_ensembles(cells: Sequence[Cell], budget: Budget) -> tuple[str, ...]:
    """Returns what to know of a row whose records lack members that run today at a budget; nothing where none is known.

    Args:
        cells: The cells of the row, one for each training seed.
        budget: The budget of its board.
    """
    groups: dict[tuple[str, ...], list[int]] = {}
    for cell in cells:
        groups.setdefault(lacking(cell, budget), []).append(cell.seed)
    remarks = []
    for names, seeds in groups.items():
        who = "" if len(groups) == 1 else f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}: "
        what = "its record" if len(seeds) == 1 else "their records"
        if names:
            remarks.append(
                f"{who}{OLDER}: without {', '.join(names)}, which would run today and might lower the score; "
                f"move {what} out of the results folder and run {'it' if len(seeds) == 1 else 'them'} again"
            )
    return tuple(remarks)


def lacking(cell: Cell, budget: Budget) -> tuple[str, ...]:
    """Returns the members that today's ensemble would run in a cell at a budget, and that its record did not plan.

    Only what is certain: defense and protocol are registered here with the record's revisions, and what the members
    are chosen by is shown by the record's own cards and members. A surrogate that no member of it used is taken for
    absent, so that members that need it are not missed.
    """
    record = cell.record
    found = next((result for own, result in cell.budgets if own.label == budget.label), None)
    if cell.defense.name not in DEFENSES or cell.protocol not in PROTOCOLS or found is None:
        return ()
    entry, protocol = DEFENSES[cell.defense.name], PROTOCOLS[cell.protocol]
    if (entry.revision, protocol.revision) != (record.revisions.get("defense"), record.revisions.get("protocol")):
        return ()
    planned = {*found.planned, *(member.name for member in found.members)}
    try:
        members = protocol.ensemble(_facts(cell, entry, protocol), _exact(budget, protocol))
    except (BenchmarkError, ImportError):  # an ensemble of a stranger that needs more than pages have
        return ()
    return tuple(member.name for member in members if member.name not in planned)


def _facts(cell: Cell, entry: DefenseEntry, protocol: AttackProtocol) -> CellFacts:
    """Returns what members are chosen by; stages are there where a member went through their stand-ins.

    They hide their gradient where a member beside the first one did so, or where the entry says that its gradient is
    not the true one.
    """
    members = [member for _, result in cell.budgets for member in result.members]
    through = {member.name for member in members if member.card.get("backward") == "bpda"}
    sources = {member.card.get("source") for member in members}
    hidden = bool(through - {"pgd-bpda", "pgd0-bpda", "pgd0-targeted-bpda"}) or not entry.differentiable
    stages = ("declared",) if through else ()
    return CellFacts(
        task=cell.dataset.task,
        n_classes=len(cell.dataset.class_names),
        multi_label=cell.dataset.multi_label,
        randomness=entry.randomness,
        stages=stages,
        hidden_stages=stages if hidden else (),
        has_twin=str(Need.TWIN) in sources,
        has_bare=str(Need.BARE) in sources,
        has_mechanism=str(Need.MECHANISM) in sources,
        n_modalities=len(cell.record.dataset.get("modalities") or ("image",)),
        ranked_budget=_exact(protocol.ranked_budget or cell.dataset.ranked_budget, protocol),
    )


def _exact(budget: Budget, protocol: AttackProtocol) -> Budget:
    """Returns the protocol's own budget of this label: cards round, and ensembles compare budgets."""
    return next((known for known in protocol.budgets if known.label == budget.label), budget)
