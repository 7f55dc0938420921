"""The Parquet form of a record's per-sample facts: the same table gives the same bytes."""

from __future__ import annotations

import hashlib
import io

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from registry.errors import DamagedRecordError, ResultsError
from results.migrate import WHAT_TO_DO

SAMPLE_ID = "sample_id"
"""Column every table starts with: the sample's row in its split."""
GROUP = "group"
"""Column of what no two splits share: samples with the same number are of one patient, volume or lesion.

Tables of data sets where that is not known lack it.
"""
WEIGHT = "weight"
"""Column of how much a sample's score counts in means, in tables of several labels; elsewhere all count alike."""
_NUMBERS = ("clean_score", "score_", "step_", "certified_", WEIGHT)
"""Beginnings of the columns that hold numbers, whatever the task."""


def score_column(budget_index: int) -> str:
    """Returns the column of the worst scores at the record's budget of this index."""
    return f"score_{budget_index}"


def to_parquet(samples: pd.DataFrame) -> bytes:
    """Returns the table as Parquet bytes: zstd, float32, int32 where it fits, plain text, no index, no metadata.

    Args:
        samples: One row per sample; a column `sample_id` without duplicates.

    Raises:
        ResultsError: `sample_id` is missing or repeated, or a column has no Parquet form.
    """
    if SAMPLE_ID not in samples.columns:
        raise ResultsError(f"a sample table needs a column {SAMPLE_ID!r}, got {list(samples.columns)}")
    if samples[SAMPLE_ID].duplicated().any():
        twice = samples[SAMPLE_ID][samples[SAMPLE_ID].duplicated()].iloc[0]
        raise ResultsError(f"a sample table has one row per sample, got {SAMPLE_ID} {twice} twice")
    try:
        table = pa.Table.from_pandas(samples, preserve_index=False)
        schema = pa.schema([pa.field(field.name, _stored_type(table, field)) for field in table.schema])
        table = table.cast(schema).replace_schema_metadata(None)
    except pa.ArrowException as error:
        raise ResultsError(f"a column of the sample table cannot be stored as Parquet: {error}") from error
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd", compression_level=19, store_schema=False)
    return buffer.getvalue()


def from_parquet(content: bytes, origin: str) -> pd.DataFrame:
    """Returns the table that Parquet bytes hold.

    Args:
        content: Bytes of the file.
        origin: Where it comes from, for error texts.

    Raises:
        DamagedRecordError: It is no Parquet, names its samples not at all or twice, or holds a score that is no number.
    """
    try:
        samples = pq.read_table(io.BytesIO(content)).to_pandas(ignore_metadata=True)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DamagedRecordError(f"{origin}: no sample table in Parquet ({error}); {WHAT_TO_DO}") from error
    problem = _problem(samples)
    if problem:
        raise DamagedRecordError(f"{origin}: {problem}; {WHAT_TO_DO}")
    return samples


def sha256_of(content: bytes) -> str:
    """Returns the checksum of a file's content, in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def _problem(samples: pd.DataFrame) -> str:
    """Returns why a table cannot be used, or an empty text."""
    if SAMPLE_ID not in samples.columns:
        return f"expected a column {SAMPLE_ID!r}, got {list(samples.columns)}"
    ids = samples[SAMPLE_ID]
    if not pd.api.types.is_integer_dtype(ids):
        return f"expected whole numbers as {SAMPLE_ID}, got {ids.dtype}"
    if ids.duplicated().any():
        return f"expected one row per sample, got {SAMPLE_ID} {ids[ids.duplicated()].iloc[0]} twice"
    texts = [name for name in samples if name.startswith(_NUMBERS) and not pd.api.types.is_numeric_dtype(samples[name])]
    return f"expected numbers in the columns {', '.join(texts)}, got other values" if texts else ""


def _stored_type(table: pa.Table, field: pa.Field) -> pa.DataType:
    """Returns the type a column is kept in; categories and long texts become plain text."""
    kind = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
    if pa.types.is_floating(kind):
        return pa.float32()
    if pa.types.is_large_string(kind):
        return pa.string()
    if pa.types.is_integer(kind):
        values = table[field.name].to_pandas()
        fits = values.empty or (values.min() >= -(2**31) and values.max() < 2**31)
        return pa.int32() if fits else pa.int64()
    return kind
