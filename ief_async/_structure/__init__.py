"""From the bytes of an answer to attrs objects.

Bytes and a model come in; items, or a `PayloadError` that names the place, go out. Pure: no clock,
no event loop, no socket, no logging.
"""

from ief_async._structure.envelope import (
    SNIPPET_CHARACTERS,
    Row,
    Rows,
    RowsOfBody,
    loads,
    read_within,
    rows_in,
    split,
)
from ief_async._structure.flatten import KeyValues, LineReader, flat_mirror
from ief_async._structure.narrow import narrowed
from ief_async._structure.schema_watch import ModelWatch, SchemaWatch, decode_rows
from ief_async._structure.structure import Structure, structure_of

__all__ = [
    "SNIPPET_CHARACTERS",
    "KeyValues",
    "LineReader",
    "ModelWatch",
    "Row",
    "Rows",
    "RowsOfBody",
    "SchemaWatch",
    "Structure",
    "decode_rows",
    "flat_mirror",
    "loads",
    "narrowed",
    "read_within",
    "rows_in",
    "split",
    "structure_of",
]
