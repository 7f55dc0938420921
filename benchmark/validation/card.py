"""Clauses on what an entry says of itself, which no model or data are needed for."""

from __future__ import annotations

import ast
import json
import re
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from benchmark.obstacles import base_chain
from benchmark.validation.check import Check, Unmet, check
from registry import DEFENSES, TASKS, DatasetSpec, DefenseEntry, Recipe, Registry, resolve

_NAMES = {
    "defense": (r"[A-Z][A-Za-z0-9]*", "letters and digits, the first one a capital, e.g. Madry2018PGDAT"),
    "dataset": (r"[a-z][a-z0-9_]*", "lower-case letters, digits and underscores, e.g. breastmnist"),
    "protocol": (r"[a-z][a-z0-9:._+-]*", "lower case, e.g. standard or reference:autoattack"),
}


def card_checks(registry: Registry, entry: Any) -> list[Check]:
    """Returns the verdicts that hold for every kind of entry."""
    return [
        check("the name follows the rule of its kind", _name, registry, entry),
        check("the file carries the entry's name", _file_name, registry, entry),
        check("the file imports nothing heavy at its top level", _imports, registry, entry),
        check("its card can be written as JSON", _json, entry),
    ]


def defense_card_checks(entry: DefenseEntry) -> list[Check]:
    """Returns the verdicts on a defense's card."""
    return [
        check("its tasks exist", lambda: [TASKS[task] for task in entry.tasks] and None),
        check("its base exists", lambda: " in ".join(link.name for link in base_chain(entry, DEFENSES))),
        check("its paper has a well-formed address", _paper, entry.paper),
        check("its claims are fractions", _claims, entry),
        check("its factory can be imported", lambda: resolve(entry.build) and None),
        check("its recipe can be imported", _recipe, entry.recipe),
    ]


def dataset_card_checks(spec: DatasetSpec) -> list[Check]:
    """Returns the verdicts on a data set's card."""
    return [
        check("its task exists", lambda: TASKS[spec.task].title),
        check("licence and citation are stated", _licence, spec),
        check("its file has a checksum", _checksum, spec),
        check("harmful confusions name two different classes", _confusions, spec),
        check("its reader can be imported", lambda: resolve(spec.reader) and None),
    ]


def _name(registry: Registry, entry: Any) -> None:
    pattern, rule = _NAMES[registry.kind]
    if not re.fullmatch(pattern, entry.name):
        raise Unmet(f"write the name of a {registry.kind} in {rule}; got {entry.name!r}")


def _origin(registry: Registry, entry: Any) -> Path:
    return Path(registry.origin(entry.name).rpartition(":")[0])


def _file_name(registry: Registry, entry: Any) -> str | None:
    path = _origin(registry, entry)
    mates = [other for other in registry if _origin(registry, other) == path]
    if len(mates) > 1:
        return f"one of {len(mates)} entries in {path.name}"
    wanted = re.sub(r"[^a-z0-9_]", "_", entry.name.lower()) + ".py"
    if path.name.lower() != wanted:
        raise Unmet(f"rename the file to {wanted}; it is {path.name}")
    return None


def _imports(registry: Registry, entry: Any) -> None:
    """Looks at the top level only: functions of an entry may import what they like."""
    path = _origin(registry, entry)
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        strangers = [name for name in names if name.split(".")[0] not in {"registry", *sys.stdlib_module_names}]
        if strangers:
            raise Unmet(
                f"line {node.lineno}: import {strangers[0]} inside a function, or name the implementation as text"
            )


def _json(entry: Any) -> str:
    try:
        text = json.dumps(entry.card(), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise Unmet(f"use text, numbers, lists and mappings in the card: {error}") from error
    return f"{len(text)} characters"


def _paper(paper: Any) -> str:
    if paper is None:
        return "no paper stated"
    if not urlparse(paper.url).netloc or " " in paper.url:
        raise Unmet(f"give an https address of arXiv, doi or the proceedings; got {paper.url!r}")
    return paper.url


def _claims(entry: DefenseEntry) -> str:
    for claim in entry.claims:
        if not 0 <= claim.value <= 1:
            raise Unmet(f"write {claim.value:g} % as {claim.value / 100:g}")
    return f"{len(entry.claims)} claims"


def _recipe(recipe: Recipe | None) -> str | None:
    return None if recipe is not None and resolve(recipe.train) else "no recipe of its own"


def _licence(spec: DatasetSpec) -> str:
    if not spec.license.strip() or not spec.citation.strip():
        raise Unmet("state the licence of the data as published, and whom to cite")
    return spec.license


def _checksum(spec: DatasetSpec) -> str:
    if spec.source is None:
        return "generated, no file"
    if not (spec.source.sha256 or spec.source.md5):
        raise Unmet(f"give sha256 (or the published md5) of {spec.source.filename}")
    return "sha256" if spec.source.sha256 else "md5"


def _confusions(spec: DatasetSpec) -> str:
    for confusion in spec.harmful_confusions:
        known = range(spec.n_classes)
        if confusion.true not in known or confusion.predicted not in known or confusion.true == confusion.predicted:
            raise Unmet(f"{confusion.title!r} must name two different classes of 0 to {spec.n_classes - 1}")
    return f"{len(spec.harmful_confusions)} stated"
