"""The page of one defense: claims, curves over eps, what each attack did, flags, and how to reproduce it."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Mapping, Sequence

from jinja2 import Environment

from reports.addresses import board_page, defense_page, unusual_rules
from reports.cards import Cell, DefenseFacts, PublishedClaim
from reports.figures import CurvePoint, Figure, curve_figure
from reports.leaderboard import PROBES, Leaderboard, Row, Standings
from reports.losses import loss_lines
from reports.noise import noise_of
from reports.pages import BELOW_ROOT, front_board, restored_specs
from reports.pooling import Pooled, pool_estimates
from reports.survivors import survivor_figure
from reports.variants import LEVELS, Variants
from results.later_probes import lacking_probes
from results.record import Estimate, Flag, RecordStatus

CLEAN_METRICS = ("accuracy", "clean_accuracy", "clean_dice")
"""What claims call a score on unchanged images."""
REPLAYS = ("paper:", "as-released:")
"""Beginnings of the protocols that replay what a paper did."""
QUALITIES = ("restored_psnr", "restored_ssim", "restored_mse")
"""How far restored images are from the clean ones, in the order of the columns."""
CLEAN = "clean"
"""What stands for the budget of unchanged images."""
Step = tuple[Leaderboard, Row]
"""A board, and the row of this page's defense on it."""


class DefensePages:
    """Renders the pages of all defenses.

    Args:
        env: The environment.
        standings: All boards and the cells beside them.
    """

    def __init__(self, env: Environment, standings: Standings) -> None:
        self._template = env.get_template("defense.html")
        self._standings = standings
        self._variants = Variants(standings)
        self._steps: dict[str, list[Step]] = {}
        self._others: dict[str, list[Cell]] = {}
        self._failed: dict[str, list[Cell]] = {}
        for board in standings.boards:
            for row in board.rows:
                self._steps.setdefault(row.defense.name, []).append((board, row))
        for cell in standings.others:
            finished = cell.record.status is RecordStatus.DONE
            (self._others if finished else self._failed).setdefault(cell.defense.name, []).append(cell)
        for cell in standings.failed:
            self._failed.setdefault(cell.defense.name, []).append(cell)
        self.facts = self._newest_facts()
        """Every defense that a record names, sorted by name."""

    def render(self) -> Iterable[tuple[str, str]]:
        """Yields address and text of every page."""
        for facts in self.facts:
            yield defense_page(facts.name), self._render(facts)

    def _render(self, facts: DefenseFacts) -> str:
        steps = self._steps.get(facts.name, [])
        others = self._others.get(facts.name, [])
        lines = [line for cell in others for line in _other_lines(cell)]
        return self._template.render(
            page="defense",
            root=BELOW_ROOT,
            site=self._standings,
            facts=facts,
            claims=[_claim(claim, steps, others) for claim in facts.claims],
            parts=[_part(facts, group, self._beside(group[0][0])) for group in _by_contest(steps)],
            restoration=restored_specs(),
            failures=self._failed.get(facts.name, []),
            others=lines,
            qualities=[name for name in QUALITIES if any(name in line["quality"] for line in lines)],
            variants=self._variants.of(facts),
            levels=[budget.label for budget in LEVELS],
            address=lambda name: BELOW_ROOT + defense_page(name),
            recipe=json.dumps(facts.recipe, indent=2, sort_keys=True, ensure_ascii=False, default=str),
        )

    def _beside(self, board: Leaderboard) -> list[Cell]:
        """Returns the finished cells of a board's data set under protocols that do not rank."""
        return [cell for cells in self._others.values() for cell in cells if cell.dataset.name == board.dataset.name]

    def _newest_facts(self) -> tuple[DefenseFacts, ...]:
        cells = [cell for steps in self._steps.values() for _, row in steps for cell in row.cells]
        cells += [cell for group in (self._others, self._failed) for found in group.values() for cell in found]
        newest: dict[str, tuple[tuple[str, str], DefenseFacts]] = {}
        for cell in cells:
            age = (cell.record.provenance.started_at, cell.record.key)
            if cell.defense.name not in newest or age > newest[cell.defense.name][0]:
                newest[cell.defense.name] = (age, cell.defense)
        return tuple(newest[name][1] for name in sorted(newest, key=lambda name: (name.lower(), name)))


def _by_contest(steps: Sequence[Step]) -> list[list[Step]]:
    """Groups steps by data set and threat model; budgets ascend within a group."""
    groups: dict[tuple[object, ...], list[Step]] = {}
    for board, row in steps:
        groups.setdefault((board.dataset.name, board.threat_model), []).append((board, row))
    return list(groups.values())


def _part(facts: DefenseFacts, steps: Sequence[Step], beside: Sequence[Cell]) -> dict[str, object]:
    """Returns what the page says of one data set and threat model."""
    board = front_board(board for board, _ in steps)
    row = next(row for found, row in steps if found is board)
    twins = [found.undefended for found, _ in steps]
    has_twin = facts.family != "undefended" and any(twins)
    twin = next((found for found in twins if found), None)
    return {
        "board": board,
        "row": row,
        "flags": sorted(row.flags, key=lambda found: (_weight(found.flag), found.flag.name, found.seed)),
        "later_probes": tuple(dict.fromkeys(name for cell in row.cells for name in lacking_probes(cell.record))),
        "escalations": [_escalation(cell) for cell in row.cells if cell.record.escalation],
        "threat": ", ".join([str(board.threat_model.norm), *unusual_rules(board.threat_model)]),
        "anchor": board_page(board, "").removeprefix("boards/").strip("."),
        "href": BELOW_ROOT + board_page(board),
        "figure": _figure(facts, steps, board, has_twin),
        "noise": noise_of(board, row, beside),
        "survivors": survivor_figure(row.survivors) if row.survivors else None,
        "losses": loss_lines(row.members),
        "has_twin": has_twin,
        "twin_name": twin.defense.name if twin else "",
        "twin_clean": twin.clean if twin else None,
        "steps": [
            {"board": found, "row": own, "twin": found.undefended, "href": BELOW_ROOT + board_page(found)}
            for found, own in steps
        ],
        "commands": _commands(row),
    }


