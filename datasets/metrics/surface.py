"""Surface distances of label maps."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor
from torch.nn import functional as F


def hd95(prediction: Tensor, mask: Tensor, n_classes: int) -> Tensor:
    """Returns the 95th percentile of the symmetric surface distance of each image, in pixels.

    The mean over the foreground classes that the target holds. A class that is not predicted at all
    counts with the image diagonal, the largest distance possible; an image with an empty target is NaN.

    Args:
        prediction, mask: int64 (N, H, W).
        n_classes: Number of classes with the background.

    Returns:
        float32 (N,).
    Source: MONAI `compute_hausdorff_distance(percentile=95)`.
    """
    from monai.metrics import compute_hausdorff_distance  # slow to import, needed once a cell

    predicted = F.one_hot(prediction, n_classes).movedim(-1, 1)
    true = F.one_hot(mask, n_classes).movedim(-1, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns of every absent class, which is dealt with below
        distances = compute_hausdorff_distance(predicted, true, include_background=False, percentile=95)
    distances = distances.to(torch.float32)
    diagonal = float((mask.shape[1] ** 2 + mask.shape[2] ** 2) ** 0.5)
    held = true[:, 1:].sum((2, 3)) > 0
    missed = ~torch.isfinite(distances) & held.to(distances.device)
    distances = torch.where(missed, torch.full_like(distances, diagonal), distances)
    distances = torch.where(held.to(distances.device), distances, torch.full_like(distances, torch.nan))
    return distances.nanmean(1)
