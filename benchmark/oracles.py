"""Hands true labels to the models of oracle entries, and to nobody else."""

from __future__ import annotations

from dataclasses import replace

from torch import nn
from torch.nn import functional as F

from datasets.batch import Batch
from defenses.purifiers.dgmp import ImagesOnly
from registry import DatasetSpec, DefenseEntry
from registry.errors import InputContractError


def seen_by(entry: DefenseEntry, batch: Batch, spec: DatasetSpec) -> Batch:
    """Returns the batch as the model of an entry sees it: an oracle finds the true labels in its context.

    This is the only way from targets to a model; the registry refuses an oracle that ranks.

    Args:
        entry: The defense.
        batch: Samples with targets.
        spec: Data set of the batch.

    Raises:
        InputContractError: The oracle's data set has several labels per image, or tabular data already.
    """
    if not entry.oracle:
        return batch
    if spec.multi_label or batch.context is not None:
        raise InputContractError(
            f"{entry.name} is told one label per image in the place of tabular data; {spec.name} has "
            f"{'several labels' if spec.multi_label else 'tabular data'}: evaluate it on another data set"
        )
    labels = F.one_hot(batch.targets["label"], spec.n_classes).to(batch.inputs.dtype)
    return replace(batch, context=labels)


def twin_of(entry: DefenseEntry, twin: nn.Module | None) -> nn.Module | None:
    """Returns the undefended twin for the batches of an entry: beside an oracle, it does not look at the labels."""
    return ImagesOnly(twin).eval() if entry.oracle and twin is not None else twin