def _escalation(cell: Cell) -> dict[str, object]:
    """Returns an escalation between what the protocol had left and what the probes left that ran again after it."""
    tried = cell.record.escalation
    members = [member for budget, found in cell.budgets if budget.card() == tried.budget for member in found.members]
    main = [member.robust_after for member in members if member.name != PROBES]
    probes = [member.robust_after for member in members if member.name == PROBES]
    known = bool(main and probes)
    return {
        "seed": cell.seed,
        "tried": tried,
        "main": main[-1] if known else None,
        "end": probes[-1] if known else None,
    }


def _weight(flag: Flag) -> int:
    """Returns 0 for a red flag, 1 for a note that holds, 2 for the rest."""
    return 0 if flag.red else 1 if flag.noted else 2


def _figure(facts: DefenseFacts, steps: Sequence[Step], board: Leaderboard, has_twin: bool) -> Figure:
    curves = []
    if has_twin:
        found = [(step.budget.size, step.undefended) for step, _ in steps if step.undefended]
        curves.append((found[0][1].defense.name, "twin", _points(found)))
    curves.append((facts.name, "own", _points([(step.budget.size, row) for step, row in steps])))
    return curve_figure(
        curves,
        norm=str(board.threat_model.norm),
        quality=board.quality,
        constant_predictor=board.constant_predictor,
        ranked=board.budget if board.ranks else None,
    )


def _points(rows: Sequence[tuple[float, Row]]) -> list[CurvePoint]:
    clean = CurvePoint(size=0.0, estimate=rows[0][1].clean.estimate)
    return [clean, *(CurvePoint(size=size, estimate=row.standing.estimate) for size, row in rows if size > 0)]


def _claim(claim: PublishedClaim, steps: Sequence[Step], others: Sequence[Cell]) -> dict[str, object]:
    """Returns a published number with what was measured on the same data: at its budget, or clean where it is clean."""
    about = [(board, row) for board, row in steps if claim.speaks_of(board.dataset)]
    row = next((row for _, row in about if claim in row.claims), None)
    rows = [row for _, row in about]
    clean = max(rows, key=lambda row: (row.n, len(row.cells))).clean if rows and claim.metric in CLEAN_METRICS else None
    weights = {cell.record.checkpoint.sha256 for _, own in about for cell in own.cells if cell.record.checkpoint}
    measured: dict[str, list] = {}
    for cell in others:
        if claim.budget is None or not claim.speaks_of(cell.dataset) or not cell.protocol.startswith(REPLAYS):
            continue
        sha256 = cell.record.checkpoint.sha256 if cell.record.checkpoint else None
        if weights and sha256 not in weights:
            continue
        at = [result for budget, result in cell.budgets if budget.label == claim.budget.label]
        measured.setdefault(cell.protocol, []).extend(r.metrics["robust"] for r in at if "robust" in r.metrics)
    paper: list[tuple[str, Pooled]] = [(name, pool_estimates(found)) for name, found in measured.items() if found]
    return {"claim": claim, "row": row, "clean": clean, "paper": paper}


def _other_lines(cell: Cell) -> list[dict[str, object]]:
    """Returns the scores of a cell that ranks nowhere: one line for each budget, or its clean score.

    Quality of restored images is that of the line: under attack over the broken images, of a clean line over all.
    """
    line = {"protocol": cell.protocol, "dataset": cell.dataset.title, "seed": cell.seed}
    found = [(budget.label, result.metrics) for budget, result in cell.budgets if "robust" in result.metrics]
    if not found and "clean" in cell.record.clean:
        found = [(CLEAN, cell.record.clean | {"robust": cell.record.clean["clean"]})]
    return [line | {"budget": label} | _line_metrics(metrics) for label, metrics in found]


def _line_metrics(metrics: Mapping[str, Estimate]) -> dict[str, object]:
    named = {"estimate": "robust", "success": "attack_success_rate", "rejected": "rejected"}
    quality = {name: metrics[name] for name in QUALITIES if name in metrics}
    return {name: metrics.get(metric) for name, metric in named.items()} | {"quality": quality}


def _commands(row: Row) -> list[str]:
    """Returns the commands that evaluate a row again, the one of each protocol on a line, and those that verify it."""
    lines = {}
    for cell in row.cells:
        key = (cell.protocol, row.n if row.n < cell.dataset.n_test else None)
        lines.setdefault(key, []).append(str(cell.seed))
    commands = []
    for (protocol, n), seeds in lines.items():
        parts = ["python", "-m", "benchmark", "run", "--suite", "full", "--dataset", row.cells[0].dataset.name]
        parts += ["--defense", row.defense.name, "--protocol", protocol, "--seeds", ",".join(seeds)]
        commands.append(shlex.join(parts + (["--n", str(n)] if n else [])))
    verify = ["python", "-m", "benchmark", "verify"]
    return commands + [shlex.join([*verify, cell.record.key]) for cell in row.cells if cell.record.adversarials]
