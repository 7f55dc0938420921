"""The one Jinja environment of all pages: everything is escaped, only https addresses become links."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from urllib.parse import urlsplit

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from registry import DRAW_METRICS, RESTORATION, TASKS
from registry.metric import MetricSpec
from results.record import Estimate

TEMPLATES = Path(__file__).parent / "templates"
ASSETS = ("style.css", "table.js")
"""Files that every page uses, copied as they are."""


def environment() -> Environment:
    """Returns the environment: autoescape on whatever a template's name ends with, undefined names are errors."""
    env = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    env.filters |= {
        "percent": percent,
        "interval": interval,
        "https": https,
        "slug": slug,
        "count": count,
        "short": short_number,
        "seconds": seconds,
        "metric": metric_value,
        "options": options,
        "breakable": breakable,
    }
    return env


def percent(value: float) -> str:
    """Returns a fraction in percent with one decimal, without the sign: "63.5"."""
    return f"{100 * value:.1f}"


def interval(estimate: Estimate) -> str:
    """Returns the 95 % interval in percent: "55.7-70.6" with an en dash."""
    return f"{percent(estimate.low)}–{percent(estimate.high)}"


def https(url: str | None) -> str | None:
    """Returns an address if it is an https one with a host, else None: everything else stays text."""
    if not url or re.search(r"[\s\x00-\x1f\"'<>\\]", url):
        return None
    try:
        parts = urlsplit(url)
        return url if parts.scheme == "https" and parts.hostname else None
    except ValueError:
        return None


def slug(text: str) -> str:
    """Returns a file name for a submitted name; where characters had to go, a checksum keeps names apart."""
    plain = re.sub(r"[^A-Za-z0-9._+-]+", "-", text).strip("-.")[:60]
    if plain == text and plain:
        return plain
    return f"{plain or 'entry'}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def breakable(name: str) -> Markup:
    """Returns a name that may be broken where a word begins in it, as in "Tsai2025|Denoising|AE|Features"."""
    words = re.split(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", name)
    return Markup("<wbr>").join(words)


def count(value: float) -> str:
    """Returns a count with thin spaces between thousands."""
    return f"{round(value):,}".replace(",", "\u202f")


def short_number(value: float) -> str:
    """Returns a large number in three digits: "175 k", "11.2 M", "1.82 G"."""
    for size, suffix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.3g}\u202f{suffix}"
    return f"{value:.3g}"


def seconds(value: float) -> str:
    """Returns a duration as people say it: "41 s", "12 min", "3.4 h"."""
    if value < 1:
        return f"{1000 * value:.0f}\u202fms"
    if value < 90:
        return f"{value:.3g}\u202fs"
    return f"{value / 60:.3g}\u202fmin" if value < 5400 else f"{value / 3600:.3g}\u202fh"


def metric_spec(task: str, name: str) -> MetricSpec:
    """Returns how a corpus metric is called and printed; unknown ones keep their name and are plain numbers."""
    known = (*(TASKS[task].metrics if task in TASKS else ()), *DRAW_METRICS, *RESTORATION)
    return next((spec for spec in known if spec.name == name), MetricSpec(name=name, title=name, unit="", digits=3))


def metric_value(value: float, spec: MetricSpec) -> str:
    """Returns a corpus metric in the unit of its specification."""
    if spec.unit == "fraction":
        return f"{100 * value:.{spec.digits}f}"
    return f"{value:.{spec.digits}f}" + (f"\u202f{spec.unit}" if spec.unit else "")


def options(values: object) -> str:
    """Returns options as compact JSON text, keys sorted."""
    return json.dumps(values, sort_keys=True, ensure_ascii=False, default=str)
