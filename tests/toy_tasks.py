"""Toy tasks beside classification and segmentation, each with a model that can be solved and attacked."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from datasets.batch import Batch
from datasets.tasks.base import Outputs, Predictions
from datasets.tasks.classification import Classification
from registry import TaskSpec
from registry.errors import InputContractError, ModelContractError


def _spec(name: str) -> TaskSpec:
    return TaskSpec(name=name, title=name, score="toy", quality="score", build="tests.toy_tasks:none", metrics=())


class Detection:
    """Boxes, padded with a `valid` mask; the score is the F1 of boxes at IoU 0.5."""

    spec = _spec("detection")
    fail_below, stop_at = 0.5, 0.0

    def check_targets(self, batch: Batch) -> None:
        if set(batch.targets) != {"boxes", "classes", "valid"}:
            raise InputContractError(f"expected targets boxes, classes and valid, got {sorted(batch.targets)}")

    def check_outputs(self, outputs: object, batch: Batch) -> Outputs:
        if not isinstance(outputs, dict) or set(outputs) != {"boxes", "logits"}:
            raise ModelContractError("expected a dict of boxes and logits")
        return outputs

    def training_loss(self, outputs: Outputs, batch: Batch) -> Tensor:
        """Returns the distance of the first target's box plus the loss of its class."""
        distance = (outputs["boxes"][:, 0] - batch.targets["boxes"][:, 0]).abs().mean(1)
        return distance + F.cross_entropy(outputs["logits"][:, 0], batch.targets["classes"][:, 0], reduction="none")

    def decode(self, outputs: Outputs, batch: Batch) -> Predictions:
        classes = outputs["logits"].argmax(2)
        return {"boxes": outputs["boxes"], "classes": classes, "kept": classes > 0}

    def score(self, predictions: Predictions, batch: Batch) -> Tensor:
        overlap = iou(predictions["boxes"], batch.targets["boxes"]) >= 0.5
        same = predictions["classes"][:, :, None] == batch.targets["classes"][:, None]
        valid, kept = batch.targets["valid"], predictions["kept"]
        hits = (overlap & same & kept[:, :, None] & valid[:, None]).any(1).sum(1)
        return (2 * hits / (kept.sum(1) + valid.sum(1)).clamp(min=1)).to(torch.float32)

    def facts(self, predictions: Predictions, batch: Batch) -> dict[str, np.ndarray]:
        return {"boxes": predictions["boxes"].flatten(1).numpy()}

    def corpus_metrics(self, facts: Mapping[str, np.ndarray]) -> dict[str, float]:
        return {}


class Detector(nn.Module):
    """One box of fixed size around the centre of brightness, of class 1 where the image is bright enough."""

    def forward(self, inputs: Tensor) -> dict[str, Tensor]:
        weight = inputs.mean(1) ** 4
        total = weight.sum((1, 2)) + 1e-6
        x = (weight * torch.arange(inputs.shape[3])).sum((1, 2)) / total
        y = (weight * torch.arange(inputs.shape[2])[:, None]).sum((1, 2)) / total
        boxes = torch.stack([x - 1.5, y - 1.5, x + 1.5, y + 1.5], 1)[:, None]
        bright = 10 * (inputs.amax((1, 2, 3)) - 0.5)
        return {"boxes": boxes, "logits": torch.stack([-bright, bright], 1)[:, None]}


