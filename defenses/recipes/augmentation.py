"""Light augmentation for grey and colour images: mirroring and small shifts, drawn for each sample."""

from __future__ import annotations

import torch
from torch import Tensor

from datasets.batch import Batch
from registry.errors import InvalidEntryError

UNTOUCHED = ("label", "labels", "weights")
"""Targets that do not move with the image."""
MOVED = ("mask",)
"""Targets (N, H, W) that move with the image."""


def augment(batch: Batch, *, flip: bool, shift: int, generator: torch.Generator) -> Batch:
    """Returns the batch mirrored and shifted at random, masks with their images.

    Args:
        batch: Inputs (N, C, H, W) or (N, M, C, H, W); modalities of a sample move together.
        flip: Mirror each sample left to right with probability 1/2.
        shift: Move each sample by up to this many pixels along each axis; the border is repeated.
        generator: Generator on the CPU.

    Raises:
        InvalidEntryError: The targets hold points or boxes, which this augmentation does not move.
    """
    strangers = set(batch.targets) - {*UNTOUCHED, *MOVED}
    if (flip or shift) and strangers:
        raise InvalidEntryError(
            f"augmentation moves images and masks only, got targets {', '.join(sorted(strangers))}; "
            "set the recipe's options flip=False and shift=0"
        )
    n, (height, width) = len(batch), batch.inputs.shape[-2:]
    rows = torch.arange(height).expand(n, -1)
    columns = torch.arange(width).expand(n, -1)
    if flip:
        mirrored = torch.rand(n, 1, generator=generator) < 0.5
        columns = torch.where(mirrored, columns.flip(1), columns)
    if shift:
        offsets = torch.randint(-shift, shift + 1, (2, n, 1), generator=generator)
        rows = (rows + offsets[0]).clamp(0, height - 1)
        columns = (columns + offsets[1]).clamp(0, width - 1)
    device = batch.inputs.device
    rows, columns = rows.to(device), columns.to(device)
    moved = batch.with_inputs(_gather(batch.inputs, rows, columns))
    for name in set(batch.targets) & set(MOVED):
        moved = moved.with_target(name, _gather(batch.targets[name], rows, columns))
    return moved


def _gather(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Returns images whose pixel (y, x) is the pixel (rows[n, y], columns[n, x]) of sample n."""
    flat = images.reshape(len(images), -1, *images.shape[-2:])
    sample = torch.arange(len(images), device=images.device)[:, None, None, None]
    channel = torch.arange(flat.shape[1], device=images.device)[None, :, None, None]
    return flat[sample, channel, rows[:, None, :, None], columns[:, None, None, :]].reshape(images.shape)
