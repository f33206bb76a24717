"""What the steps of a scan cost alone, each beside the least that one would write by hand.

With ``--layers``: what each layer of a scan adds to the one before, in microseconds of CPU time per
page of 100, each in a process of its own, with the server of `server.py`.

Else, measured in one process, without any server, in interleaved rounds:

* structuring a page of 1,000 and of 100 pods, in the chunks in which a stream does it;
* cutting ids into 10,000 batches, and leading these through the window, one page each;
* signing a request, and one request from end to end with an answer that is there already;
* 5,000 pods of five pages as lines of JSON and as an Arrow record batch.

Every case is held against what it has to give, once, before it is timed. Not measured: the wire,
TLS, aiohttp, and what the steps cost each other by sharing a cache and a garbage collector.
"""

import argparse
import asyncio
import gc
import hashlib
import hmac
import itertools
import json
import statistics
import sys
import time
import uuid
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from typing import Any
from unittest import mock
from urllib.parse import urlencode, urlsplit

import attrs
import cattrs
import msgspec
import orjson
from machine import environment
from multidict import CIMultiDict, CIMultiDictProxy
from peers import by_hand, dicts
from race import race, run_rounds
from server import Fleet, serving
from throughput import FiveFields, counted, items, session
from throughput import pages as pages_of
from yarl import URL

from ief_async import AccessKey, IefSession, Pod, Token
from ief_async._http.exchange import Exchange
from ief_async._messages import Answer, Request
from ief_async._paging.batches import Batch, Batcher
from ief_async._paging.pages import PageRequest
from ief_async._paging.scan_plan import ScanPlan
from ief_async._scan.reading import structure_some
from ief_async._structure.envelope import Rows, split
from ief_async._structure.flatten import LineReader
from ief_async._structure.structure import structure_of
from ief_async.sinks._arrow import Columns
from ief_async.testing import FakeIef

PROJECT = "bcd83056c918480f8f190844bd425b23"
ENDPOINT = "https://ief2.cn-north-4.myhuaweicloud.com"
KEY = "pods"
PAGE_SIZES = (1_000, 100)
LAYER_PAGE = 100
LAYER_PODS = 20_000
BATCHES = 10_000
BATCH_IDS = 10
WINDOW = 8
TABLE_PAGES = 5
REQUESTS = 1_000
LEAST_ROUNDS = 7
NOW = 1_700_000_000.0


@attrs.frozen
class Case:
    """One thing that is timed: `run` does so many units of it, and `check` says what it gave."""

    name: str
    units: int
    run: Callable[[], Any]
    check: Callable[[Any], bool]


@attrs.frozen
class Group:
    """Cases that do the same; the first one is the base of the others."""

    name: str
    unit: str
    cases: list[Case]


# --- a page ---------------------------------------------------------------------------------------


def body_of(pods: list[dict[str, Any]]) -> bytes:
    """Return a page as the server writes it."""
    return orjson.dumps({"count": len(pods), KEY: pods})


def structured(body: bytes, reader: Any) -> list[Any]:
    """Structure a page as a stream does when it is consumed: chunk after chunk."""
    value: Rows = reader.read(body, key=KEY)
    answer: Answer[Rows] = Answer(value=value, raw=body, request_id=None)
    items: list[Any] = []
    while len(items) < len(value.ids):
        rest = range(len(items), len(value.ids))
        items += structure_some(reader, answer, rest, key=KEY)
    return items


