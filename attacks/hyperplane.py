"""Smallest changes that carry points onto a linearised decision boundary without leaving [0, 1]."""

from __future__ import annotations

import torch
from torch import Tensor

from attacks.ball import Ball
from attacks.victim import Answer
from registry import Norm
from registry.errors import InvalidEntryError


def change_to_boundary(ball: Ball, begin: Tensor, seen_from: Tensor, answer: Answer) -> Tensor:
    """Returns the smallest allowed changes of `begin` that reach the boundary as linearised at `seen_from`.

    Several modalities with radii of their own: changes are measured relative to them, in L2 and L1 over all together.

    Args:
        ball: Norm and support; its radii matter only where they differ.
        begin: (N, ...) in [0, 1].
        seen_from: (N, ...), where the answer was given.
        answer: Objective, which is 0 on the boundary, and its gradient.
    """
    slope = answer.gradient if ball.support is None else answer.gradient * ball.support
    rise = -answer.objective - ((begin - seen_from) * slope).flatten(1).sum(1)
    low, high = -begin, 1 - begin
    if ball.eps.numel() > 1:
        share = ball.eps / ball.eps.max().clamp(min=1e-12)
        slope, low, high = slope * share, _relative(ball, low), _relative(ball, high)
    change = nearest_change(ball.norm, slope.flatten(1), rise, low.flatten(1), high.flatten(1)).reshape(begin.shape)
    return change if ball.eps.numel() == 1 else change * share


def change_size(ball: Ball, change: Tensor) -> Tensor:
    """Returns the size that `change_to_boundary` makes smallest: float32 (N,) in input units.

    Raises:
        InvalidEntryError: The norm is none of Linf, L2 and L1.
    """
    orders = {Norm.LINF: torch.inf, Norm.L2: 2, Norm.L1: 1}
    if ball.norm not in orders:
        raise InvalidEntryError(f"minimal-norm attacks exist for Linf, L2 and L1, got {ball.norm}")
    return torch.linalg.vector_norm(_relative(ball, change).flatten(1), orders[ball.norm], dim=1)


def _relative(ball: Ball, change: Tensor) -> Tensor:
    """Returns changes as multiples of their modality's share of the largest radius; none where a radius is 0."""
    if ball.eps.numel() == 1:
        return change
    return torch.where(ball.eps > 0, change * (ball.eps.max() / ball.eps), 0)


def nearest_change(norm: Norm, slope: Tensor, rise: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Returns the smallest change with <slope, change> = rise in each row; where none is allowed, the nearest corner.

    Exact up to rounding: the size of the smallest change is the root of a piecewise linear function.

    Args:
        norm: Linf, L2 or L1, in which the change is smallest.
        slope: (N, D), the normals; a value of zero is a place that cannot help and stays as it is.
        rise: (N,), what the changes have to gain along the normals, of either sign.
        low: (N, D), at most 0: how far each value may fall.
        high: (N, D), at least 0: how far each value may rise.

    Returns:
        (N, D).

    Raises:
        InvalidEntryError: There is no such projection for the norm.

    Source: Croce & Hein 2020, arXiv:1907.02044, section 2.2, equation 4; solved here by its dual.
    """
    direction = slope.sign() * rise.sign()[:, None]  # every useful value moves this way
    gain = slope.abs()
    scale = gain.amax(1, keepdim=True).clamp(min=torch.finfo(gain.dtype).tiny)
    gain, wanted = gain / scale, rise.abs() / scale[:, 0]  # squares of tiny gradients would be zero
    room = torch.where(direction > 0, high, -low) * (gain > 0)
    if norm is Norm.LINF:
        amount = _fill_evenly(gain, torch.ones_like(gain), room, wanted)
    elif norm is Norm.L2:
        amount = _fill_evenly(gain, gain, room, wanted)
    elif norm is Norm.L1:
        amount = _fill_steepest_first(gain, room, wanted)
    else:
        raise InvalidEntryError(f"projections onto a hyperplane exist for Linf, L2 and L1, got {norm}")
    return direction * amount


def _fill_evenly(gain: Tensor, pace: Tensor, room: Tensor, wanted: Tensor) -> Tensor:
    """Returns min(t pace, room) with the t at which the gains sum to what is wanted; all room where they never do.

    With pace 1 the largest amount is smallest (Linf), with pace = gain the sum of squares is (L2). The sum is concave
    and piecewise linear in t, so Newton's method from 0 never overshoots; it is exact once no further place fills up,
    which takes a few rounds, where sorting all places would cost far more.
    """
    full_at = torch.where(gain > 0, room / torch.where(gain > 0, pace, 1), 0)
    reachable = (gain * room).sum(1) > wanted
    full = full_at <= 0
    while True:
        rate = (gain * pace).masked_fill(full, 0).sum(1)
        level = (wanted - (gain * room).masked_fill(~full, 0).sum(1)) / rate.clamp(min=torch.finfo(rate.dtype).tiny)
        level = torch.where(reachable, level, torch.inf)
        filling = ~full & (full_at < level[:, None])
        if not filling[reachable].any():
            break
        full = full | filling
    return torch.where(full | ~reachable[:, None], room, level[:, None] * pace)


def _fill_steepest_first(gain: Tensor, room: Tensor, wanted: Tensor) -> Tensor:
    """Returns amounts that fill the places of the highest gain first: the smallest sum (L1)."""
    places = gain.shape[1]
    chosen = min(places, 256)
    while True:  # few places are enough nearly always; all of them are sorted only where they are not
        steepest, order = gain.topk(chosen, dim=1)
        offer = steepest * room.gather(1, order)
        if chosen == places or (offer.sum(1) >= wanted).all():
            break
        chosen = min(places, chosen * 16)
    before = offer.cumsum(1) - offer
    share = (wanted[:, None] - before) / offer.clamp(min=torch.finfo(offer.dtype).tiny)
    share = torch.where(offer > 0, share.clamp(0, 1), 0)
    return torch.zeros_like(room).scatter(1, order, share) * room
