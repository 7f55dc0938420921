"""One decision of each sample: a pixel of a label map, or one of several labels, looked at as one label is."""

from __future__ import annotations

import torch
from torch import Tensor

from attacks.draws import KeyedRandom
from attacks.soundness.witness import MOST_SHIFTS
from attacks.victim import ModelVictim
from datasets.batch import Batch
from datasets.tasks.base import Outputs, Task
from datasets.tasks.classification import Classification

PLACE = "place"
"""Target of a batch: which decision of each sample is meant, int64 (N,)."""


class OneDecision(ModelVictim):
    """A victim that answers one decision of each sample, as logits (N, classes); the batch says which and its label.

    One of several labels has two classes: 0 is the logit of its absence.
    """

    def _forward(self, batch: Batch, draw_ids: Tensor | None) -> Outputs:
        outputs = super()._forward(batch, draw_ids)
        place = batch.targets[PLACE]
        if outputs.ndim > 2:
            logits = outputs.flatten(2)
            return logits.gather(2, place[:, None, None].expand(-1, logits.shape[1], 1))[:, :, 0]
        logit = outputs.gather(1, place[:, None])[:, 0]
        return torch.stack([torch.zeros_like(logit), logit], 1)


def has_many_decisions(task: Task) -> bool:
    """Returns whether a sample has many decisions that are known here: pixels of a label map, or several labels."""
    return task.spec.name == "segmentation" or hasattr(task, "n_labels")


def one_decision(victim: ModelVictim) -> OneDecision:
    """Returns a victim around the same model that answers one decision of each sample, see `decisions`."""
    classes = getattr(victim.task, "n_classes", 2)
    return OneDecision(victim.model, Classification(classes), slots=victim.slots, randomness=victim.randomness)


def decisions(task: Task, batch: Batch, rows: Tensor, outputs: Outputs, most: int) -> tuple[Batch, Tensor]:
    """Returns samples with a right decision each, and for half of them another image that decides otherwise there.

    The true class is drawn first, since scores count classes, and then a place; of every second sample among the places
    that another image decides otherwise, of the rest among all. Few samples are taken several times, with decisions of
    their own.

    Args:
        task: Of label maps, or of several labels.
        batch: All samples of the cell.
        rows: int64 (n,), those to choose of.
        outputs: Outputs of the model on all samples.
        most: How many decisions to look at.

    Returns:
        The samples, up to `most`, with targets "label" and "place"; and the place of the other image in the cell,
        int64, -1 for none.
    """
    answers, truth, counts = _all_decisions(task, batch, outputs)
    rows = rows.repeat(-(-most // max(1, len(rows))))[:most]
    turn = torch.arange(len(rows), device=rows.device) // max(1, len(rows.unique()))
    right = ((answers == truth) & counts)[rows]
    rows, turn, right = (values[right.any(1)] for values in (rows, turn, right))
    keys = KeyedRandom(seed=0, stream=4).keys(batch.sample_ids[rows], turn)
    right = right & (truth[rows] == _drawn_value(truth[rows], right, keys)[:, None])
    order = KeyedRandom.uniform(keys, answers.shape[1:], 1) + 1
    place = (order * right).argmax(1)
    other = torch.full_like(rows, -1)
    searched = torch.arange(len(rows), device=rows.device) % 2 == 0
    for shift in range(1, min(len(batch), MOST_SHIFTS)):
        undecided = (searched & (other < 0)).nonzero()[:, 0]
        if not len(undecided):
            break
        mine = rows[undecided]
        theirs = (mine + shift) % len(batch)
        differs = right[undecided] & (answers[theirs] != truth[mine])
        found = differs.any(1)
        other[undecided[found]] = theirs[found]
        place[undecided[found]] = (order[undecided] * differs).argmax(1)[found]
    samples = batch.take(rows).with_target(PLACE, place)
    return samples.with_target("label", truth[rows].gather(1, place[:, None])[:, 0]), other


def _drawn_value(truth: Tensor, right: Tensor, keys: Tensor) -> Tensor:
    """Returns one of the true values among the right decisions of each row, all alike likely: int64 (n,)."""
    values = range(int(truth.max()) + 1 if truth.numel() else 1)
    held = torch.stack([(right & (truth == value)).any(1) for value in values], 1)
    return ((KeyedRandom.uniform(keys, (len(values),)) + 1) * held).argmax(1)


def _all_decisions(task: Task, batch: Batch, outputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Returns what is decided, what is true, both int64 (N, decisions), and whether it counts."""
    if hasattr(task, "n_labels"):
        labels = batch.targets["labels"]
        return (outputs > 0).long(), labels.long(), batch.targets.get("weights", torch.ones_like(labels)) > 0
    mask = batch.targets["mask"].flatten(1)
    return outputs.argmax(1).flatten(1), mask, torch.ones_like(mask, dtype=torch.bool)
