"""The inner attack of adversarial training: a plain PGD loop, fast, without the bookkeeping of the attack engine."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from attacks.ball import Ball
from attacks.hardware import knows_bfloat16
from datasets.batch import Batch
from datasets.tasks import Task
from defenses.recipes.modes import eval_mode, untouched_buffers
from defenses.recipes.options import InnerOptions
from registry import Norm

Loss = Callable[[Tensor], Tensor]
"""`loss(outputs)`: what the attack ascends, (N,)."""


def inner_pgd(model: nn.Module, inputs: Tensor, start: Tensor, loss: Loss, options: InnerOptions, steps: int) -> Tensor:
    """Ascends a loss within the ball around the inputs and within [0, 1].

    The model is in eval mode meanwhile, as in the code of TRADES, unless the options say otherwise: batch normalisation
    uses its running statistics, and dropout is off. Its mode and its buffers are restored afterwards.
    Gradients are taken with respect to the inputs alone; parameters keep theirs.

    Args:
        model: Network with raw outputs.
        inputs: Centres of the balls, float32 (N, ...) in [0, 1].
        start: First iterate, same shape; projected before use.
        loss: What to ascend.
        options: Radius, step length, precision.
        steps: Number of steps.

    Returns:
        The last iterate, detached, same shape.
    Source: Madry et al. 2018, arXiv:1706.06083, section 2.1.
    """
    ball = Ball(norm=Norm(options.norm), originals=inputs, eps=inputs.new_tensor(options.eps))
    adversarials = ball.project(start)
    length = options.step_length(steps)
    with eval_mode(model) if options.inner_mode == "eval" else untouched_buffers(model):
        for _ in range(steps):
            gradient = inner_gradient(model, adversarials, loss, bfloat16=options.bfloat16)
            adversarials = ball.project(adversarials + length * ball.steepest(gradient))
    return adversarials


def inner_gradient(model: nn.Module, points: Tensor, loss: Loss, *, bfloat16: bool) -> Tensor:
    """Returns the gradient of a loss with respect to the points alone, detached; parameters keep theirs.

    Args:
        model: Network with raw outputs.
        points: Inputs, float32 (N, ...).
        loss: What to differentiate.
        bfloat16: Compute it in bfloat16 where the hardware has instructions for it.
    """
    points = points.detach().requires_grad_(True)
    low = bfloat16 and knows_bfloat16(points.device)
    with torch.autocast(points.device.type, torch.bfloat16, enabled=low):
        outputs = model(points)
    return torch.autograd.grad(loss(outputs.to(torch.float32)).sum(), points)[0]


def uniform_start(inputs: Tensor, eps: float, generator: torch.Generator) -> Tensor:
    """Returns the inputs plus noise drawn uniformly from [-eps, eps] by a CPU generator."""
    noise = torch.rand(inputs.shape, generator=generator).to(inputs.device)
    return inputs + eps * (2 * noise - 1)


def validation_attack(task: Task, options: InnerOptions) -> Callable[[nn.Module, Batch], Batch]:
    """Returns the attack that selects epochs: PGD on the task's training loss, from the clean image, without draws.

    It takes the mode that the model is in, which validation sets.
    """

    def attack(model: nn.Module, batch: Batch) -> Batch:
        def loss(outputs: Tensor) -> Tensor:
            return task.training_loss(outputs, batch)

        return batch.with_inputs(inner_pgd(model, batch.inputs, batch.inputs, loss, options, options.validation_steps))

    return attack
