"""What a model does before its first trained layer, learned from its answers: a stand-in for the way back.

Found by what reaches that layer, so that code within a larger module's `forward`, stages that move pixels and stages
that change the shape have one, too, and nothing has to be declared.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attacks.keyed_noise import global_draws
from attacks.soundness.hidden_paths import HONEST, calls_of, delivers
from datasets.batch import Batch
from datasets.tasks.base import model_outputs

REACH = 16 / 255
"""Largest change of an input value in a pair: beyond the steps of 16 grey levels or more, which average out."""
PAIRS = 3
"""Pairs of inputs for each value of an image; fewer than one do not determine the map."""
MOST_WEIGHTS = 1 << 24
"""Weights of the largest map that is learned: 64 MB; 4,096 values in and as many out."""
CERTAIN = 3
"""Standard errors that a weight lies away from 0, or it is 0."""
RIDGE = 1e-3
"""Penalty of the weights, in units of the mean variance of an input value."""


class LearnedPrefix(nn.Module):
    """A model whose first trained layer hands its gradient on through linear maps; its outputs stay as they are.

    Args:
        model: The whole model.
        name: Name of the layer.
        maps: For each of the layer's calls (values that it is given, values of an image).
    Source: Athalye, Carlini, Wagner 2018, arXiv:1802.00420, section 4.1, with a stand-in fitted to the stage.
    """

    def __init__(self, model: nn.Module, name: str, maps: tuple[Tensor, ...]) -> None:
        super().__init__()
        self.model = model
        self.name = name
        for place, weights in enumerate(maps):
            self.register_buffer(f"map_{place}", weights)
        self.calls = len(maps)

    def forward(self, inputs: Tensor, **context: Tensor) -> Tensor:
        """Returns the model's outputs; inputs are (N, ...) as the model takes them."""
        place = 0

        def replaced(module: nn.Module, args: tuple) -> tuple:
            nonlocal place
            if place == self.calls or not torch.is_grad_enabled():
                return args
            twin = F.linear(inputs.flatten(1), self.get_buffer(f"map_{place}")).view_as(args[0])
            place += 1
            return (args[0].detach() + (twin - twin.detach()), *args[1:])

        hook = self.model.get_submodule(self.name).register_forward_pre_hook(replaced)
        try:
            return self.model(inputs, **context)
        finally:
            hook.remove()


def learned_prefix(model: nn.Module, batch: Batch) -> LearnedPrefix | None:
    """Returns a model with a learned way back from its first trained layer; None where its own way is honest.

    None, too, where rows are mixed or repeated before that layer, and where a map would be too large.

    Args:
        model: A copy that may be changed; while it is asked, it draws from one key.
        batch: Some samples.
    """
    layer = _first_trained(model, batch)
    if layer is None:
        return None
    name, calls = layer

    def reaching(inputs: Tensor) -> Tensor:
        return torch.cat([given.flatten(1) for given in _given(model, name, calls, batch.with_inputs(inputs))], dim=1)

    given = _given(model, name, calls, batch)
    values = batch.inputs[0].numel()
    sizes = [part.numel() // max(1, len(part)) for part in given]
    if len(given) < calls or any(len(part) != len(batch) or not part.is_floating_point() for part in given):
        return None
    if values * sum(sizes) > MOST_WEIGHTS or delivers(reaching, batch.inputs) >= HONEST:
        return None
    return LearnedPrefix(model, name, _linear_map(reaching, batch.inputs).split(sizes))


def _linear_map(function: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """Returns the linear map (values out, values in) that fits best how a function changes around images.

    Ridge regression over pairs of inputs, which lie as far on one side of a moved image as on the other. Weights that
    cannot be told from 0 are 0: there are thousands of them for each image value, and their errors add up.
    """
    generator = torch.Generator().manual_seed(0)
    base, values = images.clamp(REACH, 1 - REACH), images[0].numel()
    rounds = -(-PAIRS * values // len(base))
    gram, cross, square = 0.0, 0.0, 0.0
    with torch.no_grad():
        for _ in range(rounds):
            shift = ((torch.rand(base.shape, generator=generator) * 2 - 1) * REACH).to(base)
            change = (function(base + shift) - function(base - shift)).double()
            moved = 2 * shift.flatten(1).double()
            gram, cross = gram + moved.T @ moved, cross + moved.T @ change
            square = square + change.square().sum(0)
        gram += RIDGE * gram.diagonal().mean() * torch.eye(values, dtype=gram.dtype, device=gram.device)
        inverse = torch.linalg.inv(gram)
        weights = (inverse @ cross).T
        left = (square - (weights.T * cross).sum(0)).clamp(min=0) / (rounds * len(base) - values)
        error = (left[:, None] * inverse.diagonal()).sqrt()
        return torch.where(weights.abs() > CERTAIN * error, weights, 0).to(images.dtype).contiguous()


def _first_trained(model: nn.Module, batch: Batch) -> tuple[str, int] | None:
    """Returns the name of the first layer with parameters, and how often one pass of the model calls it."""
    names = {
        module: name for name, module in model.named_modules() if name and not any(True for _ in module.children())
    }
    called = [module for module, given, _ in calls_of(model, list(names), batch) if given is not None]
    trained = [module for module in called if next(module.parameters(), None) is not None]
    return (names[trained[0]], called.count(trained[0])) if trained else None


def _given(model: nn.Module, name: str, calls: int, batch: Batch) -> tuple[Tensor, ...]:
    """Returns what a layer is given in each of its first calls; the rest of the model does not run."""
    kept: list[Tensor] = []

    def note(module: nn.Module, args: tuple) -> None:
        kept.append(args[0])
        if len(kept) == calls:
            raise _Reached

    hook = model.get_submodule(name).register_forward_pre_hook(note)
    try:
        with global_draws(0, batch.inputs.device):
            model_outputs(model, batch)
    except _Reached:
        pass
    finally:
        hook.remove()
    return tuple(kept)


class _Reached(Exception):
    """The layer has been called for the last time."""
