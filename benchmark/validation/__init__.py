"""The contract of an entry, clause by clause: each one passes, or says what to mend."""

from benchmark.validation.check import Check, Unmet, check
from benchmark.validation.find import entries_named
from benchmark.validation.validate import validate_entry

__all__ = ["Check", "Unmet", "check", "entries_named", "validate_entry"]
