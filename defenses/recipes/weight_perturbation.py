"""Adversarial weight perturbation: the loss is taken where a small change of the weights makes it worst."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from defenses.recipes.callbacks import Callback
from defenses.recipes.modes import untouched_buffers


class WeightPerturbation(Callback):
    """Moves the weights of a model up its loss, and gives them back, bit by bit, once the gradients are there.

    Each weight tensor w of two or more axes moves by gamma |w| along its gradient, scaled to length 1; biases and the
    parameters of normalisation stay. One step is taken. Running statistics of batch normalisation see the final
    forward pass only.

    Args:
        gamma: Size of the change relative to that of the weights; 0 for none.
    Source: Wu et al. 2020, arXiv:2004.05884, section 4, with one step in the weights.
    """

    def __init__(self, gamma: float) -> None:
        self.gamma = gamma
        self._own: list[tuple[Tensor, Tensor]] = []

    def worst(self, model: nn.Module, loss: Callable[[], Tensor]) -> Tensor:
        """Returns the loss at the perturbed weights, which stay in the model until its gradients are computed.

        Args:
            model: In training mode.
            loss: Computes the loss of the batch with the weights that the model has when it is called.
        """
        if self.gamma == 0:
            return loss()
        weights = [weight for weight in model.parameters() if weight.requires_grad and weight.ndim > 1]
        with untouched_buffers(model):
            gradients = torch.autograd.grad(loss(), weights, allow_unused=True)
        with torch.no_grad():
            for weight, gradient in zip(weights, gradients, strict=True):
                if gradient is not None and (length := gradient.norm()) > 0:
                    self._own.append((weight, weight.clone()))
                    weight.add_(gradient * (self.gamma * weight.norm() / length))
        return loss()

    @torch.no_grad()
    def after_backward(self, model: nn.Module) -> None:
        for weight, own in self._own:
            weight.copy_(own)
        self._own.clear()
