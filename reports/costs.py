"""What a defense costs, pooled over training seeds: times are never averaged over different devices."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean

from reports.cards import Cell
from reports.weights import training_devices


@dataclass(frozen=True, kw_only=True)
class Latency:
    """Median time of one forward pass on one device, as the mean over the training seeds that were measured there."""

    device: str
    batch_1_ms: float
    batch_64_ms: float
    seeds: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class PooledCost:
    """What a defense costs its user and its evaluation cost us, as the mean over training seeds."""

    parameters: int
    flops: int | None
    latencies: tuple[Latency, ...]
    """One for each device, by its name."""
    training_seconds: float | None
    """None also where the seeds were trained on different devices."""
    training_devices: tuple[str, ...]
    """As the cards of the weights name them."""
    attack_forwards: float
    """Sample-forwards of all attacks and budgets, of one seed."""
    attack_backwards: float
    attack_seconds: float | None
    """None where the seeds were evaluated on different devices."""
    device: str
    """Where the evaluation ran."""


def pool_cost(cells: Sequence[Cell]) -> PooledCost | None:
    """Returns the mean cost over seeds, or None where no record holds one.

    Args:
        cells: One cell for each seed.
    """
    cells = [cell for cell in cells if cell.record.cost]
    if not cells:
        return None
    costs = [cell.record.cost for cell in cells]
    latencies, trained_on = _latencies(cells), training_devices(cells)
    return PooledCost(
        parameters=costs[0].parameters,
        flops=costs[0].flops,
        latencies=latencies,
        training_seconds=_training_seconds(cells) if len(trained_on) <= 1 else None,
        training_devices=trained_on,
        attack_forwards=fmean(cost.forwards for cost in costs),
        attack_backwards=fmean(cost.backwards for cost in costs),
        attack_seconds=fmean(cost.seconds for cost in costs) if len(latencies) == 1 else None,
        device=", ".join(found.device for found in latencies),
    )


def _latencies(cells: Iterable[Cell]) -> tuple[Latency, ...]:
    by_device: dict[str, list[Cell]] = {}
    for cell in cells:
        by_device.setdefault(_device(cell), []).append(cell)
    return tuple(
        Latency(
            device=device,
            batch_1_ms=fmean(cell.record.cost.latency_ms_1 for cell in found),
            batch_64_ms=fmean(cell.record.cost.latency_ms_64 for cell in found),
            seeds=tuple(cell.seed for cell in found),
        )
        for device, found in sorted(by_device.items())
    )


def _device(cell: Cell) -> str:
    """Returns the device of an evaluation without the batch sizes that its record adds after a semicolon."""
    return cell.record.provenance.device.split(";")[0].strip()


def _training_seconds(cells: Iterable[Cell]) -> float | None:
    """Returns the mean training time over the seeds that know theirs, in s, or None."""
    known = [cell.record.cost.training_seconds for cell in cells if cell.record.cost]
    known = [seconds for seconds in known if seconds is not None]
    return fmean(known) if known else None
