"""The server itself: connections, the gateway's checks, scripted faults, and what was seen."""

import asyncio
import contextlib
import functools
import math
import random
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from itertools import count, cycle
from typing import Any, Concatenate, Literal, ParamSpec, Self, TypeVar, get_args
from urllib.parse import parse_qsl

import attrs
from aiohttp import web

from ief_async.testing._faults import (
    DEFAULT_MIX,
    HEADER_TOO_LARGE,
    NORMAL,
    Answer,
    FakeRequest,
    Fault,
    RefusedError,
)
from ief_async.testing._fleet import Fleet, Memo, Motion, is_share
from ief_async.testing._iam import Expired, Iam, Metadata
from ief_async.testing._lists import ListName, Lists, homes_in
from ief_async.testing._pods import (
    ID_MASK,
    STRIDE,
    GivenPods,
    Kind,
    Pods,
    SeededPods,
    lot,
    to_json,
    uuid_of,
)
from ief_async.testing._quota import Meter, Quota

_P = ParamSpec("_P")
_T = TypeVar("_T")

Order = Literal["stable", "reversed", "shuffled", "ties"]
Offsets = Literal["rows", "ignored", "pages"]
Limits = Literal["kept", "ignored"]
Forgotten = Literal["silent", "reset", "closed"]
Counts = Literal["true", "none", "page"] | int | Callable[[int, random.Random], int | str | None]

_IDS: dict[str, Kind] = {
    "deployment_ids": "deployment",
    "deployment_id": "deployment",
    "node_id": "node",
    "group_id": "group",
}
_LISTS: dict[tuple[str, str], ListName | None] = {
    ("v3", "pods"): None,  # which are made of bytes, not of documents
    ("v3", "deployments"): "deployments",
    ("v2", "nodes"): "nodes",
    ("v2", "groups"): "groups",
    ("v2", "ief-instances"): "instances",
}
_REMEMBERED_REQUESTS = 100_000
_LINE_LIMIT = 32 << 10
_HEAD_LIMIT = 128 << 10
_LONGEST_NUMBER = 18
_DELIVERY = 0.02
_TURNS_TO_ACCEPT = 3
_TURNS_TO_CLOSE = 1000  # of the loop; it takes five


@attrs.frozen
class FakeStatistics:
    """What the server counted since it was made.

    Attributes:
        requests: all that arrived.
        in_flight: requests that wait for the end of their answer.
        in_flight_peak: the most there ever were at a time.
        connections: all that were ever opened.
        connections_open: those that are open now.
        faults: how many requests were answered with a fault.
        throttled: how many requests the `Quota` refused.
    """

    requests: int
    in_flight: int
    in_flight_peak: int
    connections: int
    connections_open: int
    faults: int
    throttled: int = 0


class _Gate(web.Server):
    """aiohttp's server, which also keeps count of its connections."""

    def __init__(
        self, handler: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]], opened: int
    ) -> None:
        super().__init__(
            handler,
            handler_cancellation=True,  # a request ends when its client leaves
            access_log=None,
            # Far above the gateway's own limits, so that these are what a long line meets.
            max_line_size=_HEAD_LIMIT,
            max_field_size=_HEAD_LIMIT,
        )
        self.opened = opened
        self.open: dict[object, tuple[int, asyncio.Transport]] = {}

    def connection_made(self, handler: web.RequestHandler, transport: asyncio.Transport) -> None:
        self.opened += 1
        self.open[handler] = (self.opened, transport)
        super().connection_made(handler, transport)

    def connection_lost(
        self, handler: web.RequestHandler, exc: BaseException | None = None
    ) -> None:
        self.open.pop(handler, None)
        super().connection_lost(handler, exc)

    async def close(self) -> None:
        for _, transport in self.open.values():
            transport.abort()
        for _ in range(_TURNS_TO_CLOSE):
            if not self.connections:  # each goes with its task, and that has been cancelled
                break
            await asyncio.sleep(0)


class _Written(web.StreamResponse):
    """Tells aiohttp that the answer is on the wire already."""

    def __init__(self, *, reusable: bool) -> None:
        super().__init__()
        self._reusable = reusable

    @property
    def keep_alive(self) -> bool:
        return self._reusable

    async def prepare(self, request: web.BaseRequest) -> None:
        """Leave the wire alone."""

    async def write_eof(self, data: bytes = b"") -> None:
        """Leave the wire alone."""


