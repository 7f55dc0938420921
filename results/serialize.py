"""The JSON form of a record: stable bytes on the way out, strict on the way in."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from numbers import Integral, Real
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError

from registry.errors import DamagedRecordError, ResultsError
from results.migrate import WHAT_TO_DO, upgrade
from results.record import EvaluationRecord

SIGNIFICANT_DIGITS = 10
"""Digits of a float that records keep: less than what summation order or a library's version may change."""

# pydantic hands a configuration down to standard dataclasses only from a type around them.
_READER = TypeAdapter(tuple[EvaluationRecord], config=ConfigDict(extra="forbid", strict=True, allow_inf_nan=False))


def to_json(record: EvaluationRecord) -> str:
    """Returns the record as JSON: sorted keys, floats of 10 significant digits, a line feed at the end.

    Raises:
        ResultsError: A value has no JSON form, e.g. a number that is not finite; the text names its field.
    """
    plain = _plain(record, f"record {record.key}")
    return json.dumps(plain, indent=0, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"


def from_json(text: str, origin: str) -> EvaluationRecord:
    """Returns the record that a JSON text holds, upgraded to the current layout.

    Args:
        text: JSON of one record.
        origin: Where it comes from, for error texts.

    Raises:
        NewerSchemaError: It was written by a newer version of the benchmark.
        DamagedRecordError: It is torn, or its fields are not those of a record.
    """
    try:
        document = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise DamagedRecordError(f"{origin}: torn or not JSON ({error}); {WHAT_TO_DO}") from error
    if not isinstance(document, dict):
        raise DamagedRecordError(f"{origin}: expected one JSON object, got {type(document).__name__}; {WHAT_TO_DO}")
    document = upgrade(document, origin)
    try:
        (record,) = _READER.validate_json(json.dumps([document]))
    except ValidationError as error:
        raise DamagedRecordError(f"{origin}: {_explain(error)}; {WHAT_TO_DO}") from error
    return record


def rounded(value: float) -> float:
    """Returns a float as records keep it, with 10 significant digits."""
    return float(f"{value:.{SIGNIFICANT_DIGITS}g}")


def _plain(value: Any, where: str) -> Any:
    """Returns a value made of what JSON knows only; `where` names it in errors."""
    if is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name), f"{where}.{field.name}") for field in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _plain(item, f"{where}.{key}") for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item, f"{where}[{index}]") for index, item in enumerate(value)]
    if isinstance(value, Enum):
        return _plain(value.value, where)
    if value is None or isinstance(value, (str, bool)):
        return value
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real) and math.isfinite(value):
        return rounded(float(value))
    raise ResultsError(f"{where} cannot be kept: expected text, finite numbers, lists or mappings, got {value!r}")


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not a JSON number")


def _explain(error: ValidationError) -> str:
    """Returns the first three problems in words, each with the path of its field."""
    problems = []
    for problem in error.errors()[:3]:
        path = ".".join(str(part) for part in problem["loc"][1:])
        if problem["type"] == "unexpected_keyword_argument":
            problems.append(f"unknown field {path}")
        elif problem["type"] == "missing":
            problems.append(f"field {path} is missing")
        else:
            problems.append(f"field {path}: {problem['msg']}, got {str(problem['input'])[:80]!r}")
    return "; ".join(problems)