class Landmark:
    """Points from heat maps; the score is the share of points within one pixel."""

    spec = _spec("landmark")
    fail_below, stop_at = 0.5, 0.0

    def check_targets(self, batch: Batch) -> None:
        if "points" not in batch.targets:
            raise InputContractError("expected targets points")

    def check_outputs(self, outputs: object, batch: Batch) -> Outputs:
        if not isinstance(outputs, Tensor) or outputs.ndim != 4:
            raise ModelContractError("expected heat maps (N, K, H, W)")
        return outputs

    def training_loss(self, outputs: Outputs, batch: Batch) -> Tensor:
        """Returns the mean negative log-likelihood of the true pixels."""
        points = batch.targets["points"].round().to(torch.int64)
        place = points[:, :, 1] * outputs.shape[3] + points[:, :, 0]
        return -outputs.flatten(2).log_softmax(2).gather(2, place[:, :, None])[:, :, 0].mean(1)

    def decode(self, outputs: Outputs, batch: Batch) -> Predictions:
        place = outputs.flatten(2).argmax(2)
        return {"points": torch.stack([place % outputs.shape[3], place // outputs.shape[3]], 2).to(torch.float32)}

    def score(self, predictions: Predictions, batch: Batch) -> Tensor:
        distance = (predictions["points"] - batch.targets["points"]).norm(dim=2)
        return (distance <= 1).to(torch.float32).mean(1)

    def facts(self, predictions: Predictions, batch: Batch) -> dict[str, np.ndarray]:
        return {"points": predictions["points"].flatten(1).numpy()}

    def corpus_metrics(self, facts: Mapping[str, np.ndarray]) -> dict[str, float]:
        return {}


class HeatMaps(nn.Module):
    """Two heat maps: the brightness and the darkness of each pixel."""

    def forward(self, inputs: Tensor) -> Tensor:
        brightness = inputs.mean(1)
        return 20 * torch.stack([brightness, -brightness], 1)


class Multimodal(Classification):
    """Classification of several modalities with tabular context."""

    spec = _spec("multimodal")


class Fusion(nn.Module):
    """Adds the linear logits of the modalities that are present and of the context."""

    def __init__(self, weights: Tensor, context_weight: Tensor) -> None:
        super().__init__()
        self.weights, self.context_weight = nn.Parameter(weights), nn.Parameter(context_weight)

    def forward(self, inputs: Tensor, *, context: Tensor, present: Tensor) -> Tensor:
        logits = torch.einsum("nmd,mkd->nmk", inputs.flatten(2) - 0.5, self.weights)
        return (logits * present[:, :, None]).sum(1) + context @ self.context_weight.T


class TrainingLoss:
    """The toy objective of every task: its own training loss."""

    def __init__(self, task) -> None:
        self._task = task

    def __call__(self, outputs: Outputs, batch: Batch, progress: Tensor) -> Tensor:
        return self._task.training_loss(outputs, batch)


def iou(first: Tensor, second: Tensor) -> Tensor:
    """Returns the intersection over union of (N, P, 4) with (N, T, 4): (N, P, T)."""
    low = torch.maximum(first[:, :, None, :2], second[:, None, :, :2])
    high = torch.minimum(first[:, :, None, 2:], second[:, None, :, 2:])
    shared = (high - low).clamp(min=0).prod(3)
    areas = [(boxes[..., 2:] - boxes[..., :2]).clamp(min=0).prod(2) for boxes in (first, second)]
    return shared / (areas[0][:, :, None] + areas[1][:, None] - shared).clamp(min=1e-6)


def detection_batch(n: int) -> Batch:
    """Returns images with one bright square each; every second sample has a padded, invalid second box."""
    inputs = torch.full((n, 1, 8, 8), 0.1)
    boxes, valid = torch.zeros(n, 2, 4), torch.tensor([[True, False]]).repeat(n, 1)
    for row in range(n):
        x, y = 1 + row % 4, 1 + (row // 2) % 4
        inputs[row, 0, y : y + 3, x : x + 3] = 0.8
        boxes[row, 0] = torch.tensor([x - 0.5, y - 0.5, x + 2.5, y + 2.5])
    targets = {"boxes": boxes, "classes": torch.tensor([[1, 0]]).repeat(n, 1), "valid": valid}
    return Batch(sample_ids=torch.arange(n), inputs=inputs, targets=targets)


def landmark_batch(n: int) -> Batch:
    """Returns images with one brightest and one darkest pixel."""
    inputs = torch.full((n, 1, 6, 6), 0.5)
    points = torch.zeros(n, 2, 2)
    for row in range(n):
        bright, dark = (row % 6, 1), ((row + 3) % 6, 4)
        inputs[row, 0, bright[1], bright[0]], inputs[row, 0, dark[1], dark[0]] = 0.5 + 0.02 * (row + 1), 0.2
        points[row] = torch.tensor([bright, dark], dtype=torch.float32)
    return Batch(sample_ids=torch.arange(n), inputs=inputs, targets={"points": points})


def multimodal_batch(n: int) -> tuple[Fusion, Batch]:
    """Returns a fusion model of 2 modalities and samples labelled by it; every third lacks the second modality."""
    generator = torch.Generator().manual_seed(3)
    model = Fusion(torch.randn(2, 3, 16, generator=generator), torch.randn(3, 5, generator=generator) * 0.3).eval()
    present = torch.ones(n, 2, dtype=torch.bool)
    present[::3, 1] = False
    inputs = 0.2 + 0.6 * torch.rand(n, 2, 1, 4, 4, generator=generator)
    context = torch.randn(n, 5, generator=generator)
    with torch.no_grad():
        label = model(inputs, context=context, present=present).argmax(1)
    return model, Batch(
        sample_ids=torch.arange(n), inputs=inputs, targets={"label": label}, context=context, present=present
    )