def pages(size: int) -> Group:
    pods = FakeIef(pods=size).pods[:]
    odd = [*pods]
    odd[size // 2] = odd[size // 2] | {"containers": None}  # as a server says "none" now and then
    try:
        msgspec.json.decode(orjson.dumps(odd[size // 2]), type=Pod, strict=False)
    except msgspec.ValidationError:
        pass
    else:
        message = "the odd pod is none: the decoder takes it"
        raise AssertionError(message)
    body, odd_body = body_of(pods), body_of(odd)
    ids = [pod["id"] for pod in pods]
    converter = cattrs.Converter()
    full, five = structure_of(Pod), structure_of(FiveFields)

    def right(items: list[Any]) -> bool:
        return [item.id for item in items] == ids

    cases = [
        Case(
            "orjson.loads, dicts",
            size,
            lambda: orjson.loads(body)[KEY],
            lambda rows: [row["id"] for row in rows] == ids,
        ),
        Case("Pod", size, lambda: structured(body, full), right),
        Case("Pod, one odd of the page", size, lambda: structured(odd_body, full), right),
        Case("five fields", size, lambda: structured(body, five), right),
        Case(
            "plain cattrs",
            size,
            lambda: [converter.structure(row, Pod) for row in orjson.loads(body)[KEY]],
            right,
        ),
    ]
    return Group(f"structure a page of {size:,} pods", "pod", cases)


# --- a plan ---------------------------------------------------------------------------------------


def queries(ids: list[str]) -> list[str]:
    """Cut ids into queries: what one writes by hand."""
    return [
        "deployment_ids=" + "%2C".join(ids[at : at + BATCH_IDS])
        for at in range(0, len(ids), BATCH_IDS)
    ]


def batches(ids: list[str]) -> Iterator[Batch]:
    batcher = Batcher(selector="deployment_ids", size=BATCH_IDS, fixed_bytes=100)
    for identity in ids:
        for batch in batcher.add(identity):
            assert isinstance(batch, Batch)
            yield batch
    yield from batcher.flush()


def led(ids: list[str]) -> int:
    """Lead all batches through the window, as a scan does; each has one page of one row."""
    plan = ScanPlan(concurrency=WINDOW, ordered=True, limit=100)
    waiting = batches(ids)
    taken = 0
    while not plan.done:
        asked: list[PageRequest] = []
        while True:
            request = plan.next_request()
            if isinstance(request, PageRequest):
                asked.append(request)
            elif not plan.wants_batch:
                break
            elif (batch := next(waiting, None)) is None:
                plan.closed = True
            else:
                plan.add(batch)
        for request in asked:
            plan.receive(request, 1, [request.query.ids[0]], None)
        while (accepted := plan.take()) is not None:
            taken += len(accepted.positions)
            plan.acknowledge(accepted)
    assert plan.complete
    return taken


def planning(number: int) -> Group:
    ids = [str(uuid.UUID(int=at)) for at in range(number * BATCH_IDS)]
    cases = [
        Case("slices and joins", number, lambda: queries(ids), lambda got: len(got) == number),
        Case(
            "batches",
            number,
            lambda: [batch.query.text for batch in batches(ids)],
            lambda got: got == queries(ids),
        ),
        Case("through the window", number, lambda: led(ids), lambda got: got == number),
    ]
    return Group(f"plan {number:,} batches of {BATCH_IDS} ids", "batch", cases)


# --- a request ------------------------------------------------------------------------------------


def signing(ids: int) -> Group:
    query = ",".join(str(uuid.UUID(int=at)) for at in range(ids)).replace(",", "%2C")
    url = f"{ENDPOINT}/v3/{PROJECT}/edgemgr/pods?deployment_ids={query}&limit=100&offset=0"
    headers = {"Content-Type": "application/json", "X-Project-Id": PROJECT}
    request = Request(url=url, headers=headers)
    secret = "FakeSecretKeyThatOpensNothing00000000001"  # noqa: S105  as it says
    key, token = AccessKey("FAKEACCESSKEY0000001", secret), Token("fake-token")
    signed = f"{urlsplit(url).netloc}{headers}{url}".encode()

    def by_hand() -> str:
        digest = hashlib.sha256(signed).hexdigest()
        return hmac.digest(secret.encode(), digest.encode(), "sha256").hex()

    def many(sign: Callable[[], Any]) -> Callable[[], Any]:
        return lambda: [sign() for _ in range(REQUESTS)][-1]

    cases = [
        Case("sha256 and hmac", REQUESTS, many(by_hand), bool),
        Case(
            "AccessKey.headers",
            REQUESTS,
            many(lambda: key.headers(request, now=NOW)),
            lambda got: got["Authorization"].startswith("SDK-HMAC-SHA256"),
        ),
        Case(
            "Token.headers",
            REQUESTS,
            many(lambda: token.headers(request, now=NOW)),
            lambda got: list(got) == ["X-Auth-Token"],
        ),
    ]
    return Group(f"sign a request for {ids} ids", "request", cases)


def requesting() -> Group:
    body = body_of(FakeIef(pods=1).pods[:])
    exchange = Exchange(status=200, headers=CIMultiDictProxy(CIMultiDict()), body=body)

    async def answered(*given: Any, **_: Any) -> Exchange:
        given[2]()  # it is signed where it is sent
        return exchange

    async def by_hand() -> int:
        got = [split((await answered(0, 0, dict)).body, key=KEY) for _ in range(REQUESTS)]
        return len(got)

    async def ours() -> int:
        credentials = Token("fake-token")
        async with IefSession(PROJECT, credentials=credentials, endpoint=ENDPOINT) as ief:
            transport = ief._transport  # noqa: SLF001  what sends requests has no other name
            target = f"/v3/{PROJECT}/edgemgr/pods?limit=1"
            answers = [
                await transport.get(target, lambda raw: split(raw, key=KEY))
                for _ in range(REQUESTS)
            ]
            return len(answers)

    def without_a_wire() -> int:
        with mock.patch("ief_async._http.transport.exchange", answered):
            return asyncio.run(ours())

    cases = [
        Case("split alone", REQUESTS, lambda: asyncio.run(by_hand()), REQUESTS.__eq__),
        Case("Transport.get", REQUESTS, without_a_wire, REQUESTS.__eq__),
    ]
    return Group("a request whose answer is there", "request", cases)


# --- a table --------------------------------------------------------------------------------------


def writing(size: int) -> Group:
    pods = FakeIef(pods=size * TABLE_PAGES).pods[:]
    bodies = [body_of(pods[at : at + size]) for at in range(0, len(pods), size)]
    whole = structure_of(Pod)
    lines, columns = LineReader(whole, for_arrow=False), LineReader(whole, for_arrow=True)
    table = Columns(Pod, of_targets=False)

    def rows(reader: Any) -> list[bytes]:
        return [row for body in bodies for row in structured(body, reader)]

    def by_hand() -> bytes:
        documents = (row for body in bodies for row in orjson.loads(body)[KEY])
        return b"\n".join(orjson.dumps(row) for row in documents)

    def is_text(text: bytes) -> bool:
        return [orjson.loads(line)["id"] for line in text.splitlines()] == [
            pod["id"] for pod in pods
        ]

    cases = [
        Case("orjson, dicts to lines", len(pods), by_hand, is_text),
        Case("NDJSON", len(pods), lambda: b"\n".join(rows(lines)), is_text),
        Case(
            "Arrow record batch",
            len(pods),
            lambda: table.batch(rows(columns)),
            lambda got: got["id"].to_pylist() == [pod["id"] for pod in pods],
        ),
    ]
    return Group(f"write {len(pods):,} pods", "pod", cases)


# --- the layers of a scan -------------------------------------------------------------------------

Fetch = Callable[[int], Awaitable[Any]]


async def by_workers(fleet: Fleet, fetch: Fetch) -> int:
    """Fetch all pages by as many workers as `iter_pods` has requests in flight."""
    offsets = iter(range(0, fleet.pods, LAYER_PAGE))

    async def work() -> None:
        for offset in offsets:
            await fetch(offset)

    await asyncio.gather(*(work() for _ in range(WINDOW)))
    return fleet.pods


def query_of(fleet: Fleet, offset: int) -> str:
    return f"pods?{urlencode(fleet.query(LAYER_PAGE, offset))}"


async def aiohttp_alone(fleet: Fleet) -> int:
    async with by_hand(fleet) as http:

        async def fetch(offset: int) -> None:
            url = URL(fleet.pods_url.removesuffix("pods") + query_of(fleet, offset), encoded=True)
            async with http.get(url) as answer:
                await answer.read()

        return await by_workers(fleet, fetch)


async def transport(
    fleet: Fleet, read: Callable[[bytes], Any], take: Callable[[Any], None] = lambda _: None
) -> int:
    async with session(fleet, WINDOW) as ief:
        inner = ief._transport  # noqa: SLF001  what sends requests has no other name

        async def fetch(offset: int) -> None:
            answer = await inner.get(
                "/v3/{project_id}/edgemgr/" + query_of(fleet, offset), read, scan=1
            )
            take(answer)

        return await by_workers(fleet, fetch)


async def structuring(fleet: Fleet) -> int:
    reader = structure_of(Pod)

    def take(answer: Answer[Rows]) -> None:
        taken, rows = 0, len(answer.value.ids)
        while taken < rows:
            taken += len(structure_some(reader, answer, range(taken, rows), key=KEY))

    return await transport(fleet, partial(reader.read, key=KEY), take)


LAYERS: dict[str, Callable[[Fleet], Awaitable[int]]] = {
    "aiohttp alone": aiohttp_alone,
    "Transport.get": lambda fleet: transport(fleet, bytes),
    "envelope and ids": lambda fleet: transport(fleet, partial(structure_of(Pod).read, key=KEY)),
    "structuring": structuring,
    "the stream": lambda fleet: items(fleet, LAYER_PAGE),
}
WHOLE: dict[str, Callable[[Fleet], Awaitable[int]]] = {
    "iter_pods, on_drift=ignore": lambda fleet: items(fleet, LAYER_PAGE, on_drift="ignore"),
    "iter_pods, five fields": lambda fleet: items(fleet, LAYER_PAGE, model=FiveFields),
    "pages()": lambda fleet: pages_of(fleet, LAYER_PAGE),
    "dicts": lambda fleet: dicts(fleet, LAYER_PAGE),
}


def print_layers(rounds: int, pods: int) -> None:
    with serving(pods) as fleet:
        text = json.dumps(attrs.asdict(fleet))
        ways = {name: [name, text] for name in LAYERS | WHOLE}
        found = race(__file__, ways, rounds=rounds, pods=pods)
    page = 1e6 * LAYER_PAGE / pods
    print(f"\nmicroseconds of CPU per page of {LAYER_PAGE}, least of {rounds} rounds")
    before = 0.0
    for name in LAYERS:
        least = found[name].least * page
        print(f"  {name:28}{least:8.0f}{f'+{least - before:.0f}' if before else '':>8}")
        before = least
    print("whole scans")
    for name in WHOLE:
        print(f"  {name:28}{found[name].least * page:8.0f}")


# --- what is measured, and printed ----------------------------------------------------------------


def timed(run: Callable[[], Any]) -> float:
    gc.collect()
    start = time.perf_counter()
    result = run()
    elapsed = time.perf_counter() - start
    del result  # after the clock has stopped: what becomes of it is the caller's
    return elapsed


def measure(groups: list[Group], rounds: int) -> dict[tuple[str, str], list[float]]:
    """Return microseconds per unit: of each case, of each round."""
    cases = [(group.name, case) for group in groups for case in group.cases]
    for _, case in cases:  # a round that does not count, and shows that the result is right
        assert case.check(case.run()), case.name
    gc.collect()
    gc.freeze()  # what waits for its turn is not to be looked through
    found: dict[tuple[str, str], list[float]] = {(name, case.name): [] for name, case in cases}
    for _, (name, case) in itertools.product(range(rounds), cases):
        found[name, case.name].append(timed(case.run) / case.units * 1e6)
    return found


def print_table(groups: list[Group], found: dict[tuple[str, str], list[float]]) -> None:
    for group in groups:
        print(f"\n{group.name:34}{f'µs a {group.unit}':>12}  {'least to most':>16}{'ratio':>8}")
        base = statistics.median(found[group.name, group.cases[0].name])
        for case in group.cases:
            values = found[group.name, case.name]
            middle = statistics.median(values)
            spread = f"{min(values):.2f} to {max(values):.2f}"
            print(f"  {case.name:32}{middle:12.2f}  {spread:>16}{middle / base:8.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description="What the steps of a scan cost alone.")
    parser.add_argument("--rounds", type=int, default=15, help=f"{LEAST_ROUNDS} at least")
    parser.add_argument("--layers", action="store_true", help="what each layer of a scan adds")
    parser.add_argument("--quick", action="store_true", help="only show that all of it runs")
    given = parser.parse_args()
    if given.rounds < LEAST_ROUNDS:
        parser.error(f"a run takes {LEAST_ROUNDS} rounds at least")
    print(*environment().values(), sep="\n")
    if given.layers:
        print_layers(1 if given.quick else given.rounds, 1_000 if given.quick else LAYER_PODS)
        return
    groups = [
        *(pages(size) for size in PAGE_SIZES),
        planning(BATCHES // 100 if given.quick else BATCHES),
        signing(1),
        signing(100),
        requesting(),
        writing(PAGE_SIZES[-1] if given.quick else PAGE_SIZES[0]),
    ]
    rounds = 1 if given.quick else given.rounds
    print(f"\nmedians of {rounds} interleaved rounds; a ratio is to the first line of its table")
    print_table(groups, measure(groups, rounds))
    if given.quick:
        print("\nA quick run: it shows that all of it works, and says nothing about speed.")


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["round", name, text]:
            layer, fleet = (LAYERS | WHOLE)[name], Fleet(**json.loads(text))
            run_rounds(lambda: asyncio.run(counted(layer(fleet))))
        case _:
            main()
