"""The Parquet form of a record's per-sample facts: the same table gives the same bytes."""

from __future__ import annotations

import hashlib
import io

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from registry.errors import ResultsError

SAMPLE_ID = "sample_id"
"""Column every table starts with: the sample's row in its split."""
GROUP = "group"
"""Column of what no two splits share: samples with the same number are of one patient, volume or lesion.

Tables of data sets where that is not known lack it.
"""


WEIGHT = "weight"
"""Column of how much a sample's score counts in means, in tables of several labels; elsewhere all count alike."""


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


def from_parquet(content: bytes) -> pd.DataFrame:
    """Returns the table that Parquet bytes hold."""
    return pq.read_table(io.BytesIO(content)).to_pandas()


def sha256_of(content: bytes) -> str:
    """Returns the checksum of a file's content, in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


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
