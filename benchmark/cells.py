"""What one unit of work is: a training cell, an evaluation cell, or a skip with its reason and remedy."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingCell:
    """One checkpoint to be trained: a defense on a data set from a seed."""

    key: str
    """Identity: "<dataset>/<defense>-s<seed>-<digest>"."""
    defense: str
    """Name of the defense."""
    dataset: str
    """Name of the data set."""
    seed: int
    """Training seed."""
    after: tuple[str, ...] = ()
    """Keys of the trainings that must be there first: the base it wraps."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluationCell:
    """One record to be made: a defense on a data set under a protocol."""

    key: str
    """Identity: "<dataset>/<defense>/<protocol>-s<seed>-<digest>"."""
    defense: str
    """Name of the defense."""
    dataset: str
    """Name of the data set."""
    protocol: str
    """Name of the protocol."""
    training: str | None
    """Key of the training its weights come from: its own, or its base's; None for released weights only."""
    training_seed: int
    """Training seed."""
    split: str = "test"
    """Name of the split."""
    n_samples: int
    """Number of samples, the first ones of the split; never more than it has."""
    attack_seed: int = 0
    """Seed of the attacks' and the defense's draws."""
    revisions: Mapping[str, int] = field(default_factory=dict)
    """Revisions of dataset, task, defense and its bases, protocol, twin and engine."""
    needs: tuple[str, ...] = ()
    """Keys of all trainings it needs, its bases and its twin included."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Skip:
    """Cells that the plan leaves out, for one reason."""

    dataset: str | None = None
    """Name of the data set, or None where the reason holds for all."""
    defense: str | None = None
    """Name of the defense, or None where the reason holds for all."""
    protocol: str | None = None
    """Name of the protocol, or None where the reason holds for all."""
    reason: str
    """Why the cells cannot run."""
    remedy: str
    """What to do about it."""

    @property
    def what(self) -> str:
        """The skipped cells in words, e.g. "breastmnist / JPEG"."""
        names = [name for name in (self.dataset, self.defense, self.protocol) if name is not None]
        return " / ".join(names) or "suite"


def key_digest(identity: Mapping[str, object]) -> str:
    """Returns the 10 hexadecimal digits that end a key: sha256 of the identity as canonical JSON."""
    text = json.dumps(identity, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:10]
