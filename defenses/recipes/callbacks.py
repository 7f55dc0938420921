"""What goes along with a training beside its loss: schedules, perturbed weights, averaged weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


class Callback:
    """Something the training loop calls at fixed moments; a recipe overrides the moments it needs.

    Whatever a recipe keeps between two steps beside the model must be in the state of a callback: only so does a
    training that was interrupted go on as if it had not been.
    """

    def before_loss(self, share: float) -> None:
        """Called before the loss of a batch is computed, with the finished share of all steps, in [0, 1)."""

    def after_backward(self, model: nn.Module) -> None:
        """Called when the gradients are there, before they are clipped and before the weights move."""

    def after_step(self, model: nn.Module) -> None:
        """Called when the optimiser has moved the weights."""

    @contextmanager
    def validation(self, model: nn.Module) -> Iterator[None]:
        """Surrounds validation and selection: within it the model has the weights that are judged and kept."""
        yield

    def state_dict(self) -> dict[str, object]:
        """Returns what it remembers, as tensors, numbers, text, and lists and dicts of these."""
        return {}

    def load_state_dict(self, state: dict[str, object]) -> None:
        """Takes over what an earlier `state_dict` returned."""
