"""Gradients that a model hides: stages that say nothing on the way back, outputs that saturate, wrapped networks.

All are found by looking at a copy of the model while it computes; nothing has to be declared. A stage written as plain
code inside a larger module's `forward` cannot be found here, see `learned_twin`.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

from datasets.batch import Batch
from datasets.tasks.base import model_outputs

HONEST = 0.3
"""Share of the predicted change that an honest gradient delivers, as for the flag `dishonest-gradient`."""
STEP = 2 / 255
"""Length of the step on which a stage's gradient is checked, in input units."""
AGREEMENT = 0.99
"""Share of predictions that inner logits must share with the model's outputs."""
LIKENESS = 0.9
"""Share of predictions that the network inside of a wrapper must share with the whole model."""


def identity(inputs: Tensor) -> Tensor:
    """Returns its inputs: what stands in for a stage about which nothing is known."""
    return inputs


def declare_stages(model: nn.Module, batch: Batch) -> tuple[str, ...]:
    """Gives every undeclared stage with a dishonest gradient the identity as its stand-in; returns their names.

    A stage is a module without parameters that runs before any module with some and keeps the images' shape.

    Args:
        model: A copy that may be changed.
        batch: Some samples.
    """
    modules = {module: name for name, module in model.named_modules() if name}
    calls = calls_of(model, list(modules), batch)
    found: list[str] = []
    for module, given, returned in calls:
        if next(module.parameters(), None) is not None:
            if not any(True for _ in module.children()):
                break  # the network begins here
            continue
        if hasattr(module, "bpda_twin") or given is None or not isinstance(returned, Tensor):
            continue
        if given.shape == returned.shape == batch.inputs.shape and delivers(copy.deepcopy(module), given) < HONEST:
            module.bpda_twin = identity
            found.append(modules[module])
    return tuple(found)


def bypass_stages(model: nn.Module, batch: Batch) -> tuple[str, ...]:
    """Gives every declared stage that keeps its input's shape the identity as its stand-in instead of its own.

    A stand-in that leads nowhere would close the way through its stage.

    Args:
        model: A copy that may be changed.
        batch: Some samples.

    Returns:
        The names of the stages where the way back is another one now, in the order in which they end.
    """
    modules = {module: name for name, module in model.named_modules() if hasattr(module, "bpda_twin")}
    calls = calls_of(model, list(modules), batch)
    reshaping = {module for module, given, returned in calls if not _keeps_shape(given, returned)}
    found: dict[nn.Module, str] = {}
    for module, given, _ in calls:
        if module not in reshaping and module not in found and not _passes_on(module, given):
            module.bpda_twin = identity
            found[module] = modules[module]
    return tuple(found.values())


def inner_logits(model: nn.Module, batch: Batch) -> InnerLogits | None:
    """Returns the model cut before its last stages, at the earliest module that already predicts the same; or None.

    Args:
        model: Returns one tensor with the classes on axis 1.
        batch: Some samples.
    """
    modules = {module: name for name, module in model.named_modules() if name}
    with torch.no_grad():
        outputs = model_outputs(model, batch)
    if not isinstance(outputs, Tensor) or outputs.ndim < 2:
        return None
    top = outputs.topk(2, dim=1).values
    clear = top[:, 0] > top[:, 1]  # saturated outputs tie
    if not clear.any():
        return None
    for module, _, returned in calls_of(model, list(modules), batch):
        if not isinstance(returned, Tensor) or returned.shape != outputs.shape or not returned.requires_grad:
            continue
        agreement = float((returned.argmax(1) == outputs.argmax(1))[clear].double().mean())
        if agreement >= AGREEMENT and not torch.allclose(returned, outputs):
            return InnerLogits(model, modules[module])
    return None