def _in_its_turn(
    method: Callable[Concatenate["FakeIef", _P], _T],
) -> Callable[Concatenate["FakeIef", _P], _T]:
    """Let what looks at or changes the fleet wait for the server's own thread, if it has one."""

    @functools.wraps(method)
    def called(fake: "FakeIef", /, *args: _P.args, **kwargs: _P.kwargs) -> _T:
        if fake._thread in {None, threading.current_thread()}:  # noqa: SLF001 - of this file
            return method(fake, *args, **kwargs)

        async def there() -> _T:
            return method(fake, *args, **kwargs)

        return fake._there(there())  # noqa: SLF001 - likewise

    return called


def _is_count(_: object, __: object, counts: object) -> None:
    if not (callable(counts) or isinstance(counts, int) or counts in ("true", "none", "page")):
        msg = f"no way to count: {counts!r}"
        raise ValueError(msg)


@attrs.frozen(kw_only=True)
class _Oddities:
    """What a listing gets wrong; `FakeIef` says what each means."""

    order: Order = attrs.field(validator=attrs.validators.in_(get_args(Order)))
    offsets: Offsets = attrs.field(validator=attrs.validators.in_(get_args(Offsets)))
    limits: Limits = attrs.field(validator=attrs.validators.in_(get_args(Limits)))
    counts: Counts = attrs.field(validator=_is_count)
    lag: int = attrs.field(validator=attrs.validators.ge(0))
    empty_rate: float = attrs.field(validator=is_share)
    cached_rate: float = attrs.field(validator=is_share)
    hidden_rate: float = attrs.field(validator=is_share)
    repeated_rate: float = attrs.field(validator=is_share)


