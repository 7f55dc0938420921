"""Exponential moving average of the weights, which is what is validated and kept."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from defenses.recipes.callbacks import Callback


class WeightAverage(Callback):
    """Averages weights and running statistics over the steps of a training.

    After step t the average moves to d average + (1 - d) weights with d = min(decay, (1 + t) / (10 + t)): early on
    it forgets faster, so that the initial weights do not weigh in. Whole numbers are copied.

    Args:
        decay: In (0, 1).
    Source: Gowal et al. 2020, arXiv:2010.03593, for averages of weights in adversarial training.
    """

    def __init__(self, decay: float) -> None:
        self.decay = decay
        self._steps = 0
        self._average: dict[str, Tensor] = {}

    @torch.no_grad()
    def after_step(self, model: nn.Module) -> None:
        now = model.state_dict()
        if not self._average:
            self._average = copy.deepcopy(now)
        elif next(iter(now.values())).device != next(iter(self._average.values())).device:
            self._average = {name: value.to(now[name].device) for name, value in self._average.items()}  # was restored
        decay = min(self.decay, (1 + self._steps) / (10 + self._steps))
        for name, value in now.items():
            if value.is_floating_point():
                self._average[name].lerp_(value, 1 - decay)
            else:
                self._average[name].copy_(value)
        self._steps += 1

    @contextmanager
    def validation(self, model: nn.Module) -> Iterator[None]:
        own = copy.deepcopy(model.state_dict())
        model.load_state_dict(self._average)
        try:
            yield
        finally:
            model.load_state_dict(own)

    def state_dict(self) -> dict[str, object]:
        return {"steps": self._steps, "average": dict(self._average)}

    def load_state_dict(self, state: dict[str, object]) -> None:
        self._steps, self._average = state["steps"], state["average"]


def averages(decay: float) -> tuple[WeightAverage, ...]:
    """Returns the callback that averages, or none where the decay is 0."""
    return (WeightAverage(decay),) if decay else ()
