"""A named selection of data sets, defenses and protocols: a value, not a configuration file."""

from __future__ import annotations

from dataclasses import dataclass

from registry.errors import InvalidEntryError


@dataclass(frozen=True, kw_only=True, slots=True)
class Suite:
    """What one `run` covers."""

    name: str
    """Unique name."""
    title: str
    """One sentence for people."""
    datasets: tuple[str, ...]
    """Shell patterns of data set names."""
    defenses: tuple[str, ...] = ("*",)
    """Shell patterns of defense names."""
    without: tuple[str, ...] = ()
    """Shell patterns of defense names that are left out unless the user asks for them."""
    protocols: tuple[str, ...] = ("clean", "standard")
    """Shell patterns of protocol names."""
    n_samples: int | None = None
    """Number of test samples of each data set, the first ones; None for all."""
    seeds: tuple[int, ...] = (0,)
    """Training seeds."""

    def __post_init__(self) -> None:
        if self.n_samples is not None and self.n_samples < 1:
            raise InvalidEntryError(f"suite {self.name}: n must be 1 or more, got {self.n_samples}")
        if not self.seeds or any(seed < 0 for seed in self.seeds):
            raise InvalidEntryError(f"suite {self.name}: seeds are whole numbers of 0 or more, got {self.seeds}")
