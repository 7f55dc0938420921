"""What one clause of a contract comes to."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from registry.errors import BenchmarkError


class Unmet(Exception):
    """A clause is not met; the text says what to mend."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Check:
    """One clause with its verdict."""

    clause: str
    """What is required."""
    ok: bool
    """Whether it holds."""
    message: str = ""
    """What to mend; of a clause that holds, what was seen."""


def check(clause: str, test: Callable[..., str | None], *arguments: object) -> Check:
    """Returns the verdict on a clause.

    Args:
        clause: What is required.
        test: Returns a note or None where the clause holds; raises `Unmet`, or anything else, where it does not.
        arguments: What the test is called with.
    """
    try:
        return Check(clause=clause, ok=True, message=test(*arguments) or "")
    except (Unmet, BenchmarkError) as error:
        return Check(clause=clause, ok=False, message=" ".join(str(error).split()))
    except Exception as error:  # an entry's code may raise anything
        last = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{Path(last.filename).name}:{last.lineno}"
        text = " ".join(str(error).split())
        return Check(clause=clause, ok=False, message=f"raises {type(error).__name__}: {text} ({where})")
