"""Classification with a detector in front: the model may reject an image, by a logit of its own beside the classes."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from datasets.batch import Batch
from datasets.tasks.base import Outputs, Predictions, one_tensor
from datasets.tasks.classification import Classification
from registry import DatasetSpec
from registry.errors import InvalidEntryError, ModelContractError

FALSE_ALARM = "false_alarm"
"""Target, bool (N,): images whose unchanged form the detector rejects."""


class DetectorClassification(Classification):
    """Scores a classifier that rejects what it takes for attacked: logits (N, classes + 1), the last wins on rejection.

    A changed image is right if it is rejected or classified right, and wrong whatever happens to it where its unchanged
    form is rejected already: robust accuracy at the detector's own false-alarm rate. `mark` must be called first; in an
    unmarked batch every rejection is a false alarm, which makes the score that of unchanged images. Models without the
    last logit, such as the undefended twin, never reject.

    Args:
        n_classes: Number of classes, without rejection.
    Source: Tramer 2022, arXiv:2107.11630, section 2: robust classification with rejection.
    """

    def check_outputs(self, outputs: object, batch: Batch) -> Outputs:
        expected = (len(batch), self.n_classes + 1)
        logits = one_tensor(outputs, batch, f"logits of shape (N, {expected[1]}), the last one for rejection")
        if logits.shape != expected:
            raise ModelContractError(
                f"expected logits of shape {expected}, one per class and one for rejection, got {tuple(logits.shape)}"
            )
        return logits

    def mark(self, outputs: Outputs, batch: Batch) -> Batch:
        """Returns the batch with its false alarms, from the outputs on the unchanged images."""
        return batch.with_target(FALSE_ALARM, self._rejected(outputs.argmax(1)))

    def training_loss(self, outputs: Outputs, batch: Batch) -> Tensor:
        """Returns the cross-entropy of the classes alone, (N,): what an attacker ascends who ignores the detector."""
        return super().training_loss(outputs[:, : self.n_classes], batch)

    def decode(self, outputs: Outputs, batch: Batch) -> Predictions:
        """Returns the prediction, `n_classes` for rejection, and the probabilities of the classes."""
        return {"prediction": outputs.argmax(1), "probabilities": outputs[:, : self.n_classes].softmax(1)}

    def score(self, predictions: Predictions, batch: Batch) -> Tensor:
        right = predictions["prediction"] == batch.targets["label"]
        if FALSE_ALARM in batch.targets:
            right = (right | self._rejected(predictions["prediction"])) & ~batch.targets[FALSE_ALARM]
        return right.to(torch.float32)

    def corpus_metrics(self, facts: Mapping[str, np.ndarray]) -> dict[str, float]:
        """Returns the metrics of the classes, and the share of rejected images: unchanged ones are false alarms."""
        rejected = float((facts["prediction"] == self.n_classes).mean())
        return super().corpus_metrics(facts) | {"rejected": rejected}

    def _rejected(self, prediction: Tensor) -> Tensor:
        return prediction == self.n_classes


def build(spec: DatasetSpec) -> DetectorClassification:
    """Returns the task of detectors on a data set.

    Raises:
        InvalidEntryError: Another task than classification, or several labels at once.
    """
    if spec.task != "classification" or spec.multi_label:
        raise InvalidEntryError(
            f"detectors are scored on one label a sample; data set {spec.name} is {spec.task}"
            + (" with several labels" if spec.multi_label else "")
        )
    return DetectorClassification(spec.n_classes)
