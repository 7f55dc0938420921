"""Which architecture a data set gets where a defense does not care: one choice for all, so that rows compare."""

from __future__ import annotations

from torch import nn

from defenses.architectures import resnet, timm_resnet, unet
from registry import DatasetSpec
from registry.errors import InvalidEntryError

FULL_SIZE_FROM = 128
"""Edge length in pixels from which classification uses the published ResNet-18 instead of the narrow one."""
RESNET_WIDTH, RESNET_WIDTH_GENERATED = 16, 5
UNET_WIDTH, UNET_WIDTH_GENERATED = 12, 6


def build(dataset: DatasetSpec, *, width: int | None = None, full_size: str = "resnet18") -> nn.Module:
    """Returns the default architecture of a data set.

    | task | images | architecture |
    |---|---|---|
    | classification | under 128 pixels | narrow ResNet-18, width 16 |
    | classification | 128 pixels and more | ResNet-18 of timm, or ResNet-50 |
    | segmentation | any | U-Net, width 12 |

    Generated data sets (`dataset.embedded`, the phantoms) get a narrow ResNet-18 of width 5 and a U-Net of width 6:
    they are easy, and their weights are committed so that the smoke suite needs no training.

    Args:
        dataset: What the model is for.
        width: Channels of the first stage, in place of the default; not for a ResNet of timm.
        full_size: "resnet18" or "resnet50": what classification gets from 128 pixels on.

    Raises:
        InvalidEntryError: No default exists for the task or the shape, or the architecture has no width.
    """
    task, shape = dataset.task, dataset.input_shape
    if len(shape) == 3 and task == "classification":
        if shape[1] < FULL_SIZE_FROM:
            return resnet.build(dataset, width=width or (RESNET_WIDTH_GENERATED if dataset.embedded else RESNET_WIDTH))
        if width is not None:
            raise InvalidEntryError(f"the {full_size} for {shape[1]} pixels has no width to choose, got {width}")
        return timm_resnet.build(dataset, model=full_size)
    if len(shape) == 3 and task == "segmentation":
        return unet.build(dataset, width=width or (UNET_WIDTH_GENERATED if dataset.embedded else UNET_WIDTH))
    raise InvalidEntryError(
        f"no default architecture for {task} of shape {shape} (data set {dataset.name}); "
        'name one in the entry, e.g. build="defenses.architectures.resnet:build"'
    )
