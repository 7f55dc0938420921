"""Grey-box attacks: crafted on another model with as many queries as they need, tried on the victim once."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from attacks.ball import Ball
from attacks.draws import KeyedRandom
from attacks.objectives import objective_for
from attacks.stepped import Rows, SteppedAttack
from attacks.victim import Access
from datasets.batch import Batch
from registry import Knowledge, resolve
from registry.lazy import Reference


class Crafted:
    """Runs a stepped attack on a surrogate and hands over its best point, which the surrogate finds worst.

    The victim is not asked on the way, unlike by a member that follows a surrogate's gradient and offers every point:
    that is how defenses with a part in front of a fixed network were evaluated by their authors.

    Args:
        attack: Factory of a stepped attack that needs scores only.
        options: Keyword arguments of the factory.
        surrogate: Name of the surrogate in `Access`, e.g. "bare" or "twin"; None crafts on the victim.
        objective: What is ascended.
        stop_above: A row ends when the objective is above this; None lets it run to its end.
    """

    knowledge = Knowledge.TRANSFER

    def __init__(
        self,
        *,
        attack: Reference,
        options: Mapping[str, object] | None = None,
        surrogate: str | None = None,
        objective: str = "cross-entropy",
        stop_above: float | None = None,
    ) -> None:
        self._make = resolve(attack)
        self._options = dict(options or {})
        self._surrogate, self._objective = surrogate, objective
        self._stop_above = torch.inf if stop_above is None else stop_above

    def run(self, access: Access, batch: Batch, ball: Ball, rng: KeyedRandom) -> Tensor:
        """Returns one point for each sample; the original where nothing was better for the attacker."""
        source = access.search if self._surrogate is None else access.source(self._surrogate)
        objective = objective_for(source.task, self._objective)
        attack: SteppedAttack = self._make(**self._options)
        sample = torch.arange(len(batch), device=batch.inputs.device)
        rows = Rows(
            batch=batch,
            ball=ball,
            begin=batch.inputs,
            restart=torch.zeros_like(sample),
            sample=sample,
            step=torch.zeros_like(sample),
            done=torch.zeros_like(sample, dtype=torch.bool),
        )
        attack.start(rows, rng)
        best, height = batch.inputs.clone(), self._ask(source, objective, rows, batch.inputs, attack.steps).objective
        height = torch.where(height.isnan(), -torch.inf, height)  # whatever has a value is better than none
        while len(rows):
            query = attack.ask(rows, rng)
            answer = self._ask(source, objective, rows, query.points, attack.steps)
            rows.step = rows.step + 1
            attack.tell(rows, query, answer)
            better = answer.objective > height[rows.sample]
            best[rows.sample[better]] = query.points[better]
            height[rows.sample[better]] = answer.objective[better]
            leave = rows.done | (height[rows.sample] > self._stop_above)
            rows = rows.take(~leave) if leave.any() else rows
        return best

    @staticmethod
    def _ask(source, objective, rows: Rows, points: Tensor, steps: int):
        batch = rows.batch.with_inputs(points)
        return source.answer(batch, objective, rows.step / max(steps, 1), gradient=False)
