"""The server that users start: its life, changes of its fleet, requests, and what was counted.

`FakeIef` is longer than other classes because it is the whole public face of the fake, with a
docstring for each method. What an answer says is decided in `_gateway`, how it is sent in
`_connections`.
"""

import asyncio
import functools
import random
import threading
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from itertools import count
from typing import Any, Concatenate, Generic, Literal, Never, ParamSpec, Self, TypeVar, overload

import attrs
from aiohttp import web

from ief_async.testing._answers import FakeRequest
from ief_async.testing._connections import (
    AlreadySent,
    Connections,
    Forgotten,
    check_forgotten,
    close_listener,
    pause,
    send,
)
from ief_async.testing._faults import DEFAULT_MIX, Fault, FaultPlan
from ief_async.testing._fleet import Fleet
from ief_async.testing._gateway import Gateway
from ief_async.testing._iam import Iam
from ief_async.testing._lists import Lists
from ief_async.testing._motion import Motion
from ief_async.testing._pods import (
    ID_MASK,
    STRIDE,
    Ids,
    make_pods,
    mappings,
    nodes_by_deployment,
    uuid_of,
)
from ief_async.testing._quota import Quota
from ief_async.testing._settings import (
    Account,
    Expired,
    Metadata,
    Service,
    Settings,
    moved_argument,
)

_P = ParamSpec("_P")
_T = TypeVar("_T")

_REMEMBERED_REQUESTS = 100_000


@attrs.frozen
class FakeStatistics:
    """What the server counted since it was made.

    Example:
        from ief_async.testing import FakeIef, Quota

        async with FakeIef(quota=Quota(limit=60)) as fake:
            ...  # read the fleet
            assert fake.statistics().in_flight_peak <= 8
            assert fake.statistics().throttled == 0

    Attributes:
        requests: How many requests arrived.
        in_flight: How many requests have no complete answer yet.
        in_flight_peak: The most requests that ever were in flight at once.
        connections: How many connections were ever opened.
        connections_open: How many connections are open now.
        faults: How many requests were answered with a `Fault`.
        throttled: How many requests the `Quota` refused.
    """

    requests: int
    in_flight: int
    in_flight_peak: int
    connections: int
    connections_open: int
    faults: int
    throttled: int = 0


def _in_server_thread(
    method: Callable[Concatenate["FakeIef", _P], _T],
) -> Callable[Concatenate["FakeIef", _P], _T]:
    """Run a method in the server's own thread, if it has one: between two of its requests."""

    @functools.wraps(method)
    def called(fake: "FakeIef", /, *args: _P.args, **kwargs: _P.kwargs) -> _T:
        if fake._thread in {None, threading.current_thread()}:  # noqa: SLF001 - of this module
            return method(fake, *args, **kwargs)

        async def run() -> _T:
            return method(fake, *args, **kwargs)

        return fake._run(run())  # noqa: SLF001 - of this module

    return called


class _Setting(Generic[_T]):
    """An attribute of `FakeIef` that may be changed at any time; it is checked again then."""

    def __init__(self, part: Literal["account", "service"] | None = None) -> None:
        self._part = part

    def __set_name__(self, _: type, name: str) -> None:
        self._name = name

    @overload
    def __get__(self, fake: None, owner: type) -> Self: ...

    @overload
    def __get__(self, fake: "FakeIef", owner: type) -> _T: ...

    def __get__(self, fake: "FakeIef | None", owner: type) -> Self | _T:
        if fake is None:
            return self
        settings = fake._settings  # noqa: SLF001 - of this module
        value: _T = getattr(getattr(settings, self._part) if self._part else settings, self._name)
        return value

    def __set__(self, fake: "FakeIef", value: _T) -> None:
        settings = fake._settings  # noqa: SLF001 - of this module
        if self._part is None:
            setattr(settings, self._name, value)
        else:
            changed = attrs.evolve(getattr(settings, self._part), **{self._name: value})
            setattr(settings, self._part, changed)


