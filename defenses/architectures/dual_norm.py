"""Dual batch normalisation: clean and adversarial batches have statistics, scales and offsets of their own."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn

from defenses.architectures import default
from registry import DatasetSpec
from registry.errors import InvalidEntryError

BRANCHES = ("adversarial", "clean")


class DualBatchNorm2d(nn.Module):
    """Two batch normalisations, of which one is in use.

    Args:
        norm: The batch normalisation that is doubled, with its initial values.
        inference: The one that is in use outside of `branch`: "adversarial" or "clean".
    Source: Han et al. 2021, doi 10.1038/s41467-021-24464-3, section Methods.
    """

    def __init__(self, norm: nn.BatchNorm2d, inference: str) -> None:
        super().__init__()
        self.adversarial = norm
        self.clean = copy.deepcopy(norm)
        self.used = inference

    def forward(self, inputs: Tensor) -> Tensor:
        return self.adversarial(inputs) if self.used == "adversarial" else self.clean(inputs)

    def extra_repr(self) -> str:
        return f"used={self.used}"


@contextmanager
def branch(model: nn.Module, name: str) -> Iterator[None]:
    """Lets all dual normalisations of a model use "clean" or "adversarial" within the block."""
    layers = [module for module in model.modules() if isinstance(module, DualBatchNorm2d)]
    before = [layer.used for layer in layers]
    for layer in layers:
        layer.used = name
    try:
        yield
    finally:
        for layer, used in zip(layers, before, strict=True):
            layer.used = used


def build(
    dataset: DatasetSpec, *, inference: str = "adversarial", width: int | None = None, full_size: str = "resnet18"
) -> nn.Module:
    """Returns the default architecture of a data set with every batch normalisation doubled.

    Args:
        dataset: What the model is for.
        inference: Which normalisation the model has outside of training: "adversarial" for robustness, "clean" for
            accuracy on clean images.
        width, full_size: As in `defenses.architectures.default.build`.

    Raises:
        InvalidEntryError: `inference` is another word, or the default architecture does not exist.
    """
    if inference not in BRANCHES:
        raise InvalidEntryError(f"inference is one of {', '.join(BRANCHES)}, got {inference!r}")
    model = default.build(dataset, width=width, full_size=full_size)
    for name, module in list(model.named_modules()):
        if isinstance(module, nn.BatchNorm2d):
            model.set_submodule(name, DualBatchNorm2d(module, inference))
    return model
