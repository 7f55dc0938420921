"""Stepped attacks played by hand, without the engine: rows in flight, and a loop that tells an attack any objective."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from attacks.ball import ball_for
from attacks.draws import KeyedRandom
from attacks.stepped import Rows, SteppedAttack
from attacks.victim import Answer
from datasets.batch import Batch
from registry import Budget, Norm, Scope, ThreatModel

RNG = KeyedRandom(seed=0)


def rows_for(
    inputs: Tensor, norm: Norm, eps: float, *, support: Tensor | None = None, scope: Scope = Scope.EACH
) -> Rows:
    """Returns rows at their start, one for each input."""
    n = len(inputs)
    budget = Budget(norm=norm, eps=eps)
    return Rows(
        batch=Batch(sample_ids=torch.arange(n), inputs=inputs),
        ball=ball_for(ThreatModel(norm=norm, scope=scope), budget, inputs, support=support),
        begin=inputs.clone(),
        restart=torch.zeros(n, dtype=torch.int64),
        sample=torch.arange(n),
        step=torch.zeros(n, dtype=torch.int64),
        done=torch.zeros(n, dtype=torch.bool),
    )


def play(attack: SteppedAttack, rows: Rows, objective: Callable[[Tensor], Tensor], *, steps: int = 10**6) -> Tensor:
    """Lets an attack run against `objective(points) -> (N,)`; returns all points it asked for, (steps, N, ...)."""
    attack.start(rows, RNG)
    asked = []
    while not rows.done.all() and len(asked) < steps:
        query = attack.ask(rows, RNG)
        points = query.points.clone().requires_grad_(query.gradient)
        values = objective(points)
        gradient = torch.autograd.grad(values.sum(), points)[0] if query.gradient else None
        asked.append(query.points)
        rows.step = rows.step + 1
        attack.tell(rows, query, Answer(values.detach(), torch.ones(len(rows)), gradient))
    return torch.stack(asked)
