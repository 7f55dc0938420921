"""A torch module under attack: answers queries in physical batches whose rows do not depend on their neighbours."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor, nn

from attacks.bpda import stand_ins, straight_through
from attacks.draws import KeyedRandom
from attacks.keyed_noise import KeyedNoise, NoDraws, global_draws
from attacks.pooling import pooled_answer
from attacks.queries import Answer, Draws, Objective, Spent
from attacks.slopes import finite_slopes
from datasets.batch import Batch
from datasets.tasks.base import Outputs, Task, model_outputs
from registry import Randomness

BACKWARDS = {"true": nullcontext, "bpda": stand_ins, "straight": straight_through}
"""The context of a forward pass whose gradient a member follows, by the name of its backward pass."""

FEWEST_ROWS = 2
"""Rows of the shortest physical batch: one row alone has kernels of its own."""


@dataclass(frozen=True, kw_only=True)
class Access:
    """The victim and the surrogates that a protocol needs."""

    victim: ModelVictim
    """The defended model; only its scores count."""
    search: ModelVictim
    """The victim, or a faster copy of it that may be searched but never judges."""
    exact: ModelVictim | None = None
    """A faster copy in full precision, for attacks that need exact gradients; None where `search` is exact."""
    surrogates: Mapping[str, ModelVictim] = field(default_factory=dict)
    """By need, see `registry.Need`: the twin, the bare network, a frozen draw, the mechanism."""

    def source(self, name: str) -> ModelVictim:
        """Returns the model whose gradient a member follows: "victim", "exact", or a surrogate by its need."""
        own = {"victim": self.search, "exact": self.exact or self.search}
        return own[name] if name in own else self.surrogates[name]


class ModelVictim:
    """A torch module as a victim, evaluated in physical batches of at most a fixed number of slots.

    Kernels may differ with the batch size; with enough slots filled a row's outputs do not depend on its neighbours.

    Args:
        model: Module in eval mode that maps inputs in [0, 1] to raw outputs; see `model_outputs`.
        task: What a score is.
        slots: Rows of a physical batch.
        fewest: Rows up to which short batches are filled with their last row; all slots unless `fewest_steady_rows`
            says less.
        randomness: Where the model draws random numbers.
        seed: Seed of the model's own draws.
        frozen_draw: Index of the one draw that every query sees, whatever it asks for; None for the draws asked for.
        spent: Counter to add to.
        scored: Whether outputs are what the task scores; features are not, and every score of theirs is 0.
    """

    turn = 0
    """Which range of a judgement's draws its scores are judged on, see `attacks.judging.at_turn`."""

    def __init__(
        self,
        model: nn.Module,
        task: Task,
        *,
        slots: int = 32,
        fewest: int | None = None,
        randomness: Randomness = Randomness.NONE,
        seed: int = 0,
        frozen_draw: int | None = None,
        spent: Spent | None = None,
        scored: bool = True,
    ) -> None:
        self.model = model
        self.task = task
        self.slots = slots
        self.fewest = slots if fewest is None else min(fewest, slots)
        self.randomness = randomness
        self.spent = spent or Spent()
        self.scored = scored
        self._frozen_draw = frozen_draw
        self._noise = KeyedRandom(seed=seed, stream=1)
        self._watched = False

    def outputs(self, batch: Batch, draws: Draws | None = None) -> Outputs:
        """Returns raw outputs of each row, without gradient; the first draw where several are asked for."""
        parts = []
        with torch.no_grad():
            for chunk, first in self._chunks(batch, draws):
                filled = self._fill(chunk)
                parts.append(_rows(self._forward(filled, _pad_rows(first, len(filled))), len(chunk)))
                self.spent.forwards += len(chunk)
        return _join(parts)

    def answer(
        self,
        batch: Batch,
        objective: Objective,
        progress: Tensor,
        *,
        gradient: bool,
        backward: str = "true",
        draws: Draws | None = None,
    ) -> Answer:
        """Returns objective, score and gradient of each row, averaged over the draws."""
        answers = []
        done = 0
        for chunk, first in self._chunks(batch, draws):
            part = progress[done : done + len(chunk)]
            done += len(chunk)
            count = draws.count if draws and first is not None else 1
            ask = partial(self._answer_slots, chunk, part, backward, first, count)
            if count > 1 and draws.pooled:
                answers.append(pooled_answer(ask, self.task, chunk, objective, part, gradient=gradient))
            else:
                answers.append(ask(objective, gradient))
        if len(answers) == 1:
            return answers[0]
        gradients = torch.cat([a.gradient for a in answers]) if gradient else None
        return Answer(torch.cat([a.objective for a in answers]), torch.cat([a.score for a in answers]), gradients)

    def _answer_slots(self, chunk, progress, backward, first, count, objective, gradient) -> Answer:
        """Answers one chunk, averaged over `count` draws, of which as many share a physical batch as have slots."""
        rows, total = len(chunk), None
        together = max(1, self.slots // rows) if self.randomness is Randomness.SAMPLE else 1
        for start in range(0, count, together):
            draws = range(start, min(start + together, count))
            ids = None if first is None else torch.cat([first + draw for draw in draws])
            folded = (chunk, progress) if len(draws) == 1 else _repeated(chunk, progress, len(draws))
            several = self._one_pass(*folded, objective, gradient, backward, ids)
            for place in range(len(draws)):  # one after the other: a mean does not depend on how many went together
                one = Answer(*(None if a is None else a[place * rows : (place + 1) * rows] for a in several))
                total = one if total is None else _sum(total, one)
        self.spent.forwards += rows * count
        self.spent.backwards += rows * count if gradient else 0
        return Answer(*(part / count if part is not None and count > 1 else part for part in total))

    def _one_pass(self, batch, progress, objective, gradient, backward, ids) -> Answer:
        """Answers one physical batch, one draw a row; rows that fill it up reach the model alone."""
        rows, filled = len(batch), self._fill(batch)
        with torch.set_grad_enabled(gradient):
            inputs = filled.inputs.detach().requires_grad_(gradient)
            with BACKWARDS[backward](self.model):
                outputs = self._forward(filled.with_inputs(inputs), _pad_rows(ids, len(filled)))
            outputs, batch = _rows(outputs, rows), batch.with_inputs(inputs[:rows])
            values = objective(outputs, batch, progress)
            slope = None
            if gradient:
                slope = torch.zeros_like(inputs)
                if values.requires_grad:  # otherwise no path leads from the outputs to the inputs
                    with self._backward():
                        found = torch.autograd.grad(values.sum(), inputs, allow_unused=True)[0]
                    slope = slope if found is None else found
                slope, usable = finite_slopes(slope[:rows])
                self.spent.no_gradient += int((~usable).sum())
        if not self.scored:
            return Answer(values.detach(), torch.zeros_like(progress), slope)
        with torch.no_grad():
            detached = _detach(outputs)
            score = self.task.score(self.task.decode(detached, batch), batch)
            score = torch.where(_finite_rows(detached), score, torch.nan)  # arg max of NaN would be a class
        return Answer(values.detach(), score, slope)

    def _backward(self) -> AbstractContextManager[object]:
        """Returns the context of a backward pass; of the first one of noise by sample it refuses fresh draws."""
        if self._watched or self.randomness is not Randomness.SAMPLE:
            return nullcontext()
        self._watched = True
        return NoDraws()

    def drawing(self, sample_ids: Tensor, draw_ids: Tensor | None = None) -> AbstractContextManager[object]:
        """Returns the context in which a model draws what this victim draws for these rows; `_forward` runs in it.

        Args:
            sample_ids: int64 (N,), one for each row that the model sees.
            draw_ids: int64 (N,), the draw of each row; the first by default. Random weights: the first row's for all.
        """
        if self.randomness is Randomness.NONE:
            return nullcontext()
        draw_ids = torch.zeros_like(sample_ids) if draw_ids is None else draw_ids
        draw_ids = draw_ids if self._frozen_draw is None else torch.full_like(draw_ids, self._frozen_draw)
        if self.randomness is Randomness.SAMPLE:
            return KeyedNoise(self._noise.keys(sample_ids, draw_ids))
        return global_draws(int(self._noise.keys(torch.zeros_like(draw_ids[:1]), draw_ids[:1])), sample_ids.device)

    def _forward(self, batch: Batch, draw_ids: Tensor | None) -> Outputs:
        """Runs the model on one physical batch under its keyed noise; on a copy, since it may work in place."""
        batch = batch.with_inputs(batch.inputs.clone())
        with self.drawing(batch.sample_ids, draw_ids):
            return model_outputs(self.model, batch)

    def _fill(self, batch: Batch) -> Batch:
        """Returns the batch with at least as many rows as the shortest physical one has."""
        rows = max(len(batch), self.fewest)
        return batch if len(batch) == rows else batch.take(_padding(len(batch), rows, batch.inputs.device))

    def _chunks(self, batch: Batch, draws: Draws | None) -> Iterator[tuple[Batch, Tensor | None]]:
        for start in range(0, len(batch), self.slots):
            rows = slice(start, start + self.slots)
            chunk = batch if len(batch) <= self.slots else batch.take(rows)
            yield chunk, None if draws is None else draws.first[rows]


def _repeated(batch: Batch, progress: Tensor, draws: int) -> tuple[Batch, Tensor]:
    """Returns all rows once for each draw, draw after draw."""
    places = torch.arange(len(batch), device=progress.device).repeat(draws)
    return batch.take(places), progress[places]


def _sum(one: Answer, other: Answer) -> Answer:
    return Answer(*(None if a is None else a + b for a, b in zip(one, other, strict=True)))


def _pad_rows(values: Tensor | None, slots: int) -> Tensor | None:
    if values is None or len(values) == slots:
        return values
    return values[_padding(len(values), slots, values.device)]


def _padding(rows: int, slots: int, device: torch.device) -> Tensor:
    return torch.arange(slots, device=device).clamp_(max=rows - 1)


def _rows(outputs: Outputs, rows: int) -> Outputs:
    if isinstance(outputs, dict):
        return {name: values[:rows] for name, values in outputs.items()}
    return outputs if len(outputs) == rows else outputs[:rows]


def _finite_rows(outputs: Outputs) -> Tensor:
    parts = outputs.values() if isinstance(outputs, dict) else [outputs]
    return torch.stack([torch.isfinite(part.flatten(1)).all(1) for part in parts]).all(0)


def _detach(outputs: Outputs) -> Outputs:
    return {k: v.detach() for k, v in outputs.items()} if isinstance(outputs, dict) else outputs.detach()


def _join(parts: list[Outputs]) -> Outputs:
    if isinstance(parts[0], dict):
        return {key: torch.cat([part[key] for part in parts]) for key in parts[0]}
    return parts[0] if len(parts) == 1 else torch.cat(parts)
