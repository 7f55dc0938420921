"""What an attack makes of slopes that are not finite: the rest of a gradient still leads somewhere."""

from __future__ import annotations

import torch
from torch import Tensor


def finite_slopes(slopes: Tensor) -> tuple[Tensor, Tensor]:
    """Returns slopes without NaN and infinity, and which rows are usable as they came: (N, ...) and bool (N,).

    NaN says nothing and becomes 0. An infinite slope, such as that of a root at 0, has a direction: it becomes as large
    as the largest finite one of its row, or 1 where that is less. A row is usable that is finite and not zero.

    Args:
        slopes: (N, ...), of one draw each: one draw that is not finite must not cost the mean of many.
    """
    size = slopes.abs().flatten(1).amax(1)
    usable = torch.isfinite(size) & (size > 0)
    if bool(torch.isfinite(size).all()):
        return slopes, usable
    finite = torch.where(torch.isfinite(slopes), slopes, 0.0)
    largest = finite.abs().flatten(1).amax(1).clamp(min=1.0).reshape(-1, *[1] * (slopes.ndim - 1))
    return torch.where(torch.isinf(slopes), slopes.sign() * largest, finite), usable
