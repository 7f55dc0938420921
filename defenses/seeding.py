"""Seeds what can only draw from torch's global generators, and leaves no trace behind."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def seeded(seed: int, device: str = "cpu") -> Iterator[torch.Generator]:
    """Seeds torch's global generators within the block and gives a CPU generator; restores the global ones after it.

    Initialisation and dropout can draw from the global generators only; everything else draws from the given one.

    Args:
        seed: Whole number of 0 or more.
        device: Device whose global generator is seeded beside the CPU's.
    """
    chosen = torch.device(device)
    with torch.random.fork_rng(devices=[chosen] if chosen.type == "cuda" else []):
        torch.random.default_generator.manual_seed(seed)
        if chosen.type == "cuda":
            torch.cuda.manual_seed(seed)
        yield torch.Generator().manual_seed(seed)
