"""What people write instead: six ways to read a fleet without this library.

Each is written as the documentation of its parts shows it, in its favour where there is a choice:
pages side by side where it can have them, rows in order, no retries, no checks. Each returns how
many distinct pods it saw, so that none gets away with less.
"""

import asyncio
import itertools
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from functools import lru_cache
from types import NoneType, UnionType
from typing import Any, get_args, get_origin

import aiohttp
import attrs
import cattrs
import orjson

from ief_async import Pod

IN_FLIGHT = 8
Consumer = Callable[[AsyncIterator[Any]], Awaitable[int]]


@attrs.frozen(kw_only=True)
class Fleet:
    """Where a fake server is, what it serves, and what opens it."""

    endpoint: str
    project_id: str
    token: str
    access_key: str
    secret_key: str
    deployment_ids: list[str]
    pods: int

    @property
    def pods_url(self) -> str:
        """Where the list of pods is."""
        return f"{self.endpoint}/v3/{self.project_id}/edgemgr/pods"

    def query(self, size: int, offset: int) -> dict[str, str | int]:
        """Return what asks for one page of the whole fleet."""
        ids = ",".join(self.deployment_ids)
        return {"deployment_ids": ids, "limit": size, "offset": offset}


async def distinct_rows(rows: AsyncIterator[dict[str, Any]]) -> int:
    return len({row["id"] async for row in rows})


# --- aiohttp by hand ------------------------------------------------------------------------------


def by_hand(fleet: Fleet) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(headers={"X-Auth-Token": fleet.token}, raise_for_status=True)


async def rows(http: aiohttp.ClientSession, fleet: Fleet, size: int) -> AsyncIterator[Any]:
    """Yield dicts in order: what one writes by hand, with nothing but what the job needs."""

    async def fetch(offset: int) -> bytes:
        async with http.get(fleet.pods_url, params=fleet.query(size, offset)) as answer:
            return await answer.read()

    page = orjson.loads(await fetch(0))
    tasks = (asyncio.create_task(fetch(at)) for at in range(size, page["count"], size))
    pending = deque(itertools.islice(tasks, IN_FLIGHT))
    for row in page["pods"]:
        yield row
    while pending:
        body = await pending.popleft()
        pending.extend(itertools.islice(tasks, 1))
        # decoded here and not in the task: eight pages of dicts at a time take a quarter longer
        for row in orjson.loads(body)["pods"]:
            yield row


async def dicts(fleet: Fleet, size: int, consume: Consumer = distinct_rows) -> int:
    async with by_hand(fleet) as http:
        return await consume(rows(http, fleet, size))


CONVERTER = cattrs.Converter()  # one for all rounds: it writes its code for Pod once


async def plain_cattrs(fleet: Fleet, size: int) -> int:
    structure = CONVERTER.structure
    async with by_hand(fleet) as http:
        return len({structure(row, Pod).id async for row in rows(http, fleet, size)})


# --- httpx and pydantic ---------------------------------------------------------------------------


async def httpx_pydantic(fleet: Fleet, size: int) -> int:
    import httpx

    decode = pydantic_page().model_validate_json
    headers = {"X-Auth-Token": fleet.token}
    async with httpx.AsyncClient(headers=headers, timeout=30) as http:

        async def fetch(offset: int) -> bytes:
            answer = await http.get(fleet.pods_url, params=fleet.query(size, offset))
            return answer.raise_for_status().content

        page = decode(await fetch(0))
        ids = {pod.id for pod in page.pods}
        tasks = (asyncio.create_task(fetch(at)) for at in range(size, page.count, size))
        pending = deque(itertools.islice(tasks, IN_FLIGHT))
        while pending:
            body = await pending.popleft()
            pending.extend(itertools.islice(tasks, 1))
            ids |= {pod.id for pod in decode(body).pods}
        return len(ids)


@lru_cache
def pydantic_page() -> Any:
    """Return a page's model, with the fields that `Pod` has."""
    from pydantic import create_model

    return create_model("PodPage", count=(int, ...), pods=(list[pydantic_of(Pod)], ...))  # type: ignore[misc]  # a call is a type here


@lru_cache
def pydantic_of(model: type) -> Any:
    """Return what one writes for pydantic where this library has an attrs class."""
    from pydantic import Field, create_model

    attrs.resolve_types(model)
    fields = {}
    for field in attrs.fields(model):
        default = field.default
        if default is attrs.NOTHING:
            default = ...
        elif isinstance(default, attrs.Factory):
            default = Field(default_factory=default.factory)
        fields[field.name] = (pydantic_type(field.type), default)
    return create_model(model.__name__, **fields)


def pydantic_type(annotation: Any) -> Any:
    if isinstance(annotation, type) and attrs.has(annotation):
        return pydantic_of(annotation)
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is UnionType:
        (one,) = (kind for kind in inner if kind is not NoneType)
        return pydantic_type(one) | None
    return tuple[pydantic_type(inner[0]), ...] if origin is tuple else annotation


# --- dlt ------------------------------------------------------------------------------------------


async def dlt(fleet: Fleet, size: int) -> int:
    """Read dicts page after page: its paginator knows no other way."""
    from dlt.sources.helpers.rest_client import RESTClient
    from dlt.sources.helpers.rest_client.paginators import OffsetPaginator

    client = RESTClient(
        base_url=fleet.endpoint,
        headers={"X-Auth-Token": fleet.token},
        paginator=OffsetPaginator(limit=size, total_path="count"),
        data_selector="pods",
    )
    query = {"deployment_ids": ",".join(fleet.deployment_ids)}
    path = fleet.pods_url.removeprefix(fleet.endpoint)
    return len({row["id"] for page in client.paginate(path, params=query) for row in page})


# --- the vendor's SDK -----------------------------------------------------------------------------


def vendor_client(fleet: Fleet, kind: str) -> Any:
    from huaweicloudsdkcore.auth.credentials import BasicCredentials
    from huaweicloudsdkief import v1

    key = BasicCredentials(fleet.access_key, fleet.secret_key, fleet.project_id)
    return (
        getattr(v1, kind).new_builder().with_credentials(key).with_endpoint(fleet.endpoint).build()
    )


def vendor_request(fleet: Fleet, size: int, offset: int) -> Any:
    from huaweicloudsdkief.v1 import ListPodsRequest

    return ListPodsRequest(**fleet.query(size, offset))


async def vendor(fleet: Fleet, size: int) -> int:
    """Read page after page: it has no paging of its own."""
    client = vendor_client(fleet, "IefClient")
    ids: set[str] = set()
    offset, count = 0, 1
    while offset < count:
        page = client.list_pods(vendor_request(fleet, size, offset))
        offset, count = offset + size, page.count
        ids |= {pod.id for pod in page.pods}
    return len(ids)


async def vendor_threads(fleet: Fleet, size: int) -> int:
    """Read by its asynchronous client: eight threads, for which all pages wait."""
    client = vendor_client(fleet, "IefAsyncClient")

    def pages() -> Iterator[Any]:
        first = client.list_pods_async(vendor_request(fleet, size, 0)).result()
        yield first
        futures = deque(
            client.list_pods_async(vendor_request(fleet, size, offset))
            for offset in range(size, first.count, size)
        )
        while futures:
            yield futures.popleft().result()

    return len({pod.id for page in pages() for pod in page.pods})
