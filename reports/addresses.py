"""Where every page lies, relative to the root of the site."""

from __future__ import annotations

import re

from registry import ThreatModel
from reports.html import slug
from reports.leaderboard import Leaderboard

INDEX = "index.html"
METHODOLOGY = "methodology.html"


def defense_page(name: str) -> str:
    """Returns the page of a defense."""
    return f"defenses/{slug(name)}.html"


def board_page(board: Leaderboard, suffix: str = "html") -> str:
    """Returns the page of a board, e.g. "boards/breastmnist-linf-4-255.html"."""
    parts = [slug(board.dataset.name), *unusual_rules(board.threat_model), board.budget.label]
    text = "-".join(re.sub(r"[^a-z0-9.]+", "-", part.lower()).strip("-") for part in parts[1:])
    return f"boards/{parts[0]}-{text}.{suffix}"


def corruption_page(dataset: str, suffix: str = "html") -> str:
    """Returns the page of a data set's corruption board."""
    return f"boards/{slug(dataset)}-corruptions.{suffix}"


def unusual_rules(threat_model: ThreatModel) -> list[str]:
    """Returns what of a threat model differs from the default, apart from its norm and the attacker's knowledge."""
    default = ThreatModel()
    fields = ("kind", "support", "scope", "goal")
    return [str(getattr(threat_model, f)) for f in fields if getattr(threat_model, f) != getattr(default, f)]
