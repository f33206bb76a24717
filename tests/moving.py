"""A service whose lists move while they are read, on a loop whose time is virtual. No sockets.

It is written for `test_promise` alone and shares nothing with `FakeIef` or the library: what both
took for granted, no test of one by the other would notice. A request travels through aiohttp's own
client and parser; only the transport under them is made here.

Time is virtual: with nothing to run the loop leaps to its next timer. With no timer either, nothing
will ever happen again, and `Stalled` is raised where a real loop would wait for ever.
"""

import asyncio
import json
import random
import selectors
from collections import deque
from urllib.parse import parse_qs, urlsplit
from zlib import crc32

import aiohttp
import attrs

ENDLESS = 4_000  # requests of one scan: nothing that a test asks for takes nearly as many
MOST_BORN = 200  # a list that grows faster than it is read has no end
KEYS = {
    "pods": "pods",
    "deployments": "deployments",
    "nodes": "nodes",
    "groups": "edge_groups",
    "ief-instances": "ief_instances",
}
SELECTORS = {"deployment_ids", "node_id", "group_id"}


class Stalled(BaseException):
    """Everything waits, and nothing is in flight; or there is no end of requests."""


class _Leaping(selectors.SelectSelector):
    """Leaps over every wait."""

    def __init__(self):
        super().__init__()
        self.now = 1_000.0

    def select(self, timeout=None):
        if timeout is None:
            raise Stalled
        self.now += max(0.0, timeout)
        return super().select(0)


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop that never waits."""

    def __init__(self):
        self._leaping = _Leaping()
        super().__init__(self._leaping)

    def time(self):
        """Return the virtual time."""
        return self._leaping.now


@attrs.frozen(kw_only=True)
class Weather:
    """How the service behaves.

    Attributes:
        cap: rows of a page at most, whatever is asked for.
        count: what it says of the whole: "true", "high", "low", "jitter", "page", "zero", "none".
        changes: how many rows come or go with each request, on average.
        deletes: the share of rows that go.
        lag: how many states of the list may answer.
        faults: the share of requests that fail, once.
        kinds: in which ways.
        failing: the owner whose rows can't be read, as a number; None: all can.
        most_ids: ids of one query at most, else 413.
        most_rows: rows of one page at most, else 504.
        odd: the share of rows that can't be read.
        odd_field: what is wrong with them: "name", or the "id" that they lack.
    """

    cap: int | None = None
    count: str = "true"
    changes: float = 0.0
    deletes: float = 0.5
    lag: int = 1
    faults: float = 0.0
    kinds: tuple[str, ...] = ()
    failing: int | None = None
    most_ids: int | None = None
    most_rows: int | None = None
    odd: float = 0.0
    odd_field: str = "name"

    def is_odd(self, name):
        """Tell whether a row can't be read: always the same ones."""
        return crc32(name.encode()) % 1_000 < 1_000 * self.odd

    def lacks_ids(self, page):
        """Tell whether some row of a page has no id."""
        return self.odd_field == "id" and any(self.is_odd(name) for name, _ in page)


@attrs.frozen(kw_only=True)
class Answer:
    """What comes back: cut five bytes before its end if it is not whole, and nothing for None.

    What is whole and nothing is silence, as of a connection that a NAT has forgotten.
    """

    status: int = 200
    headers: str = ""
    body: bytes | None = b"{}"
    whole: bool = True


FAULTS = {
    "500": Answer(status=500),
    "504": Answer(status=504),
    "429": Answer(status=429, headers="Retry-After: 1\r\n"),
    "cut": Answer(body=b'{"count": 1', whole=False),
    "reset": Answer(body=None, whole=False),
    "silent": Answer(body=None),
    "window": Answer(
        status=429,
        body=b'{"error_code": "APIGW.0308", "error_msg": "Throttled: limit:60,time:2 second"}',
    ),
}


def _body(name, page, count, weather=Weather()):
    said = {} if count is None else {"count": count}
    said[KEYS[name]] = [_row(one, owner, weather) for one, owner in page]
    return json.dumps(said).encode()


def _row(one, owner, weather):
    row = {"id": one, "name": one, "deployment_id": owner, "node_id": owner}
    if weather.is_odd(one):
        row["name"] = [one]
        if weather.odd_field == "id":
            del row["id"]
    return row


