"""The interface of attacks that ask for points and are told the answers, row by row."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from attacks.ball import Ball
from attacks.draws import KeyedRandom
from attacks.queries import Answer
from attacks.victim import Access
from datasets.batch import Batch, concatenate
from registry import Knowledge


@dataclass
class Rows:
    """Work in flight: one row is one restart of an attack on one sample, at a step of its own."""

    batch: Batch
    """Originals and targets."""
    ball: Ball
    """Balls around the originals."""
    begin: Tensor
    """float32, inputs' shape: the worst candidate known so far; the original where none is."""
    restart: Tensor
    """int64 (N,): 0 is the first run."""
    sample: Tensor
    """int64 (N,): row of the sample in the evaluated set."""
    step: Tensor
    """int64 (N,): answers received."""
    done: Tensor
    """bool (N,): the budget of the row is spent."""
    memory: dict[str, Tensor] = field(default_factory=dict)
    """The attack's own tensors, each with leading axis N."""
    candidate: dict[str, Tensor] = field(default_factory=dict)
    """The engine's: the best candidate that the row has proposed, see `Candidates`, and whether it ever met a slope."""

    def __len__(self) -> int:
        return len(self.restart)

    def take(self, rows: Tensor) -> Rows:
        """Returns these rows."""
        return Rows(
            batch=self.batch.take(rows),
            ball=self.ball.take(rows),
            begin=self.begin[rows],
            restart=self.restart[rows],
            sample=self.sample[rows],
            step=self.step[rows],
            done=self.done[rows],
            memory={name: tensor[rows] for name, tensor in self.memory.items()},
            candidate={name: tensor[rows] for name, tensor in self.candidate.items()},
        )


def join_rows(first: Rows, second: Rows) -> Rows:
    """Returns both, the first ones first."""
    support = None if first.ball.support is None else torch.cat([first.ball.support, second.ball.support])
    originals = torch.cat([first.ball.originals, second.ball.originals])

    def joined(one: dict[str, Tensor], two: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: torch.cat([one[name], two[name]]) for name in one}

    return Rows(
        batch=concatenate([first.batch, second.batch]),
        ball=Ball(norm=first.ball.norm, originals=originals, eps=first.ball.eps, support=support),
        begin=torch.cat([first.begin, second.begin]),
        restart=torch.cat([first.restart, second.restart]),
        sample=torch.cat([first.sample, second.sample]),
        step=torch.cat([first.step, second.step]),
        done=torch.cat([first.done, second.done]),
        memory=joined(first.memory, second.memory),
        candidate=joined(first.candidate, second.candidate),
    )


def where_rows(rows: Tensor, yes: Tensor, no: Tensor) -> Tensor:
    """Returns the rows of `yes` where the mask, bool (N,), holds, and those of `no` elsewhere."""
    return torch.where(rows.reshape(-1, *[1] * (yes.ndim - 1)), yes, no)


class Query(NamedTuple):
    """What an attack wants to know next."""

    points: Tensor
    """Inputs to evaluate, (N, ...)."""
    gradient: bool
    """Whether the gradient at the points is wanted."""
    free: bool = False
    """Points may lie outside the ball, as those of minimal-norm attacks do; only the ones inside count."""
    counts: Tensor | None = None
    """bool (N,): rows whose point is a candidate; None for all. A replay proposes its last point alone."""


class SteppedAttack(Protocol):
    """An attack as a state machine over rows; the engine owns the loop, the slots and the stopping.

    A minimal one, random search in the ball:

        class RandomSearch:
            knowledge, restarts, eot_samples = Knowledge.SCORE_BASED, 1, 1
            def __init__(self, queries): self.steps = queries
            def start(self, rows, rng): pass
            def ask(self, rows, rng):
                keys = rng.keys(rows.batch.sample_ids, rows.step)
                noise = rng.uniform(keys, rows.begin.shape[1:]) * 2 - 1
                return Query(rows.ball.random(noise), gradient=False)
            def tell(self, rows, query, answer): rows.done = rows.step >= self.steps
    """

    knowledge: Knowledge
    """What it needs to see; score-based attacks never get a gradient."""
    steps: int
    """Answers that one row takes at most."""
    restarts: int
    """Independent runs on a sample that survives."""
    eot_samples: int
    """Draws averaged in each answer of a stochastic defense."""

    def start(self, rows: Rows, rng: KeyedRandom) -> None:
        """Fills `rows.memory`."""

    def ask(self, rows: Rows, rng: KeyedRandom) -> Query:
        """Returns the next points; `rows.step` answers have been told."""

    def tell(self, rows: Rows, query: Query, answer: Answer) -> None:
        """Updates `rows.memory` and `rows.done`; the engine has raised `rows.step` already."""


class SimpleAttack(Protocol):
    """A third-party or exotic attack: takes whole batches, returns adversarials; easy to write."""

    knowledge: Knowledge
    """What it needs to see."""

    def run(self, access: Access, batch: Batch, ball: Ball, rng: KeyedRandom) -> Tensor:
        """Returns adversarials in the inputs' shape; the shell verifies them."""
