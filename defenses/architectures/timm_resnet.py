"""ResNets of the published size, from the timm library, for images of 128 pixels and more."""

from __future__ import annotations

from torch import nn

from defenses.architectures.normalize import Normalize
from registry import DatasetSpec
from registry.errors import InvalidEntryError

MODELS = ("resnet18", "resnet50")


def build(dataset: DatasetSpec, *, model: str = "resnet18") -> nn.Module:
    """Returns a ResNet of timm, randomly initialised, behind the normalisation that all models here share.

    Args:
        dataset: Single images (C, H, W) with class labels.
        model: "resnet18" or "resnet50"; weights are never downloaded.

    Raises:
        InvalidEntryError: The data set does not hold single images with class labels, or the model is another.
    """
    if dataset.task != "classification" or len(dataset.input_shape) != 3:
        raise InvalidEntryError(
            f"{model} classifies images (C, H, W); data set {dataset.name} is {dataset.task} "
            f"of shape {dataset.input_shape}: name another architecture"
        )
    if model not in MODELS:
        raise InvalidEntryError(f"model must be one of {', '.join(MODELS)}, got {model!r}")
    import timm  # registers hundreds of models, so it waits until one is wanted

    network = timm.create_model(model, pretrained=False, num_classes=dataset.n_classes, in_chans=dataset.input_shape[0])
    return nn.Sequential(Normalize(), network)
