"""The features of a classifier: what its last linear layer sees."""

from __future__ import annotations

from torch import Tensor, nn

from registry.errors import InvalidEntryError


def head_inputs(net: nn.Module, images: Tensor) -> Tensor:
    """Returns the inputs of a network's last linear layer, (N, D), with their gradient.

    Args:
        net: A classifier.
        images: (N, C, H, W).

    Raises:
        InvalidEntryError: The network has no linear layer, or does not use its last one.
    """
    heads = [module for module in net.modules() if isinstance(module, nn.Linear)]
    if not heads:
        raise InvalidEntryError(f"features are the inputs of a linear head; {type(net).__name__} has no linear layer")
    seen: list[Tensor] = []
    handle = heads[-1].register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    try:
        net(images)
    finally:
        handle.remove()
    if not seen:
        raise InvalidEntryError(f"the last linear layer of {type(net).__name__} was not used; its features are unknown")
    return seen[-1]
