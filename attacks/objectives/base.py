"""Look-up of objectives by task and name."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from attacks.objectives import classification, segmentation
from datasets.batch import Batch
from datasets.tasks.base import Outputs, Task
from registry.errors import InvalidEntryError

OBJECTIVES = {"classification": classification.OBJECTIVES, "segmentation": segmentation.OBJECTIVES}
"""By task, then by name; each maps a task's outputs, a batch and the progress to one value a row."""


class Aimed(Protocol):
    """An objective that steers towards a class, which is chosen before the attack starts."""

    def aim(self, outputs: Outputs, batch: Batch, restart: Tensor) -> Batch:
        """Returns the batch with its target "goal".

        Args:
            outputs: Clean outputs of the rows.
            batch: The rows.
            restart: int64 (N,), restart of each row; restart k aims at the k-th most likely wrong class.
        """

    def __call__(self, outputs: Outputs, batch: Batch, progress: Tensor) -> Tensor:
        """Returns the value of each row."""


def objective_for(task: Task, name: str):
    """Returns the objective of a task by name; of a detector "margin" is "detector-margin", and so on.

    Raises:
        InvalidEntryError: The task has no objective of this name, or not for this number of classes.
    """
    known = OBJECTIVES.get(task.spec.name, {})
    if hasattr(task, "mark"):  # of a detector: what succeeds is classified wrong and not rejected
        name = f"detector-{name}" if f"detector-{name}" in known else name
    if name not in known:
        raise InvalidEntryError(
            f"task {task.spec.name} has no objective {name!r}; it has {', '.join(sorted(known)) or 'none yet'}"
        )
    return known[name](task)