class FakeIef:
    """A Huawei Cloud IEF on ``127.0.0.1``. ``async with`` starts and stops it, or plain ``with``.

    With ``async with`` it runs in the event loop that is there. With ``with`` it has a thread of
    its own: for code that is no coroutine, or calls `asyncio.run` itself.

    What the documentation leaves open is an argument. Requests that find a scripted fault get it;
    else the `intercept` hook decides, if there is one; else ``fault_rate`` does.

    The other lists obey the page cap, order, offsets, limits, counts, empty and cached pages as the
    list of pods does; lag, hidden and repeated rows, and motion are for pods alone.

    Args:
        pods: how many the fleet has, or the pods themselves, served as they are: one without a
            ``deployment_id`` (``node_id``) belongs to every deployment (node, group). One that is
            inserted is a copy of one of them, with an id of its own.
        deployments: pod *i* belongs to deployment *i* modulo this.
        nodes: pod *i* runs on node *i* modulo this.
        groups: node *i* belongs to group *i* modulo this.
        empty_nodes: further nodes, without pods, behind the others in the list of nodes alone.
        instances: how many the list of instances has.
        instance_id: the first instance's id. Without that very id in the header
            ``ief-instance-id`` every list is empty, but the list of instances; None: nobody asks.
        seed: every id, name and drawn fault follows from it.
        project_id: the only project that has a fleet.
        token: an ``X-Auth-Token`` that has no end; None: nobody asks for one, nor for a signature.
        domain: the name of the account.
        user: the name of its user.
        user_id: that user's id.
        password: that user's password.
        passcode: the second factor of a login; None: there is none.
        access_key: names the secret key.
        secret_key: what requests are signed with.
        region: the name of the only project.
        projects: what there is instead of that one, as documents with at least an ``id`` and a
            ``name``.
        token_lifetime: seconds for which an issued token is valid.
        token_characters: the length of the tokens that are issued, 32 or more.
        keys_lifetime: seconds for which temporary keys are valid.
        metadata: whether the metadata service wants a token, knows of none, or isn't there.
        clock: seconds since 1970.
        expired: which of its three faces an expired token gets.
        latency: seconds from a request to its answer, at least.
        default_limit: the page size when a request names none.
        page_cap: the largest page there is.
        over_cap: a larger ``limit`` is cut down, or refused.
        order: the fleet as it was made, or the other way round; shuffled anew for each request,
            or only every three neighbours ("ties").
        offsets: counted in rows, ignored, or taken as the number of a page.
        limits: kept, or ignored: an answer has all rows from the offset on.
        counts: how ``count`` comes about: the true number of rows, left out, the length of the
            page, always this number, or what a function makes of the true one and a source of
            chance; None leaves it out.
        lag: each request is answered from the list as it, or one of this many requests before it,
            found it.
        empty_rate: the share of requests that get an empty page, under the usual count.
        cached_rate: the share of requests that get the rows of offset 0.
        hidden_rate: the share of pods that are counted, but cut out of each page.
        repeated_rate: the share of pods that stand in the list twice, as two neighbouring rows.
        motion: what happens to the fleet before each list request is answered.
        unknown_ids: an unknown id has no pods, or is a 404.
        quota: how many requests for lists the gateway lets through in a window, by the `clock`;
            None: any number.
        fault_rate: the share of requests that get a fault; never more than that.
        faults: what these faults are drawn from.

    Attributes:
        pods: the present fleet in the server's order; each pod is made when it is looked at.
        page_cap: as the argument; may be changed at any time, like `instance_id`, `quota`, and all
            from `token` and `domain` to `expired`.
        requests: those seen; of very many, at least the last 50,000.
    """

    def __init__(
        self,
        pods: int | Sequence[Mapping[str, Any]] = 100,
        *,
        deployments: int = 10,
        nodes: int = 5,
        groups: int = 2,
        empty_nodes: int = 0,
        instances: int = 1,
        instance_id: str | None = None,
        seed: int = 0,
        project_id: str = "bcd83056c918480f8f190844bd425b23",
        token: str | None = "fake-token",  # noqa: S107 - opens nothing but this fake
        domain: str = "fake-domain",
        user: str = "fake-user",
        user_id: str = "fake-user-id",
        password: str = "fake-password",  # noqa: S107 - as above
        passcode: str | None = None,
        access_key: str = "FAKEACCESSKEY0000001",
        secret_key: str = "FakeSecretKeyThatOpensNothing00000000001",  # noqa: S107 - as above
        region: str = "cn-north-4",
        projects: Sequence[Mapping[str, Any]] | None = None,
        token_lifetime: float = 86_400.0,
        token_characters: int | None = None,
        keys_lifetime: float = 3_600.0,
        metadata: Metadata = "token",
        clock: Callable[[], float] = time.time,
        expired: Expired = "APIGW.0307",
        latency: float = 0.0,
        default_limit: int = 10,
        page_cap: int | None = None,
        over_cap: Literal["clamp", "refuse"] = "clamp",
        order: Order = "stable",
        offsets: Offsets = "rows",
        limits: Limits = "kept",
        counts: Counts = "true",
        lag: int = 0,
        empty_rate: float = 0.0,
        cached_rate: float = 0.0,
        hidden_rate: float = 0.0,
        repeated_rate: float = 0.0,
        motion: Motion | Sequence[Motion] = (),
        unknown_ids: Literal["empty", "refuse"] = "empty",
        quota: Quota | None = None,
        fault_rate: float = 0.0,
        faults: Sequence[Fault] = DEFAULT_MIX,
    ) -> None:
        if min(deployments, nodes, groups) < 1:
            msg = "a fleet has at least one deployment, node and group"
            raise ValueError(msg)
        self.project_id = project_id
        self.instance_id = instance_id
        self.token = token
        self.domain = domain
        self.user = user
        self.user_id = user_id
        self.password = password
        self.passcode = passcode
        self.access_key = access_key
        self.secret_key = secret_key
        self.region = region
        self.projects: Sequence[Mapping[str, Any]] = (
            [{"id": project_id, "name": region}] if projects is None else projects
        )
        self.token_lifetime = token_lifetime
        self.token_characters = token_characters
        self.keys_lifetime = keys_lifetime
        self.metadata: Metadata = metadata
        self.clock = clock
        self.expired: Expired = expired
        self._iam = Iam(self, seed)
        self.deployment_ids: tuple[str, ...] = tuple(
            uuid_of(seed, "deployment", n) for n in range(deployments)
        )
        self.node_ids: tuple[str, ...] = tuple(uuid_of(seed, "node", n) for n in range(nodes))
        self.group_ids: tuple[str, ...] = tuple(uuid_of(seed, "group", n) for n in range(groups))
        self._odd = _Oddities(
            order=order,
            offsets=offsets,
            limits=limits,
            counts=counts,
            lag=lag,
            empty_rate=empty_rate,
            cached_rate=cached_rate,
            hidden_rate=hidden_rate,
            repeated_rate=repeated_rate,
        )
        self._motions = (motion,) if isinstance(motion, Motion) else tuple(motion)
        fleet = self._fleet = Fleet(
            self._source(pods, seed),
            backwards=order == "reversed",
            lag=lag,
            chance=random.Random(f"motion {seed}"),  # noqa: S311 - repeatable, and no secret
        )
        self.pods: Sequence[dict[str, Any]] = fleet
        self._chance = random.Random(f"answers {seed}")  # noqa: S311 - as above
        share, ids = functools.partial(lot, seed), fleet.identities
        self._hidden = Memo(lambda pod: share("hidden", ids[pod]) < hidden_rate)
        self._repeated = Memo(lambda pod: share("repeated", ids[pod]) < repeated_rate)
        self._lists = Lists(
            self,
            fleet,
            seed,
            homes=None if isinstance(pods, int) else homes_in(_mappings(pods)),
            empty_nodes=empty_nodes,
            instances=instances,
            backwards=order == "reversed",
        )
        self.requests: list[FakeRequest] = []
        self._latency, self._default_limit = latency, default_limit
        self.page_cap = page_cap
        self._over_cap = over_cap
        self._unknown_ids = unknown_ids
        self.quota = quota
        self._script: deque[Fault | None] = deque()
        self._hook: Callable[[FakeRequest], Fault | None] | None = None
        self._lottery = _Lottery(fault_rate, faults, seed)
        self._answers, self._meter = count(1), Meter()
        self._gate: _Gate | None = None
        self._listener: asyncio.Server | None = None
        self._loop: asyncio.AbstractEventLoop | None = None  # its own, if it has a thread
        self._thread: threading.Thread | None = None
        self._seen = self._in_flight = self._peak = self._faulty = self._throttled = 0
        self._forgotten: tuple[int, Forgotten] = (0, "silent")

    def _source(self, pods: int | Sequence[Mapping[str, Any]], seed: int) -> Pods:
        if isinstance(pods, int):
            ids: dict[Kind, Sequence[str]] = {
                "deployment": self.deployment_ids,
                "node": self.node_ids,
                "group": self.group_ids,
            }
            return SeededPods(pods, seed, self.project_id, ids)
        given = _mappings(pods)
        self.deployment_ids = _ids_of(given, "deployment_id") or self.deployment_ids
        self.node_ids = _ids_of(given, "node_id") or self.node_ids
        return GivenPods(pods, dict(zip(self.node_ids, cycle(self.group_ids), strict=False)))

    @property
    def deployments(self) -> Sequence[dict[str, Any]]:
        """The present deployments in the server's order, each made when it is looked at."""
        return self._lists.listings["deployments"].documents

    @property
    def nodes(self) -> Sequence[dict[str, Any]]:
        """The present nodes, likewise; ``deployment_num`` is the number of their pods."""
        return self._lists.listings["nodes"].documents

    @property
    def groups(self) -> Sequence[dict[str, Any]]:
        """The present groups, likewise."""
        return self._lists.listings["groups"].documents

    @property
    def instances(self) -> Sequence[dict[str, Any]]:
        """The present instances, likewise."""
        return self._lists.listings["instances"].documents

    @property
    def endpoint(self) -> str:
        """Where to send requests, without a slash at the end."""
        if self._listener is None:
            msg = "the FakeIef isn't running: use `async with fake:` or `await fake.start()`"
            raise RuntimeError(msg)
        return "http://127.0.0.1:{1}".format(*self._listener.sockets[0].getsockname())

    @property
    def iam_endpoint(self) -> str:
        """Where to log in and to look projects up: at the same address."""
        return self.endpoint

    @property
    def metadata_endpoint(self) -> str:
        """Where a machine gets its keys: at the same address."""
        return self.endpoint

    async def start(self) -> None:
        """Listen on a free port."""
        if self._listener is not None:
            msg = f"the FakeIef is running already, at {self.endpoint}"
            raise RuntimeError(msg)
        self._gate = _Gate(self._handle, self._gate.opened if self._gate else 0)
        loop = asyncio.get_running_loop()
        self._listener = await loop.create_server(self._gate, "127.0.0.1", 0, backlog=1024)

    async def stop(self) -> None:
        """Close every connection, whatever it is doing; a stopped server may be started again."""
        listener, self._listener = self._listener, None
        if listener is not None and self._gate is not None:
            await _end(listener)
            await self._gate.close()
            await listener.wait_closed()

    def __enter__(self) -> Self:
        """Run in a thread of its own, for code that has no event loop or starts one itself."""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="FakeIef", daemon=True)
        self._thread.start()
        self._there(self.start())
        return self

    def __exit__(self, *_: object) -> None:
        assert self._loop is not None  # noqa: S101 - entered
        assert self._thread is not None  # noqa: S101 - likewise
        self._there(self.stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._loop = self._thread = None

    def _there(self, work: Coroutine[Any, Any, _T]) -> _T:
        """Have something done where the server runs."""
        assert self._loop is not None  # noqa: S101 - entered
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    def environment(self) -> dict[str, str]:
        """Give the official SDK's variables that lead to this server, its access key included."""
        region = self.region.replace("-", "_").upper()
        return {
            "HUAWEICLOUD_SDK_AK": self.access_key,
            "HUAWEICLOUD_SDK_SK": self.secret_key,
            "HUAWEICLOUD_SDK_PROJECT_ID": self.project_id,
            "HUAWEICLOUD_SDK_IAM_ENDPOINT": self.iam_endpoint,
            f"HUAWEICLOUD_SDK_REGION_IEF_{region}": self.endpoint,
        }

    def script(self, *faults: Fault | None) -> None:
        """Answer the next requests with these, one each, in the order in which they arrive.

        None is the normal answer.
        """
        self._script.extend(faults)

    def intercept(self, hook: Callable[[FakeRequest], Fault | None] | None) -> None:
        """Let a function decide on each request: a fault, or None for the normal answer.

        What it raises is logged by aiohttp and answered with a 500.
        """
        self._hook = hook

    # --- tokens and keys ---

    def expire_tokens(self) -> None:
        """End all tokens that are known so far, the given one included."""
        self._iam.expire_tokens()

    def forget_tokens(self) -> None:
        """Let all tokens that are known so far be unknown, the given one included."""
        self._iam.forget_tokens()

    def revoke_keys(self) -> None:
        """End all temporary keys that were given so far."""
        self._iam.revoke_keys()

    @property
    def locked_keys(self) -> frozenset[str]:
        """The access keys that more than five wrong signatures in a row have locked, for now."""
        return self._iam.locked_keys

    @property
    def wrong_signatures(self) -> Mapping[str, int]:
        """How many of the last signatures in a row were wrong, by access key."""
        return dict(self._iam.wrong_signatures)

    @_in_its_turn
    def forget_connections(self, how: Forgotten = "silent") -> None:
        """Let every connection that is open now be dead, as after a sleep, or behind a NAT.

        The client does not notice before it sends a request over one of them: that is never
        answered ("silent"), or the connection is reset or closed. The server does not see such a
        request. New connections are well.
        """
        if how not in get_args(Forgotten):
            msg = f"no way to forget a connection: {how!r}"
            raise ValueError(msg)
        self._forgotten = (self._gate.opened if self._gate else 0, how)

    # --- the fleet's changes ---

    @_in_its_turn
    def insert(
        self, number: int = 1, *, at: int | None = 0, deployment_id: str | None = None
    ) -> list[str]:
        """Put new pods, of one deployment or of drawn ones, at a place of the whole list.

        None, a negative place and one beyond the end mean the end. Gives their ids.
        """
        if deployment_id is not None and deployment_id not in self.deployment_ids:
            msg = f"the fleet has no deployment {deployment_id!r}"
            raise ValueError(msg)
        place = len(self._fleet) if at is None or at < 0 else at
        return self._named(self._fleet.insert(place, number, deployment_id))

    @_in_its_turn
    def delete(self, at: int, number: int = 1) -> list[str]:
        """Take neighbours away, as far as there are any; a negative place counts from the end.

        Gives their ids.
        """
        first = max(at + len(self._fleet), 0) if at < 0 else at
        return self._named(self._fleet.delete(range(len(self._fleet))[first : first + number]))

    @_in_its_turn
    def touch(self, identity: str) -> None:
        """Bring a pod to the head of the list; a ValueError says that there is no such pod."""
        self._fleet.touch(self.pod_ids().index(identity))

    @_in_its_turn
    def mark(self) -> None:
        """Let `survivors` start anew, from the present fleet."""
        self._fleet.mark()

    @_in_its_turn
    def pod_ids(self) -> tuple[str, ...]:
        """Give the ids of the present pods, in the server's order."""
        return tuple(self._named(self._fleet.numbers))

    @_in_its_turn
    def survivors(self) -> frozenset[str]:
        """Give the ids of the pods that have been there since the start, or the last `mark`.

        What ``hidden_rate`` hides is there, too.
        """
        return frozenset(self._named(self._fleet.survivors()))

    @_in_its_turn
    def hidden_ids(self) -> frozenset[str]:
        """Give the ids of the present pods that ``hidden_rate`` keeps out of every page."""
        return frozenset(self._named(filter(self._hidden.__getitem__, self._fleet.numbers)))

    def _named(self, numbers: Iterable[int]) -> list[str]:
        return [self._fleet.identities[number] for number in numbers]

    def statistics(self) -> FakeStatistics:
        """Say what has happened so far."""
        gate = self._gate
        return FakeStatistics(
            requests=self._seen,
            in_flight=self._in_flight,
            in_flight_peak=self._peak,
            connections=gate.opened if gate else 0,
            connections_open=len(gate.open) if gate else 0,
            faults=self._faulty,
            throttled=self._throttled,
        )

    # --- one request ---

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        number, transport = self._connection(request)
        last, how = self._forgotten
        if number <= last:
            return await _forget(transport, how)
        seen = self._note(request, await request.read())
        fault = self._draw(seen)
        self._in_flight += 1
        self._peak = max(self._peak, self._in_flight)
        try:
            return await self._deliver(request, seen, fault)
        finally:
            self._in_flight -= 1

    def _note(self, request: web.BaseRequest, body: bytes) -> FakeRequest:
        path, _, raw_query = request.raw_path.partition("?")
        headers: dict[str, str] = {}
        for name, value in request.headers.items():
            key = name.lower()
            headers[key] = f"{headers[key]}, {value}" if key in headers else value
        at = asyncio.get_running_loop().time()
        connection, _ = self._connection(request)
        seen = FakeRequest(request.method, path, raw_query, headers, at, connection, body)
        self._seen += 1
        if len(self.requests) >= _REMEMBERED_REQUESTS:
            del self.requests[: _REMEMBERED_REQUESTS // 2]
        self.requests.append(seen)
        return seen

    def _connection(self, request: web.BaseRequest) -> tuple[int, asyncio.Transport]:
        if self._gate is None or request.protocol not in self._gate.open:
            raise asyncio.CancelledError  # the client has left; nobody is there to answer
        return self._gate.open[request.protocol]

    def _draw(self, seen: FakeRequest) -> Fault:
        if self._script:
            fault: Fault | None = self._script.popleft()
        elif self._hook is not None:
            fault = self._hook(seen)
        else:
            fault = self._lottery.draw()
        self._faulty += fault is not None
        return fault or NORMAL

    async def _deliver(
        self, request: web.BaseRequest, seen: FakeRequest, fault: Fault
    ) -> web.StreamResponse:
        if fault.delay:
            await _pause(fault.delay)
        _, transport = self._connection(request)
        head, body = self._wire(seen, fault, keep_alive=request.keep_alive)
        if self._latency:  # a wire's, not a server's: what was done meanwhile is no part of it
            await asyncio.sleep(seen.at + self._latency - asyncio.get_running_loop().time())
        if fault.trickle == "head":
            await _trickle(transport, head + body, fault.interval)
        elif fault.trickle == "body":
            transport.write(head)
            await _trickle(transport, body, fault.interval)
        elif head or body:
            # Joined only where needed; an empty part would never leave the buffer (Python 3.12).
            transport.writelines([part for part in (head, body) if part])
        if fault.end == "reset":
            await _reset(transport, answered=bool(head or body))
        return _Written(reusable=request.keep_alive and fault.end == "open")

    def _wire(self, seen: FakeRequest, fault: Fault, *, keep_alive: bool) -> tuple[bytes, bytes]:
        if fault.literal is not None:
            return b"", fault.literal
        answer = fault.answer or self._respond(seen)
        if fault.change is not None:
            answer = fault.change(answer)
        request_id = f"{next(self._answers) * STRIDE & ID_MASK:032x}"
        head, body = answer.wire(request_id, self.clock(), keep_alive=keep_alive)
        kept = body if fault.keep >= 1 else body[: int(len(body) * fault.keep)]
        return fault.before + head, kept + fault.after

    def _respond(self, seen: FakeRequest) -> Answer:
        try:
            self._pass_gateway(seen)
            return self._answer(seen)
        except RefusedError as refusal:
            return refusal.answer

    def _pass_gateway(self, seen: FakeRequest) -> None:
        sizes = [len(name) + len(value) for name, value in seen.headers.items()]
        if len(seen.path) + len(seen.raw_query) > _LINE_LIMIT:
            raise RefusedError(414, shape="apigw")
        if max(sizes, default=0) > _LINE_LIMIT or sum(sizes) > _HEAD_LIMIT:
            raise RefusedError(HEADER_TOO_LARGE, shape="apigw")
        quota = self.quota if "/edgemgr/" in seen.path else None
        if quota is not None and not self._meter.admits(quota, self.clock()):
            self._throttled += 1
            raise RefusedError(429, quota.error_code, quota.text, shape="apigw")

    def _answer(self, seen: FakeRequest) -> Answer:
        _, *parts = seen.path.split("/")
        match [seen.method, *parts]:
            case ["GET", version, project_id, "edgemgr", kind] if (version, kind) in _LISTS:
                self._admit(seen, project_id)
                name = _LISTS[version, kind]
                return Answer(self._list_pods(seen) if name is None else self._list(seen, name))
            case ["POST", "v3", "auth", "tokens"]:
                return self._iam.issue_token(seen)
            case ["GET", "v3", "projects"]:
                return self._iam.list_projects(seen)
            case ["PUT", "meta-data", "latest", "api", "token"]:
                return self._iam.metadata_token(seen)
            case ["GET", "openstack", "latest", "securitykey"]:
                return self._iam.security_key(seen)
            case _:
                raise RefusedError(404, shape="apigw")

    def _admit(self, seen: FakeRequest, project_id: str) -> None:
        if self.token is not None:
            self._iam.admit(seen, project_id)
        if project_id != self.project_id:
            raise RefusedError(400)

    def _list_pods(self, seen: FakeRequest) -> bytes:
        pairs = parse_qsl(seen.raw_query, keep_blank_values=True)
        asked = [(name, value) for name, value in pairs if name in _IDS]
        if len(asked) != 1 or not asked[0][1]:
            message = "Exactly one of deployment_ids, deployment_id, node_id, group_id is needed"
            raise RefusedError(400, "IEF.100001", message)
        (name, value), query = asked[0], dict(pairs)
        kind, ids = _IDS[name], tuple(value.split(",") if name == "deployment_ids" else [value])
        self._check_known(kind, ids)
        offset = _whole(query.get("offset", "0"), 0, "IEF.100004", "offset")
        limit = _whole(query.get("limit", str(self._default_limit)), 1, "IEF.100005", "limit")
        size = self._capped(limit)
        for motion in self._motions:
            self._fleet.move(motion)
        rows = self._rows(kind, ids) if self._knows_instance(seen) else ()
        page = self._page(rows, offset, size)
        if self._odd.hidden_rate:
            page = [row for row in page if not self._hidden[row]]
        return self._fleet.page(page, self._counted(len(rows), len(page)))

    def _list(self, seen: FakeRequest, name: ListName) -> bytes:
        listing, query = self._lists.listings[name], seen.query
        usual = str(listing.usual or self._default_limit)
        offset = _whole(query.get("offset", "0"), 0, "IEF.100004", "offset")
        limit = _whole(query.get("limit", usual), 1, "IEF.100005", "limit", listing.most)
        size = self._capped(limit)
        for kind in ("node", "group"):
            if query.get(f"{kind}_id"):
                self._check_known(kind, (query[f"{kind}_id"],))
        rows = self._lists.select(name, query)
        if listing.by_instance and not self._knows_instance(seen):
            rows = ()
        if not query.get("sort"):
            rows = self._shuffled(rows)
        page = self._page(rows, offset, size)
        total = self._counted(len(rows), len(page))
        counted = {} if total is None else {"count": total}
        found = {listing.key: [*page]}
        return to_json(counted | found if listing.count_first else found | counted)

    def _knows_instance(self, seen: FakeRequest) -> bool:
        return self.instance_id in {None, seen.headers.get("ief-instance-id")}

    def _rows(self, kind: Kind, ids: tuple[str, ...]) -> Sequence[int]:
        odd = self._odd
        rows = self._fleet.matching(kind, ids, self._fleet.recall(self._chance))
        if odd.repeated_rate:
            rows = [row for row in rows for _ in range(1 + self._repeated[row])]
        return self._shuffled(rows)

    def _shuffled(self, rows: Sequence[_T]) -> Sequence[_T]:
        if self._odd.order not in {"shuffled", "ties"}:
            return rows
        drawn = self._chance.random
        tied = 3 if self._odd.order == "ties" else max(len(rows), 1)
        places = sorted(range(len(rows)), key=lambda place: place // tied + drawn())
        return [rows[place] for place in places]

    def _page(self, rows: Sequence[_T], offset: int, size: int) -> Sequence[_T]:
        odd = self._odd
        first = {"rows": offset, "pages": offset * size, "ignored": 0}[odd.offsets]
        if self._chance.random() < odd.cached_rate:
            first = 0
        page = rows[first:] if odd.limits == "ignored" else rows[first : first + size]
        return () if self._chance.random() < odd.empty_rate else page

    def _counted(self, total: int, shown: int) -> int | str | None:
        match self._odd.counts:
            case "true":
                return total
            case "none":
                return None
            case "page":
                return shown
            case int(number):
                return number
            case count_of:
                return count_of(total, self._chance)

    def _capped(self, limit: int) -> int:
        if self.page_cap is None or limit <= self.page_cap:
            return limit
        if self._over_cap == "refuse":
            raise RefusedError(400, "IEF.100005", "The limit is out of specification")
        return self.page_cap

    def _check_known(self, kind: Kind, ids: tuple[str, ...]) -> None:
        known = {"deployment": self.deployment_ids, "node": self.node_ids, "group": self.group_ids}
        if self._unknown_ids == "refuse" and not {*ids} <= {*known[kind]}:
            raise RefusedError(404, "IEF.100001", f"The {kind} doesn't exist")


class _Lottery:
    """Draws faults at random, but never more of them than their share of what was drawn."""

    def __init__(self, rate: float, faults: Sequence[Fault], seed: int) -> None:
        self._rate = rate
        self._faults = faults
        self._random = random.Random(seed)  # noqa: S311 - repeatable, and no secret
        self._credit = 0.0

    def draw(self) -> Fault | None:
        self._credit += self._rate
        # Half a chance once there is credit: the share is kept, the moment stays open.
        if self._credit < 1 or self._random.random() >= max(0.5, self._rate):
            return None
        self._credit -= 1
        return self._random.choice(self._faults)


def _mappings(pods: Iterable[object]) -> list[Mapping[str, Any]]:
    return [pod for pod in pods if isinstance(pod, Mapping)]


def _ids_of(pods: Iterable[Mapping[str, Any]], key: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(pod[key] for pod in pods if pod.get(key)))


def _whole(text: str, least: int, code: str, name: str, most: int | None = None) -> int:
    if (
        text.isascii()
        and text.isdecimal()
        and len(text) <= _LONGEST_NUMBER
        and least <= int(text) <= (most or int(text))
    ):
        return int(text)
    raise RefusedError(400, code, f"The {name} is out of specification")


async def _end(listener: asyncio.Server) -> None:
    loop = asyncio.get_running_loop()
    # A connection that has been accepted but not yet made when its listener closes would leak.
    with contextlib.suppress(NotImplementedError):
        for listening in listener.sockets:
            loop.remove_reader(listening.fileno())
    for _ in range(_TURNS_TO_ACCEPT):
        await asyncio.sleep(0)
    listener.close()


async def _pause(seconds: float) -> None:
    if math.isinf(seconds):
        await asyncio.Event().wait()  # ends with the connection
    await asyncio.sleep(seconds)


async def _forget(transport: asyncio.Transport, how: Forgotten) -> web.StreamResponse:
    if how == "silent":
        await _pause(math.inf)
    elif how == "reset":
        await _reset(transport, answered=False)
    return _Written(reusable=False)


async def _trickle(transport: asyncio.Transport, data: bytes, interval: float) -> None:
    for at in range(len(data)):
        transport.write(data[at : at + 1])
        await asyncio.sleep(interval)


async def _reset(transport: asyncio.Transport, *, answered: bool) -> None:
    while transport.get_write_buffer_size():  # noqa: ASYNC110 - nobody is told when it is empty
        await asyncio.sleep(0.001)
    if answered:  # a reset discards what the kernel hasn't delivered yet
        await asyncio.sleep(_DELIVERY)
    transport.get_extra_info("socket").setsockopt(
        socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
    )
    transport.abort()