class MovingIef:
    """The service: projects of rows, each of one owner, and what was asked of them."""

    def __init__(self, projects, moving, weather, seed, *, refuses_odd=False):
        self._chance = random.Random(seed)
        self.weather = weather
        self.moving = moving  # the list that changes
        self.lists = projects  # project: {list: [(id, owner), ...]}
        self.survivors = {name: list(lists[moving]) for name, lists in projects.items()}
        self._states = {
            name: deque([list(lists[moving])], maxlen=weather.lag)
            for name, lists in projects.items()
        }
        self.http = None  # what its client sends by
        self.requests = []
        self.wrong = []  # what no client may ask for
        self.open = set()  # transports
        self.pending = set()  # those that wait for an answer
        self.showed = []  # the project of each answer that shows that pages are cut
        self._refuses_odd = refuses_odd  # its client refuses a whole page for a row without an id
        self._born = 0

    def calm_down(self):
        """Let nothing change or fail from now on, and say the truth."""
        self.weather = Weather()
        for states in self._states.values():
            states.append(states[-1])
            while len(states) > 1:
                states.popleft()

    # -- motion ------------------------------------------------------------------------------

    def _move(self, project):
        weather, chance = self.weather, self._chance
        times = int(weather.changes) + (chance.random() < weather.changes % 1)
        if not times:
            return
        rows = list(self._states[project][-1])
        for _ in range(times):
            if chance.random() < weather.deletes:
                if rows:
                    del rows[chance.randrange(len(rows))]
            elif self._born < MOST_BORN:
                owners = sorted({owner for _, owner in self.survivors[project]} or {"d0"})
                self._born += 1
                born = (f"new{self._born}", chance.choice(owners))
                rows.insert(chance.choice([0, len(rows), chance.randint(0, len(rows))]), born)
        self._states[project].append(rows)
        there = set(rows)
        self.survivors[project] = [row for row in self.survivors[project] if row in there]

    def seconds(self):
        """Return how long an answer takes, so that they come in any order."""
        return self._chance.choice([0, 0, 0.01, 0.02, 0.5])

    # -- answers -----------------------------------------------------------------------------

    def answer(self, target):
        """Return what comes back to a request."""
        self.requests.append(target)
        if len(self.requests) > ENDLESS:
            raise Stalled
        parts = urlsplit(target)
        _, _, project, _, name = parts.path.split("/")
        asked = {key: values[0] for key, values in parse_qs(parts.query).items()}
        limit, offset = int(asked["limit"]), int(asked["offset"])
        if limit < 1 or offset < 0:
            self.wrong.append(target)
        owners = next((asked[key].split(",") for key in SELECTORS & asked.keys()), None)
        if name != self.moving:
            rows = self.lists[project][name]
            return Answer(body=_body(name, rows[offset : offset + limit], len(rows)))
        self._move(project)
        refusal = self._refusal(owners or [], limit)
        if refusal is not None:
            return refusal
        rows = self._chance.choice(self._states[project])
        if owners is not None:
            rows = [row for row in rows if row[1] in owners]
        page = rows[offset : offset + min(limit, self.weather.cap or limit)]
        count = self._count(len(rows), len(page))
        if self.weather.kinds and self._chance.random() < self.weather.faults:
            kind = self._chance.choice(self.weather.kinds)
            if kind != "empty":
                return FAULTS[kind]
            if count is not None and count > offset:  # else that would be the end of it
                page = []
        cut = 0 < len(page) < limit and (count or 0) > offset + len(page)
        if cut and not (self._refuses_odd and self.weather.lacks_ids(page)):
            self.showed.append(project)
        return Answer(body=_body(name, page, count, self.weather))

    def _refusal(self, owners, limit):
        weather = self.weather
        if weather.failing is not None and f"d{weather.failing}" in owners:
            return Answer(status=400)
        if weather.most_ids is not None and len(owners) > weather.most_ids:
            return Answer(status=413)
        if weather.most_rows is not None and limit > weather.most_rows:
            return FAULTS["504"]
        return None

    def _count(self, total, page):
        near = self._chance.randint(-3, 3)
        return {
            "true": total,
            "high": total + 3,
            "low": max(0, total - 3),
            "jitter": max(0, total + near),
            "page": page,
            "zero": 0,
            "none": None,
        }[self.weather.count]


class _Transport(asyncio.Transport):
    """A connection to the service; what is written is read as HTTP, and answered in a while."""

    def __init__(self, service, protocol, loop):
        super().__init__()
        self._service = service
        self._protocol = protocol
        self._loop = loop
        self._received = b""
        self._closing = False
        service.open.add(self)

    def get_extra_info(self, _, default=None):
        return default

    def is_closing(self):
        return self._closing

    def pause_reading(self):
        """Nothing comes that was not asked for."""

    def resume_reading(self):
        """Likewise."""

    def write(self, data):
        self._received += bytes(data)
        head, end, self._received = self._received.partition(b"\r\n\r\n")
        if not end:
            self._received = head
            return
        target = head.split(b" ", 2)[1].decode()
        self._service.pending.add(self)
        answer = self._service.answer(target)
        self._loop.call_later(self._service.seconds(), self._give, answer)

    def writelines(self, pieces):
        self.write(b"".join(pieces))

    def _give(self, answer):
        if self._closing or (answer.whole and answer.body is None):
            return
        self._service.pending.discard(self)
        if answer.body is not None:
            length = len(answer.body) + (0 if answer.whole else 5)
            head = f"HTTP/1.1 {answer.status} Said\r\nContent-Type: application/json\r\n"
            head += f"{answer.headers}Content-Length: {length}\r\n\r\n"
            self._protocol.data_received(head.encode() + answer.body)
        if not answer.whole:
            self.close()

    def close(self):
        if self._closing:
            return
        self._closing = True
        self._service.open.discard(self)
        self._service.pending.discard(self)
        self._loop.call_soon(self._protocol.connection_lost, None)

    abort = close


class MovingConnector(aiohttp.BaseConnector):
    """What makes aiohttp speak with the service."""

    def __init__(self, service):
        super().__init__()
        self._service = service

    async def _create_connection(self, *_):
        protocol = self._factory()
        protocol.connection_made(_Transport(self._service, protocol, self._loop))
        return protocol
