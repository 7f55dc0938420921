"""Revisions of what no entry describes; they are part of every key, so raising one drops stale numbers."""

ENGINE_REVISION = 2
"""Raised when the attack engine, its shell or an attack's implementation changes a result."""
