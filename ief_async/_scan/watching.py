"""Looking through one page of each batch for what the models do not know, or know alone."""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from typing import Any

from ief_async._errors import ConfigurationError, OnUnknownField
from ief_async._messages import Answer
from ief_async._observer import write
from ief_async._scan.spec import ScanSpec
from ief_async._structure import (
    ModelWatch,
    Row,
    Rows,
    SchemaWatch,
    decode_rows,
    rows_in,
)

WATCHED_ROWS = 100  # of the first page of each batch: a millisecond
AT_A_TIME = 10  # as they may be large


def raw_rows(answer: Answer[Rows], *, key: str) -> Sequence[Row]:
    """Return the rows of an answer as bytes, though they may have been made at once."""
    rows = answer.value
    return rows.raw if rows.items is None else rows_in(answer.raw, key=key)


async def look_for_fields(
    watch: ModelWatch, raw: Sequence[Row], policy: OnUnknownField, *, looked_through: int = 0
) -> None:
    """Warn of fields of a model that no row of a page has, or raise.

    The first rows may have been looked through before.
    """
    for at in range(looked_through, len(raw), WATCHED_ROWS):
        if watch.unknown:
            watch.look(decode_rows(raw[at : at + WATCHED_ROWS]))
            await asyncio.sleep(0)
    if not (watch.unknown and raw):
        return
    message = f"the model has fields that neither a document nor a row of this page has: {watch}"
    if policy == "raise":
        raise ConfigurationError(message)
    write(logging.WARNING, "%s; they are their defaults", message)


class FieldWatch:
    """What one scan finds that the models do not know, and that no document or row knows.

    The first rows of one page of each batch are decoded for it, once; all rows of the very first
    page are, as long as a field of the model is missing in them.
    """

    def __init__(self, spec: ScanSpec[Any]) -> None:
        self._schema = SchemaWatch(spec.listing.model)
        self._model = ModelWatch(spec.model, spec.listing.model)
        self._key = spec.listing.key
        self._policy = spec.on_unknown_field
        self._batches: set[int] = set()  # those that were looked at

    @property
    def unknown_fields(self) -> Mapping[str, int]:
        """How often a key came that no class has, by its path."""
        return dict(self._schema.unknown_fields)

    @property
    def unknown_values(self) -> Mapping[str, int]:
        """How often a word came that is not among those known, as ``path=word``."""
        return dict(self._schema.unknown_values)

    @property
    def unknown_model_fields(self) -> tuple[str, ...]:
        """The fields of the model that no row has so far."""
        return self._model.names

    async def look(self, batch: int, answer: Answer[Rows]) -> None:
        """Look through a page, if it is the first one of its batch.

        Raises:
            ConfigurationError: the model has a field that is nowhere, and the policy is "raise".
        """
        if batch in self._batches:
            return
        first = not self._batches
        self._batches.add(batch)
        raw = raw_rows(answer, key=self._key)
        some = raw[:WATCHED_ROWS]
        for at in range(0, len(some), AT_A_TIME):
            rows = some[at : at + AT_A_TIME]
            documents = self._schema.look(rows)
            if self._model.unknown:  # for it large rows count, too
                self._model.look(documents if len(documents) == len(rows) else decode_rows(rows))
        if first:
            await look_for_fields(self._model, raw, self._policy, looked_through=len(some))
