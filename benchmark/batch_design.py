"""The sample design of a batch, for everything that takes means of its scores."""

from __future__ import annotations

from datasets.batch import Batch
from results.sample_design import SampleDesign


def design_of(batch: Batch) -> SampleDesign:
    """Returns which samples of a batch belong together, and how much each counts."""
    parts = {"groups": batch.groups, "weights": batch.weights}
    return SampleDesign(**{name: part if part is None else part.cpu().numpy() for name, part in parts.items()})
