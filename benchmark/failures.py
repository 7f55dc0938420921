"""An error as records and people get it."""

from __future__ import annotations

import traceback

from results.record import Failure


def in_one_line(failure: Failure) -> str:
    """Returns kind and message of a failure, without what follows a line break."""
    return f"{failure.kind}: {failure.message}".splitlines()[0]


def failure_of(error: Exception) -> Failure:
    """Returns an error with its traceback, in text that a record can hold."""
    text = "".join(traceback.format_exception(error))
    return Failure(kind=type(error).__name__, message=_storable(str(error)), traceback=_storable(text))


def _storable(text: str) -> str:
    """Returns a text without halves of characters, as in undecodable file names: UTF-8, and so a record, has none."""
    return text.encode("utf-8", "backslashreplace").decode()
