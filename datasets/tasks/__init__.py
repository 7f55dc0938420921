"""Tasks: what a score is, and what a model's outputs must look like."""

from datasets.tasks.base import Outputs, Predictions, Task, model_outputs, task_for

__all__ = ["Outputs", "Predictions", "Task", "model_outputs", "task_for"]
