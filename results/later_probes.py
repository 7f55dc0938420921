"""Probes that came after some records were made: which a record lacks, and how it takes them in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from results.record import EvaluationRecord, Flag

JUMP = "jumping-margin"
"""Name of the probe of margins at the boundary; at first it knew neither ramps nor the share of samples, nor any other
decision than the one label of an image."""
INSIDE = "zero-gradient and dishonest-gradient inside of the balls"
"""What the probes of gradients did not look at first: random points of the balls beside the samples."""


SLOPE = "jumping-margin along the gradient at the boundary"
"""What that probe did not ask at first of models with a gradient of their own."""


TORN = "discontinuous"
"""Name of the probe of outputs a hair off the grid of stored images."""


def lacking_probes(record: EvaluationRecord) -> tuple[str, ...]:
    """Returns the probes of today, for people, that were not yet there when a record was examined."""
    flags, lacking = {flag.name: flag for flag in record.flags}, []
    gradient = flags.get("zero-gradient")
    if gradient and "inside share" not in gradient.values and "n" in gradient.values:
        lacking.append(INSIDE)
    decided = record.dataset["task"] in ("classification", "segmentation")
    if flags and decided and (JUMP not in flags or "share" not in flags[JUMP].values):
        lacking.append(JUMP)
    elif JUMP in flags and decided and _without_slope(record, flags[JUMP]):
        lacking.append(SLOPE)
    if flags and TORN not in flags:
        lacking.append(TORN)
    return tuple(lacking)


def _without_slope(record: EvaluationRecord, jump: Flag) -> bool:
    """Returns whether a gradient of the model's own was not followed at the boundary, though there is one of each."""
    own = bool(record.defense.get("differentiable", True)) and record.escalation is None
    return own and jump.values.get("n", 0) > 0 and "boundary eps/4" not in jump.values


def with_later(record: EvaluationRecord, flags: Sequence[Flag], when: str) -> EvaluationRecord:
    """Returns a record with flags that were asked for later, in the place of those of the same name.

    Args:
        record: The record.
        flags: The flags.
        when: When they were asked for, and by which code; joins their evidence.
    """
    later = {
        flag.name: replace(flag, evidence=f"{flag.evidence} (asked later of the same weights, {when})")
        for flag in flags
    }
    kept = tuple(later.pop(flag.name, flag) for flag in record.flags)
    return replace(record, flags=(*kept, *later.values()))