def inner_network(model: nn.Module, batch: Batch) -> nn.Module | None:
    """Returns the network inside of a wrapper: the first module that answers the images by itself as the model does.

    It has a gradient even where the wrapper calls it without one, rounds its votes or moves its inputs first.

    Args:
        model: Returns one tensor with the classes on axis 1.
        batch: Some samples; tabular data and missing modalities cannot be handed on.
    """
    if batch.context is not None or batch.present is not None:
        return None
    with torch.no_grad():
        outputs = model_outputs(model, batch)
    if not isinstance(outputs, Tensor) or outputs.ndim < 2:
        return None
    for module, given, returned in calls_of(model, [module for name, module in model.named_modules() if name], batch):
        same = isinstance(returned, Tensor) and returned.shape == outputs.shape
        if same and given is not None and given.shape == batch.inputs.shape:
            with torch.no_grad():
                alone = module(batch.inputs)
            if float((alone.argmax(1) == outputs.argmax(1)).double().mean()) >= LIKENESS:
                return module
    return None


class InnerLogits(nn.Module):
    """Returns what one module inside of a model computes, instead of the model's outputs.

    Args:
        model: The whole model; it runs as it is.
        name: Name of the module.
    """

    def __init__(self, model: nn.Module, name: str) -> None:
        super().__init__()
        self.model = model
        self.name = name

    def forward(self, inputs: Tensor, **context: Tensor) -> Tensor:
        """Returns the module's last output."""
        kept: list[Tensor] = []
        hook = self.model.get_submodule(self.name).register_forward_hook(lambda m, args, out: kept.append(out))
        try:
            self.model(inputs, **context)
        finally:
            hook.remove()
        return kept[-1]


def calls_of(model: nn.Module, modules: list[nn.Module], batch: Batch) -> list[tuple[nn.Module, Tensor | None, object]]:
    """Returns module, first argument and output of every call of one forward pass, in the order they end."""
    seen: list[tuple[nn.Module, Tensor | None, object]] = []

    def note(module: nn.Module, args: tuple, output: object) -> None:
        seen.append((module, args[0] if args and isinstance(args[0], Tensor) else None, output))

    hooks = [module.register_forward_hook(note) for module in modules]
    try:
        with torch.enable_grad():
            model_outputs(model, batch.with_inputs(batch.inputs.clone().requires_grad_()))
    finally:
        for hook in hooks:
            hook.remove()
    return seen


def _keeps_shape(given: Tensor | None, returned: object) -> bool:
    """Returns whether a stage maps floating-point values to as many in the same places."""
    if given is None or not isinstance(returned, Tensor):
        return False
    return given.shape == returned.shape and given.is_floating_point()


def _passes_on(stage: nn.Module, inputs: Tensor) -> bool:
    """Returns whether a stage's stand-in hands a gradient on as it is, which is all that counts of it."""
    inputs = inputs.detach().clone().requires_grad_()
    weight = torch.randn(inputs.shape, generator=torch.Generator().manual_seed(0)).to(inputs)
    with torch.enable_grad():
        twin = copy.deepcopy(stage).bpda_twin(inputs)
        if twin.shape != inputs.shape or not twin.requires_grad:
            return False
        slope = torch.autograd.grad((twin * weight).sum(), inputs, allow_unused=True)[0]
    return slope is not None and torch.allclose(slope, weight)


def delivers(stage: Callable[[Tensor], Tensor], inputs: Tensor) -> float:
    """Returns which share of the change that its gradient predicts a stage delivers, along random directions."""
    inputs = inputs.detach().clone().requires_grad_()
    generator = torch.Generator().manual_seed(0)
    with torch.enable_grad():
        outputs = stage(inputs)
        weight = torch.randn(outputs.shape, generator=generator).to(outputs)
        value = (outputs * weight).sum()
        slope = torch.autograd.grad(value, inputs, allow_unused=True)[0] if value.requires_grad else None
    if slope is None or not torch.isfinite(slope).all():
        return 0.0
    with torch.no_grad():
        moved = (inputs + STEP * slope.sign()).clamp(0, 1)
        predicted = float((slope * (moved - inputs)).sum())
        return float((stage(moved) * weight).sum() - value) / predicted if predicted > 0 else 0.0


def has_stages(model: nn.Module) -> bool:
    """Returns whether any module has a stand-in for BPDA."""
    return any(hasattr(module, "bpda_twin") for module in model.modules())
