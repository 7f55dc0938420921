"""What a probe found out, with its evidence."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What one probe measured."""

    name: str
    red: bool
    evidence: str
    values: dict[str, float] = field(default_factory=dict)
    noted: bool = False
    """A note that holds: worth reading, without effect on the status."""
