"""The interface every task implements, so that no runner, attack or page asks which task it holds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from datasets.batch import Batch
from registry import TASKS, DatasetSpec, TaskSpec, resolve
from registry.errors import ModelContractError

Outputs = Tensor | dict[str, Tensor]
"""Raw head tensors of a model, each with leading axis N."""
Predictions = Mapping[str, Tensor]
"""Decoded outputs, each with leading axis N."""


@runtime_checkable
class Task(Protocol):
    """What one sample's score is, and how outputs become predictions.

    A minimal task, for whole-image regression of one value in [0, 1]:

        class Regression:
            spec, fail_below, stop_at = TASKS["regression"], 0.5, 0.0
            def check_outputs(self, outputs, batch): ...
            def training_loss(self, outputs, batch): return (outputs[:, 0] - batch.targets["value"]) ** 2
            def decode(self, outputs, batch): return {"value": outputs[:, 0]}
            def score(self, predictions, batch): return 1 - (predictions["value"] - batch.targets["value"]).abs()
            def facts(self, predictions, batch): return {"value": predictions["value"].numpy()}
            def corpus_metrics(self, facts): return {}
    """

    spec: TaskSpec
    """Its card."""
    fail_below: float
    """A sample is broken when its score is under this."""
    stop_at: float
    """An attack may stop on a sample at or under this score: 0 for graded scores, below `fail_below` for 0/1 ones."""

    def check_targets(self, batch: Batch) -> None:
        """Raises InputContractError where targets are not what this task scores."""

    def check_outputs(self, outputs: object, batch: Batch) -> Outputs:
        """Returns the outputs; raises ModelContractError where they are not what this task scores."""

    def training_loss(self, outputs: Outputs, batch: Batch) -> Tensor:
        """Returns the loss of each sample, (N,)."""

    def decode(self, outputs: Outputs, batch: Batch) -> Predictions:
        """Returns predictions: arg max, arg max of heat maps, non-maximum suppression. Only scores see it."""

    def score(self, predictions: Predictions, batch: Batch) -> Tensor:
        """Returns the score of each sample in [0, 1], (N,); 1 is perfect, 0 is lost."""

    def facts(self, predictions: Predictions, batch: Batch) -> dict[str, np.ndarray]:
        """Returns what is stored of each sample beside its score, each (N,) or (N, K)."""

    def corpus_metrics(self, facts: Mapping[str, np.ndarray]) -> dict[str, float]:
        """Returns the metrics of a whole set from stored facts; they never rank."""


def task_for(spec: DatasetSpec, *, detects: bool = False) -> Task:
    """Returns the task of a data set; of a defense that detects attacks the one that knows rejection.

    Raises:
        InvalidEntryError: There is no task of detectors for this data set.
    """
    return resolve("datasets.tasks.detector:build" if detects else TASKS[spec.task].build)(spec)


def model_outputs(model: Callable[..., Outputs], batch: Batch) -> Outputs:
    """Returns `model(inputs)`; where the batch holds them, the model also gets `context` and `present` by name."""
    extra = {"context": batch.context, "present": batch.present}
    return model(batch.inputs, **{name: values for name, values in extra.items() if values is not None})


def one_tensor(outputs: object, batch: Batch, expected: str) -> Tensor:
    """Returns the outputs as the one float tensor with a row per sample that a task expects.

    Raises:
        ModelContractError: A tuple, a dict, integers, NaN, or another number of rows.
    """
    if not isinstance(outputs, Tensor):
        raise ModelContractError(
            f"expected the model to return {expected}, got a {type(outputs).__name__}; "
            "return the raw head tensor alone, e.g. wrap the model and keep its first output"
        )
    if not outputs.is_floating_point() or outputs.ndim < 2 or outputs.shape[0] != len(batch):
        raise ModelContractError(
            f"expected the model to return {expected} for {len(batch)} inputs, "
            f"got shape {tuple(outputs.shape)} of {outputs.dtype}"
        )
    if not torch.isfinite(outputs).all():
        raise ModelContractError(
            f"the model returns NaN or infinity for {int((~torch.isfinite(outputs)).flatten(1).any(1).sum())} "
            f"of {len(batch)} inputs; a defense must return finite logits for every image in [0, 1]"
        )
    return outputs
