"""From the rows of a page to its items, a chunk at a time."""

from collections import Counter
from collections.abc import Sequence
from itertools import takewhile
from typing import Any, Protocol, Self, TypeVar

from ief_async._checkpoint import ScanCheckpoint
from ief_async._errors import OnBadItem, PayloadError
from ief_async._messages import Answer
from ief_async._scan.reports import Page
from ief_async._structure import Row, Rows, RowsOfBody, loads
from ief_async._texts import printable

T = TypeVar("T")

CHUNK_ITEMS = 250  # handed out at a time, where they were made with their page
CHUNK_BYTES = 32 * 1024  # structured at a time: half a millisecond, whatever the page size


class Reader(Protocol[T]):
    """What turns rows into items: a `Structure`, or whatever a sink puts in its stead."""

    model: type

    def read(self, body: bytes, *, key: str, tolerate: bool = False) -> Rows:
        """Take an answer apart."""

    def first_items(
        self, rows: RowsOfBody, positions: Sequence[int], *, most_bytes: int
    ) -> list[T] | None:
        """Return the first of the rows at these positions; None if `items` has to be asked."""

    def items(
        self,
        rows: Sequence[Row],
        positions: Sequence[int],
        *,
        key: str,
        model_errors: Counter[str] | None = None,
    ) -> list[T]:
        """Return the first of the rows at these positions, as many as can be read."""

    def from_item(self, item: Any) -> T:
        """Return what an object of the model is in a stream."""

    def for_target(self, target: object) -> Self:
        """Return the reader for the rows of a target."""


def structure_some(
    reader: Reader[T],
    answer: Answer[Rows],
    positions: Sequence[int],
    *,
    key: str,
    model_errors: Counter[str] | None = None,
) -> list[T]:
    """Structure the first of these rows: as many as do not make the event loop wait.

    `model_errors` counts what the model itself raised, as `Structure.items` has it.
    """
    rows, made, bad = answer.value.raw, answer.value.items, answer.value.bad
    if made is not None:
        return [made[at] for at in positions[:CHUNK_ITEMS]]
    if isinstance(rows, RowsOfBody):
        items = reader.first_items(rows, positions, most_bytes=CHUNK_BYTES)
        if items is not None:
            return items
    chunk = positions[: max(1, CHUNK_BYTES * len(rows) // (len(answer.raw) or 1))]
    if bad:
        chunk = [*takewhile(lambda at: at not in bad, chunk)]
    problem = bad.get(positions[0])
    if problem is None:
        try:
            return reader.items(rows, chunk, key=key, model_errors=model_errors)
        except PayloadError as error:
            problem = error.with_traceback(None)
    item_id = None if positions[0] in bad else printable(answer.value.ids[positions[0]])
    named = ", ".join(
        f"{name} {value:.80}"
        for name, value in (("item", item_id), ("request id", answer.request_id))
        if value
    )
    said = answer.scrub(f"{problem.message} ({named})" if named else problem.message)
    failure = PayloadError(said, path=answer.scrub(problem.path))
    failure.item_id = item_id
    failure.request_id = answer.request_id
    failure.attempts, failure.elapsed = answer.attempts, answer.elapsed
    del problem
    raise failure


def stand_in(
    on_bad_item: OnBadItem, reader: Reader[T], answer: Answer[Rows], at: int, problem: PayloadError
) -> list[T]:
    """Return what stands in the place of a row that can't be read: one item, or none."""
    if not callable(on_bad_item):
        return []
    item = on_bad_item(loads(answer.value.raw[at]), problem)
    return [] if item is None else [reader.from_item(item)]


def page_of(
    answer: Answer[Rows],
    items: list[T],
    *,
    offset: int,
    limit: int | None,
    checkpoint: ScanCheckpoint | None = None,
    bad_items: int = 0,
) -> Page[T]:
    """Make the page that an answer and its structured items are."""
    return Page(
        items=tuple(items),
        count=answer.value.count,
        offset=offset,
        limit=limit,
        request_id=answer.request_id,
        elapsed=answer.elapsed,
        attempts=answer.attempts,
        raw=answer.raw,
        checkpoint=checkpoint,
        bad_items=bad_items,
    )
