"""The objective of the mean probability over a defense's draws, for models whose deployment averages predictions."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from attacks.queries import Answer, Objective
from datasets.batch import Batch
from datasets.tasks.base import Task
from registry.errors import InvalidEntryError


def pooled_answer(
    ask: Callable[[Objective, bool], Answer],
    task: Task,
    batch: Batch,
    objective: Objective,
    progress: Tensor,
    *,
    gradient: bool,
) -> Answer:
    """Returns the objective of the mean probability of several draws, its gradient, and the mean score of the draws.

    The first pass finds the mean probability and the objective's slope there; the second sums, draw by draw, the
    gradient of the probabilities along that slope. Memory does not grow with the number of draws.

    Args:
        ask: `ask(objective, gradient)`: the answer averaged over the draws; the objective sees the rows of one draw
            or of several, draw after draw.
        task: Says whether probabilities belong to one label or to several.
        batch: The rows that are asked about.
        objective: Of logits; it is given the logits of the mean probability.
        progress: (N,) in [0, 1].
        gradient: Whether the gradient is wanted.

    Raises:
        InvalidEntryError: The model's outputs are not one tensor of logits.
    """
    several, collected = hasattr(task, "n_labels"), []

    def collect(outputs, rows: Batch, share: Tensor) -> Tensor:
        collected.extend(probabilities_of(outputs, several).split(len(batch)))
        return share * 0

    answer = ask(collect, False)
    mean = torch.stack(collected).mean(0).requires_grad_()
    with torch.enable_grad():
        values = objective(logits_of(mean, several), batch, progress)
        slope = torch.autograd.grad(values.sum(), mean)[0]
    if not gradient:
        return answer._replace(objective=values.detach())

    def along_slope(outputs, rows: Batch, share: Tensor) -> Tensor:
        slopes = torch.cat([slope] * (len(rows) // len(slope)))
        return (probabilities_of(outputs, several) * slopes).flatten(1).sum(1)

    return ask(along_slope, True)._replace(objective=values.detach())


def probabilities_of(outputs, several: bool) -> Tensor:
    """Returns probabilities of one tensor of logits, of several labels or of one.

    Raises:
        InvalidEntryError: The outputs are not one tensor.
    """
    if not isinstance(outputs, Tensor):
        raise InvalidEntryError(
            "the mean probability exists for one tensor of logits, this model returns a dict; average the objective"
        )
    return outputs.sigmoid() if several else outputs.softmax(1)


def logits_of(probabilities: Tensor, several: bool) -> Tensor:
    """Returns logits that have these probabilities."""
    tiny = torch.finfo(torch.float32).tiny
    logits = probabilities.clamp_min(tiny).log()
    return logits - (1 - probabilities).clamp_min(tiny).log() if several else logits
