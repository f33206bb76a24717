"""One page by one request: `list_pods`, and each page of a scan."""

import asyncio
from functools import partial
from typing import Any, TypeVar
from urllib.parse import quote

from ief_async._arguments import check_choice, check_kind, check_number, refuse
from ief_async._endpoints import MOST_ROWS, PODS
from ief_async._errors import ConfigurationError, OnBadItem, OnUnknownField, PayloadError
from ief_async._http import Transport
from ief_async._messages import Answer
from ief_async._paging import Batcher, PageRequest, Query, check_id
from ief_async._scan import (
    Page,
    Reader,
    ScanSpec,
    check_bad_item,
    check_iterable,
    look_for_fields,
    page_of,
    raw_rows,
    stand_in,
    structure_some,
)
from ief_async._structure import ModelWatch, Rows, Structure, read_within, structure_of

T = TypeVar("T")

MOST_OFFSET = 10**10 - 1


async def fetch_page(
    request: PageRequest,
    reader: Reader[Any],
    deadline: float,
    scan: int,
    *,
    transport: Transport,
    spec: ScanSpec[Any],
) -> Answer[Rows]:
    """Request one page of a scan, and split the response into rows."""
    listing = spec.listing
    parts = (request.query.text, f"limit={request.limit}", f"offset={request.offset}")
    target = f"{listing.path}?{'&'.join(part for part in parts if part)}"
    read = partial(
        listing.read or partial(reader.read, key=listing.key), tolerate=spec.on_bad_item != "raise"
    )
    # a request that counts asks for one row; more rows than that do no harm
    limit = request.limit if request.limit > 1 else None
    within = partial(read_within, read, key=listing.key, limit=limit)
    return await transport.get(target, within, deadline=deadline, scan=scan)


async def fetch_pods(
    transport: Transport,
    model: type[T],
    *,
    ids: dict[str, object],
    plugin_instance_name: str | None,
    limit: int | None,
    offset: int,
    on_bad_item: OnBadItem,
    on_unknown_field: OnUnknownField,
) -> Page[T]:
    """Implement `IefSession.list_pods`; `ids` are its arguments that select the pods."""
    structure = structure_of(model)
    check_bad_item("on_bad_item", on_bad_item)
    check_choice("on_unknown_field", on_unknown_field, OnUnknownField)
    target = f"{PODS.path}?{_query_of(ids).text}"
    check_number("offset", offset, most=MOST_OFFSET, whole=True)
    if limit is not None:
        check_number("limit", limit, least=1, most=MOST_ROWS, whole=True)
        target += f"&limit={limit}"
    target += f"&offset={offset}"
    if plugin_instance_name is not None:
        check_kind("plugin_instance_name", plugin_instance_name, str)
        target += f"&plugin_instance_name={quote(plugin_instance_name, safe='')}"
    read = partial(structure.read, key=PODS.key, tolerate=on_bad_item != "raise")
    answer = await transport.get(target, partial(read_within, read, key=PODS.key, limit=limit))
    watch = ModelWatch(model, PODS.model)
    if watch.unknown:
        await look_for_fields(watch, raw_rows(answer, key=PODS.key), on_unknown_field)
    items, bad = await _structured(structure, answer, on_bad_item)
    return page_of(answer, items, offset=offset, limit=limit, bad_items=bad)


def _query_of(ids: dict[str, object]) -> Query:
    """Return the query of the one selector that was given."""
    chosen = {name: value for name, value in ids.items() if value is not None}
    if len(chosen) != 1:
        message = f"give one of {', '.join(ids)}: {len(chosen)} were given"
        raise ConfigurationError(message)
    name, value = next(iter(chosen.items()))
    selector: Any = name
    if name != "deployment_ids":
        return Query(selector, (check_id(value, name),))
    batcher = Batcher(selector=selector, size=MOST_ROWS, fixed_bytes=0)
    batches = [one for identity in check_iterable(name, value) for one in batcher.add(identity)]
    rest = batcher.flush()
    if not rest or batches:
        got = "none" if not rest else "more"
        refuse("deployment_ids", "1 to about 100 ids", f"{got}: iter_pods accepts any number")
    return rest[0].query


async def _structured(
    structure: Structure[T], answer: Answer[Rows], on_bad_item: OnBadItem
) -> tuple[list[T], int]:
    """Return the items of a response, and how many of its rows could not be read."""
    items: list[T] = []
    taken = bad = 0
    while rest := range(taken, len(answer.value.ids)):
        await asyncio.sleep(0)  # other tasks run between two chunks
        try:
            some = structure_some(structure, answer, rest, key=PODS.key)
        except PayloadError as error:
            if on_bad_item == "raise":
                raise
            some = stand_in(on_bad_item, structure, answer, taken, error)
            taken, bad = taken + 1, bad + 1
        else:
            taken += len(some)
        items += some
    return items, bad
