"""The command line, the plan and the runner; from Python: `from benchmark import evaluate`."""

from __future__ import annotations

from typing import Any

__all__ = ["evaluate"]


def __getattr__(name: str) -> Any:
    """Imports `evaluate` at first use, so that `--help` and `list` never load torch."""
    if name == "evaluate":
        from benchmark.api import evaluate

        return evaluate
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