class FakeIef:
    """A Huawei Cloud IEF with its IAM and metadata service, on a free port of ``127.0.0.1``.

    Example:
        from ief_async import IefSession, Token
        from ief_async.testing import FakeIef, Fault

        async with FakeIef(500, deployments=20, page_cap=50, latency=0.01) as fake:
            fake.script(Fault.throttle("0"), Fault.cut())  # for the next two requests
            token = Token(fake.token)
            async with IefSession(
                fake.project_id, credentials=token, endpoint=fake.endpoint
            ) as ief:
                pods = await ief.iter_pods(fake.deployment_ids).collect()
            assert len(pods) == 500
            assert fake.statistics().faults == 2

    ``async with`` runs the server in the present event loop. Plain ``with`` runs it in a thread of
    its own, for code that is no coroutine or calls `asyncio.run` itself.

    Everything follows from the seed: ids, names, drawn faults, motion. A request that meets a
    scripted fault (`script`) gets it. Otherwise the hook (`intercept`) decides, if there is one,
    and otherwise ``fault_rate``.

    Args:
        pods: How many pods the fleet has, or the pods themselves, which are served as they are. A
            given pod without ``deployment_id`` (``node_id``) belongs to every deployment (node and
            group), and an inserted pod is a copy of a given one with an id of its own.
        deployments: How many deployments there are; pod *i* belongs to number *i* modulo this.
        nodes: How many nodes have pods; pod *i* runs on number *i* modulo this.
        groups: How many groups there are; node *i* belongs to number *i* modulo this.
        instances: How many instances the list of instances has.
        empty_nodes: How many more nodes the list of nodes has, without pods.
        seed: The number from which everything follows.
        motion: What happens to the fleet before each list request, as one `Motion` or several.
        token: A value of ``X-Auth-Token`` that is always valid. With None, requests for lists
            need no authentication at all.
        latency: How many seconds pass from a request to its answer, at least.
        page_cap: The largest page, whatever ``limit`` a request asks for; None means no cap.
        quota: How many requests for lists the gateway lets pass; None means all.
        fault_rate: The share of requests that get a random fault. It is never exceeded.
        faults: The faults from which a random one is drawn.
        service: How the lists behave in all other respects.
        account: Users, passwords, keys and projects.
        moved: No other argument is accepted. One that version 0.1 had and that is now a field of
            `Service` or `Account` raises a TypeError that says so.

    Attributes:
        pods: The present pods in the server's order. Each one is made when it is read.
        requests: The requests so far; of very many, at least the last 50,000.
        token, latency, page_cap, quota: As the arguments; they may be changed at any time.
        instance_id, clock: As in `Service`; they may be changed at any time.
        project_id: As in `Account`.
        domain, user, user_id, password, passcode, access_key, secret_key, region, projects,
            token_lifetime, token_characters, keys_lifetime, metadata, expired: As in `Account`;
            they may be changed at any time.

    Raises:
        ValueError: There is no deployment, node or group, or another number is out of range.
        TypeError: An argument is unknown, or moved to `Service` or `Account`.
    """

    token: _Setting[str | None] = _Setting()
    latency: _Setting[float] = _Setting()
    page_cap: _Setting[int | None] = _Setting()
    quota: _Setting[Quota | None] = _Setting()
    instance_id: _Setting[str | None] = _Setting("service")
    clock: _Setting[Callable[[], float]] = _Setting("service")
    domain: _Setting[str] = _Setting("account")
    user: _Setting[str] = _Setting("account")
    user_id: _Setting[str] = _Setting("account")
    password: _Setting[str] = _Setting("account")
    passcode: _Setting[str | None] = _Setting("account")
    access_key: _Setting[str] = _Setting("account")
    secret_key: _Setting[str] = _Setting("account")
    region: _Setting[str] = _Setting("account")
    projects: _Setting[Sequence[Mapping[str, Any]]] = _Setting("account")
    token_lifetime: _Setting[float] = _Setting("account")
    token_characters: _Setting[int | None] = _Setting("account")
    keys_lifetime: _Setting[float] = _Setting("account")
    metadata: _Setting[Metadata] = _Setting("account")
    expired: _Setting[Expired] = _Setting("account")

    def __init__(
        self,
        pods: int | Sequence[Mapping[str, Any]] = 100,
        *,
        deployments: int = 10,
        nodes: int = 5,
        groups: int = 2,
        instances: int = 1,
        empty_nodes: int = 0,
        seed: int = 0,
        motion: Motion | Sequence[Motion] = (),
        token: str | None = "fake-token",  # noqa: S107 - opens nothing but this fake
        latency: float = 0.0,
        page_cap: int | None = None,
        quota: Quota | None = None,
        fault_rate: float = 0.0,
        faults: Sequence[Fault] = DEFAULT_MIX,
        service: Service = Service(),
        account: Account = Account(),
        **moved: Never,
    ) -> None:
        for name in moved:
            raise TypeError(_unknown_argument(name))
        settings = self._settings = Settings(
            account=account,
            service=service,
            token=token,
            page_cap=page_cap,
            quota=quota,
            latency=latency,
        )
        source, ids = make_pods(
            pods, seed, account.project_id, _make_ids(seed, deployments, nodes, groups)
        )
        self._ids = ids
        self._fleet = Fleet(
            source,
            reverse=service.order == "reversed",
            lag=service.lag,
            chance=random.Random(f"motion {seed}"),  # noqa: S311 - repeatable, and no secret
        )
        self.pods: Sequence[dict[str, Any]] = self._fleet
        self._iam = Iam(settings, seed)
        self._lists = Lists(
            settings,
            ids,
            self._fleet,
            seed,
            nodes_of=None if isinstance(pods, int) else nodes_by_deployment(mappings(pods)),
            empty_nodes=empty_nodes,
            instances=instances,
        )
        self._gateway = Gateway(
            settings,
            ids,
            self._fleet,
            lists=self._lists,
            iam=self._iam,
            motions=(motion,) if isinstance(motion, Motion) else tuple(motion),
            seed=seed,
        )
        self.requests: list[FakeRequest] = []
        self._faults = FaultPlan(fault_rate, faults, seed)
        self._request_numbers = count(1)
        self._connections: Connections | None = None
        self._listener: asyncio.Server | None = None
        self._loop: asyncio.AbstractEventLoop | None = None  # its own, if it has a thread
        self._thread: threading.Thread | None = None
        self._arrived = self._in_flight = self._in_flight_peak = 0

    # --- what there is ---

    @property
    def project_id(self) -> str:
        """The only project that has a fleet."""
        return self._settings.account.project_id

    @property
    def deployment_ids(self) -> tuple[str, ...]:
        """The ids of the deployments that have pods."""
        return self._ids.deployment

    @property
    def node_ids(self) -> tuple[str, ...]:
        """The ids of the nodes that have pods."""
        return self._ids.node

    @property
    def group_ids(self) -> tuple[str, ...]:
        """The ids of the groups."""
        return self._ids.group

    @property
    def deployments(self) -> Sequence[dict[str, Any]]:
        """The present deployments in the server's order; each one is made when it is read."""
        return self._lists.by_path["v3/deployments"].documents

    @property
    def nodes(self) -> Sequence[dict[str, Any]]:
        """The present nodes, as `deployments`; ``deployment_num`` is the number of their pods."""
        return self._lists.by_path["v2/nodes"].documents

    @property
    def groups(self) -> Sequence[dict[str, Any]]:
        """The present groups, as `deployments`."""
        return self._lists.by_path["v2/groups"].documents

    @property
    def instances(self) -> Sequence[dict[str, Any]]:
        """The instances, as `deployments`."""
        return self._lists.by_path["v2/ief-instances"].documents

    # --- start and stop ---

    @property
    def endpoint(self) -> str:
        """The base URL of the service, without a slash at the end.

        Raises:
            RuntimeError: The server is not running.
        """
        if self._listener is None:
            msg = "the FakeIef isn't running: use `async with fake:` or `await fake.start()`"
            raise RuntimeError(msg)
        return self._settings.endpoint

    @property
    def iam_endpoint(self) -> str:
        """The base URL of IAM; it is the same as `endpoint`."""
        return self.endpoint

    @property
    def metadata_endpoint(self) -> str:
        """The base URL of the metadata service; it is the same as `endpoint`."""
        return self.endpoint

    async def start(self) -> None:
        """Listen on a free port.

        Raises:
            RuntimeError: The server is running already.
        """
        if self._listener is not None:
            msg = f"the FakeIef is running already, at {self.endpoint}"
            raise RuntimeError(msg)
        opened = self._connections.opened if self._connections else 0
        self._connections = Connections(self._handle, opened)
        loop = asyncio.get_running_loop()
        self._listener = await loop.create_server(self._connections, "127.0.0.1", 0, backlog=1024)
        _, port = self._listener.sockets[0].getsockname()
        self._settings.endpoint = f"http://127.0.0.1:{port}"

    async def stop(self) -> None:
        """Close every connection, whatever it is doing. A stopped server may be started again."""
        listener, self._listener = self._listener, None
        if listener is not None and self._connections is not None:
            await close_listener(listener)
            await self._connections.close()
            await listener.wait_closed()

    def __enter__(self) -> Self:
        """Run in a thread of its own, for code that has no event loop or starts one itself."""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="FakeIef", daemon=True)
        self._thread.start()
        self._run(self.start())
        return self

    def __exit__(self, *_: object) -> None:
        assert self._loop is not None  # noqa: S101 - entered
        assert self._thread is not None  # noqa: S101 - likewise
        self._run(self.stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._loop = self._thread = None

    def _run(self, work: Coroutine[Any, Any, _T]) -> _T:
        """Run a coroutine in the server's own thread, and wait for its result."""
        assert self._loop is not None  # noqa: S101 - entered
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    def environment(self) -> dict[str, str]:
        """Return the official SDK's environment variables for this server and its access key.

        Raises:
            RuntimeError: The server is not running.
        """
        region = self.region.replace("-", "_").upper()
        return {
            "HUAWEICLOUD_SDK_AK": self.access_key,
            "HUAWEICLOUD_SDK_SK": self.secret_key,
            "HUAWEICLOUD_SDK_PROJECT_ID": self.project_id,
            "HUAWEICLOUD_SDK_IAM_ENDPOINT": self.iam_endpoint,
            f"HUAWEICLOUD_SDK_REGION_IEF_{region}": self.endpoint,
        }

    # --- faults ---

    def script(self, *faults: Fault | None) -> None:
        """Answer the next requests with these faults, one each, in the order of arrival.

        Args:
            faults: The faults; None is the normal answer.
        """
        self._faults.script.extend(faults)

    def intercept(self, hook: Callable[[FakeRequest], Fault | None] | None) -> None:
        """Let a function decide on each request.

        Args:
            hook: Returns a fault, or None for the normal answer. If it raises, aiohttp logs the
                exception and answers 500. None removes the present hook.
        """
        self._faults.hook = hook

    @_in_server_thread
    def forget_connections(self, how: Forgotten = "silent") -> None:
        """Let every open connection be dead, as after a sleep or behind a NAT.

        The client does not notice before it sends a request over one of them. The server neither
        counts nor answers that request. New connections work.

        Args:
            how: The request is never answered (``"silent"``), or its connection is reset
                (``"reset"``) or closed (``"closed"``).

        Raises:
            ValueError: ``how`` is another value.
        """
        check_forgotten(how)
        if self._connections is not None:
            self._connections.forget_all(how)

    # --- tokens and keys ---

    def expire_tokens(self) -> None:
        """Let all tokens that are known so far expire, the constructor's included."""
        self._iam.expire_tokens()

    def forget_tokens(self) -> None:
        """Refuse all tokens that are known so far as unknown, the constructor's included."""
        self._iam.forget_tokens()

    def revoke_keys(self) -> None:
        """Let all temporary keys that were given so far expire."""
        self._iam.revoke_keys()

    @property
    def locked_keys(self) -> frozenset[str]:
        """The access keys that are locked now, after more than five wrong signatures in a row."""
        return self._iam.locked_keys

    @property
    def wrong_signatures(self) -> Mapping[str, int]:
        """How many of the last signatures in a row were wrong, by access key."""
        return dict(self._iam.wrong_signatures)

    # --- changes of the fleet ---

    @_in_server_thread
    def insert(
        self, number: int = 1, *, at: int | None = 0, deployment_id: str | None = None
    ) -> list[str]:
        """Insert new pods at one place of the whole list.

        Args:
            number: How many.
            at: The place; None, a negative place and one beyond the end mean the end.
            deployment_id: The deployment of all of them; by default each one's is drawn.

        Returns:
            Their ids.

        Raises:
            ValueError: The fleet has no such deployment.
        """
        if deployment_id is not None and deployment_id not in self.deployment_ids:
            msg = f"deployment_id must be one of the fleet's, got {deployment_id!r}"
            raise ValueError(msg)
        place = len(self._fleet) if at is None or at < 0 else at
        return self._ids_of(self._fleet.insert(place, number, deployment_id))

    @_in_server_thread
    def delete(self, at: int, number: int = 1) -> list[str]:
        """Delete neighbours, as far as there are any.

        Args:
            at: The place of the first one; a negative place counts from the end.
            number: How many.

        Returns:
            Their ids.
        """
        first = max(at + len(self._fleet), 0) if at < 0 else at
        return self._ids_of(self._fleet.delete(range(len(self._fleet))[first : first + number]))

    @_in_server_thread
    def touch(self, identity: str) -> None:
        """Move a pod to the head of the list.

        Args:
            identity: The id of the pod.

        Raises:
            ValueError: There is no such pod.
        """
        self._fleet.touch(self.pod_ids().index(identity))

    @_in_server_thread
    def mark(self) -> None:
        """Let `survivors` start from the present fleet."""
        self._fleet.mark()

    @_in_server_thread
    def pod_ids(self) -> tuple[str, ...]:
        """Return the ids of the present pods, in the server's order."""
        return tuple(self._ids_of(self._fleet.numbers))

    @_in_server_thread
    def survivors(self) -> frozenset[str]:
        """Return the ids of the pods that have been there since the start, or since `mark`.

        Pods that ``hidden_rate`` hides are among them.
        """
        return frozenset(self._ids_of(self._fleet.survivors()))

    @_in_server_thread
    def hidden_ids(self) -> frozenset[str]:
        """Return the ids of the present pods that ``hidden_rate`` keeps out of every page."""
        return frozenset(self._ids_of(filter(self._gateway.is_hidden, self._fleet.numbers)))

    def _ids_of(self, numbers: Iterable[int]) -> list[str]:
        return [self._fleet.id_of(number) for number in numbers]

    # --- requests ---

    def statistics(self) -> FakeStatistics:
        """Return what the server counted so far."""
        connections = self._connections
        return FakeStatistics(
            requests=self._arrived,
            in_flight=self._in_flight,
            in_flight_peak=self._in_flight_peak,
            connections=connections.opened if connections else 0,
            connections_open=len(connections.open) if connections else 0,
            faults=self._faults.used,
            throttled=self._gateway.throttled,
        )

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        assert self._connections is not None  # noqa: S101 - the request came over one of them
        connections = self._connections
        number, transport = connections.of(request)
        if connections.is_forgotten(number):
            return await connections.end_forgotten(transport)
        seen = self._record(request, number, await request.read())
        fault = self._faults.next(seen)
        self._in_flight += 1
        self._in_flight_peak = max(self._in_flight_peak, self._in_flight)
        try:
            if fault.delay:
                await pause(fault.delay)
            _, transport = connections.of(request)
            head, body = self._encode(seen, fault, keep_alive=request.keep_alive)
            if self.latency:  # of the wire: the time that the answer took is part of it
                await asyncio.sleep(seen.at + self.latency - asyncio.get_running_loop().time())
            await send(transport, head, body, fault)
            return AlreadySent(reusable=request.keep_alive and fault.end == "open")
        finally:
            self._in_flight -= 1

    def _record(self, request: web.BaseRequest, connection: int, body: bytes) -> FakeRequest:
        path, _, raw_query = request.raw_path.partition("?")
        headers: dict[str, str] = {}
        for name, value in request.headers.items():
            key = name.lower()
            headers[key] = f"{headers[key]}, {value}" if key in headers else value
        at = asyncio.get_running_loop().time()
        seen = FakeRequest(request.method, path, raw_query, headers, at, connection, body)
        self._arrived += 1
        if len(self.requests) >= _REMEMBERED_REQUESTS:
            del self.requests[: _REMEMBERED_REQUESTS // 2]
        self.requests.append(seen)
        return seen

    def _encode(self, seen: FakeRequest, fault: Fault, *, keep_alive: bool) -> tuple[bytes, bytes]:
        """Return the bytes of head and body that a fault leaves of an answer."""
        if fault.literal is not None:
            return b"", fault.literal
        answer = fault.answer or self._gateway.respond(seen)
        if fault.change is not None:
            answer = fault.change(answer)
        request_id = f"{next(self._request_numbers) * STRIDE & ID_MASK:032x}"
        head, body = answer.encode(request_id, self.clock(), keep_alive=keep_alive)
        kept = body if fault.keep >= 1 else body[: int(len(body) * fault.keep)]
        return fault.before + head, kept + fault.after


def _make_ids(seed: int, deployments: int, nodes: int, groups: int) -> Ids:
    sizes = {"deployment": deployments, "node": nodes, "group": groups}
    for kind, size in sizes.items():
        if size < 1:
            msg = f"{kind}s must be at least 1, got {size}"
            raise ValueError(msg)
    return Ids(
        *(tuple(uuid_of(seed, kind, n) for n in range(size)) for kind, size in sizes.items())
    )


def _unknown_argument(name: str) -> str:
    owner = moved_argument(name)
    if owner is None:
        return f"FakeIef() has no argument {name!r}"
    part = owner.lower()
    return (
        f"FakeIef() has no argument {name!r}: it is now a field of {owner}. "
        f"Write FakeIef({part}={owner}({name}=…))"
    )
