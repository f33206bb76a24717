"""`IefSession`: the face of the library, and the table of the lists that it reads."""

import asyncio
import re
from collections.abc import AsyncIterable, Collection, Iterable
from types import TracebackType
from typing import Any, Self, TypedDict, TypeVar, Unpack, get_args, overload
from urllib.parse import quote, urlsplit

import attrs

from ief_async._batches import Batcher, Query, Selector, check_id, url_bytes
from ief_async._checkpoint import ScanCheckpoint, fingerprint
from ief_async._credentials import Token
from ief_async._errors import CheckpointError, ConfigurationError, PayloadError
from ief_async._models import Pod
from ief_async._pacing import (
    Budget,
    Clock,
    Limits,
    Pacer,
    RetryPolicy,
    Tally,
    Timeouts,
    check_number,
)
from ief_async._paging import OnDrift, PageRequest, requests_for
from ief_async._stream import OnError, Page, Scan, Stream, page_of, structure_some
from ief_async._structure import Rows, SchemaWatch, Structure, split, structure_of
from ief_async._transport import Answer, Connections, HttpSession, Transport
from ief_async._window import ScanPlan

T = TypeVar("T")

Ids = Iterable[str] | AsyncIterable[str]

# The regions with a documented API host. Others may exist: endpoint= takes any.
REGIONS = ("cn-north-1", "cn-north-4", "cn-east-2", "cn-east-3", "cn-south-1")
LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
MOST_ROWS = 10_000  # no list of the service is known to give more than 1,000 a page
MOST_IN_FLIGHT = 1_000
ID_CHARACTERS = 64
MOST_OFFSET = 10**10 - 1


@attrs.frozen
class _List:
    """A list of the API: where it is, the key of its rows, and the model that is documented."""

    path: str
    key: str
    model: type


PODS = _List("/v3/{project_id}/edgemgr/pods", "pods", Pod)


@attrs.frozen(kw_only=True)
class PodCount:
    """How many pods there are, without reading them.

    Attributes:
        total: the sum of all counts.
        counts: the count of each query (of each batch of ids), in the order of the ids.
        requests: how many requests a scan with the same arguments takes if nothing changes.
    """

    total: int
    counts: tuple[int, ...]
    requests: int


@attrs.frozen(kw_only=True)
class SessionStatistics:
    """What a session has done so far, the sessions derived from it included.

    Attributes:
        requests: requests sent, repeats included.
        retries: requests that were sent again.
        throttles: answers with status 429.
        in_flight: requests that are running now.
    """

    requests: int
    retries: int
    throttles: int
    in_flight: int


class Options(TypedDict, total=False):
    """What `IefSession.with_options` takes."""

    project_id: str
    instance_id: str | None
    retry: RetryPolicy
    limits: Limits
    timeout: Timeouts


class IefSession:
    """An async session with the IEF service of one project: the way to `iter_pods`.

    Use it with ``async with``, or await `aclose`. It belongs to the event loop of its first use.
    Retries, time-outs and limits hold for all that is done with it, all its streams together.

    Args:
        project_id: the id of the project whose fleet it is.
        credentials: how requests are authenticated, such as ``Token("…")``.
        region: such as ``"cn-north-4"``; gives the endpoint of a region that is known.
        endpoint: ``https://host[:port]`` instead of `region`; plain http only on loopback.
        instance_id: the platinum (enterprise) instance to ask. Without it the professional edition
            answers: a list of another edition's pods is then empty, not refused.
        http: an `aiohttp.ClientSession` to borrow. It is never closed, and its headers, cookies,
            proxies and TLS settings are its owner's; its pool size caps `Limits.concurrency`.
        retry: how often and how patiently a request is repeated.
        limits: what the session allows itself.
        timeout: how long one attempt may take.

    Raises:
        ConfigurationError: an argument can't work; its text names the argument and what it takes.
    """

    def __init__(
        self,
        project_id: str | None = None,
        *,
        credentials: Token,
        region: str | None = None,
        endpoint: str | None = None,
        instance_id: str | None = None,
        http: HttpSession | None = None,
        retry: RetryPolicy = RetryPolicy(),
        limits: Limits = Limits(),
        timeout: Timeouts = Timeouts(),
        _clock: Clock = Clock(),
    ) -> None:
        if not isinstance(credentials, Token):
            given = type(credentials).__name__
            del credentials  # it may be the token itself, which no traceback is to show
            message = f"credentials takes Token, but was given {given}: write Token(...)"
            raise ConfigurationError(message)
        _check_policies(retry, limits, timeout)
        self._project_id = _checked("project_id", project_id)
        self._owner = True
        self._tally = Tally()
        connections = Connections(http)
        self._transport = Transport(
            endpoint=_endpoint(region, endpoint),
            credentials=credentials,
            instance_id=_checked("instance_id", instance_id) if instance_id else None,
            connections=connections,
            pacer=Pacer(
                limits=_narrowed(limits, connections),
                budget=Budget(retry.budget),
                clock=_clock,
                tally=self._tally,
            ),
            clock=_clock,
            retry=retry,
            limits=limits,
            timeouts=timeout,
        )

    def with_options(self, **overrides: Unpack[Options]) -> "IefSession":
        """Return a session with other options that shares whatever is not overridden.

        Connections, credentials, statistics and the retry budget are always shared; other `limits`
        count on their own. Only the session that it came from closes the connections.
        """
        unknown = sorted(overrides.keys() - Options.__annotations__.keys())
        if unknown:
            takes = ", ".join(Options.__annotations__)
            message = f"with_options takes {takes}, but was given {', '.join(unknown)}"
            raise ConfigurationError(message)
        old = self._transport
        retry = overrides.get("retry", old.retry)
        limits = overrides.get("limits", old.limits)
        timeout = overrides.get("timeout", old.timeouts)
        instance_id = overrides.get("instance_id", old.instance_id)
        _check_policies(retry, limits, timeout)
        other = object.__new__(type(self))
        other._owner = False
        other._tally = self._tally
        other._project_id = _checked("project_id", overrides.get("project_id", self._project_id))
        pacer = old.pacer
        if "limits" in overrides:
            pacer = Pacer(
                limits=_narrowed(limits, old.connections),
                budget=pacer.budget,
                clock=old.clock,
                tally=self._tally,
            )
        other._transport = attrs.evolve(
            old,
            instance_id=_checked("instance_id", instance_id) if instance_id else None,
            pacer=pacer,
            retry=retry,
            limits=limits,
            timeouts=timeout,
        )
        return other

    # -- pods ----------------------------------------------------------------------------------

    @overload
    async def list_pods(
        self,
        *,
        deployment_ids: Iterable[str] | None = None,
        deployment_id: str | None = None,
        node_id: str | None = None,
        group_id: str | None = None,
        plugin_instance_name: str | None = None,
        limit: int | None = None,
        offset: int = 0,
    ) -> Page[Pod]: ...
    @overload
    async def list_pods(
        self,
        *,
        deployment_ids: Iterable[str] | None = None,
        deployment_id: str | None = None,
        node_id: str | None = None,
        group_id: str | None = None,
        plugin_instance_name: str | None = None,
        limit: int | None = None,
        offset: int = 0,
        model: type[T],
    ) -> Page[T]: ...
    async def list_pods(
        self,
        *,
        deployment_ids: Iterable[str] | None = None,
        deployment_id: str | None = None,
        node_id: str | None = None,
        group_id: str | None = None,
        plugin_instance_name: str | None = None,
        limit: int | None = None,
        offset: int = 0,
        model: type[Any] = Pod,
    ) -> Page[Any]:
        """Make exactly one call of the documented API: ``GET /v3/{project_id}/edgemgr/pods``.

        Exactly one of the four ids selects the pods. Without `limit` the server chooses how many to
        give, and nobody knows how many it does; a page may be shorter than `limit`, and only its
        `count` says how many there are. For all of them use `iter_pods`.

        Raises:
            ConfigurationError: not exactly one id, or an argument that can't work.
            IefError: what came of the call after all attempts.
        """
        structure = structure_of(model)
        query = _one_query(
            deployment_ids=deployment_ids,
            deployment_id=deployment_id,
            node_id=node_id,
            group_id=group_id,
        )
        check_number("offset", offset, most=MOST_OFFSET, whole=True)
        target = f"{self._path(PODS)}?{query.text}"
        if limit is not None:
            check_number("limit", limit, least=1, most=MOST_ROWS, whole=True)
            target += f"&limit={limit}"
        target += f"&offset={offset}"
        if plugin_instance_name is not None:
            _check_kind("plugin_instance_name", plugin_instance_name, str)
            target += f"&plugin_instance_name={quote(plugin_instance_name, safe='')}"
        answer = await self._transport.get(target, _read_pods)
        items: list[Any] = []
        while rest := range(len(items), len(answer.value.raw)):
            await asyncio.sleep(0)  # between chunks the event loop has its turn
            items += structure_some(structure, answer, rest, key=PODS.key)
        return page_of(answer, items, offset=offset, limit=limit)

    @overload
    def iter_pods(
        self,
        deployment_ids: Ids | None = None,
        *,
        node_ids: Ids | None = None,
        group_ids: Ids | None = None,
        page_size: int = 100,
        batch_size: int = 100,
        concurrency: int = 8,
        ordered: bool = True,
        on_error: OnError = "raise",
        on_drift: OnDrift = "repair",
        max_items: int | None = None,
        deadline: float | None = None,
        resume_from: ScanCheckpoint | str | bytes | None = None,
    ) -> Stream[Pod]: ...
    @overload
    def iter_pods(
        self,
        deployment_ids: Ids | None = None,
        *,
        node_ids: Ids | None = None,
        group_ids: Ids | None = None,
        model: type[T],
        page_size: int = 100,
        batch_size: int = 100,
        concurrency: int = 8,
        ordered: bool = True,
        on_error: OnError = "raise",
        on_drift: OnDrift = "repair",
        max_items: int | None = None,
        deadline: float | None = None,
        resume_from: ScanCheckpoint | str | bytes | None = None,
    ) -> Stream[T]: ...
    def iter_pods(
        self,
        deployment_ids: Ids | None = None,
        *,
        node_ids: Ids | None = None,
        group_ids: Ids | None = None,
        model: type[Any] = Pod,
        page_size: int = 100,
        batch_size: int = 100,
        concurrency: int = 8,
        ordered: bool = True,
        on_error: OnError = "raise",
        on_drift: OnDrift = "repair",
        max_items: int | None = None,
        deadline: float | None = None,
        resume_from: ScanCheckpoint | str | bytes | None = None,
    ) -> Stream[Any]:
        """Return a `Stream` of every pod of these deployments, or of these nodes or groups.

        Pages are fetched concurrently, in bounded memory, each pod once. See `Stream` for what is
        promised, and what is not.

        Args:
            deployment_ids: any iterable or async iterable of ids, read as the scan needs them; a
                batch is asked for when it is full, or the ids are at their end. Ids given twice are
                asked for once. A collection is copied now. No ids, no request.
            node_ids: instead: one query for each node, as the API has it.
            group_ids: instead: one query for each node group (platinum edition). A pod whose node
                is in two groups comes once for each.
            model: an attrs class. Only its fields are decoded, so a few fields cost little.
            page_size: rows asked for at a time. A server that gives fewer costs requests, not rows.
                Rows are structured in chunks, but the ids of a page are read at once: the event
                loop waits about 2 ms for each MB of it.
            batch_size: deployment ids per query; a URL never exceeds 4,000 bytes.
            concurrency: requests of this stream in flight at most; the session's `Limits` hold too.
            ordered: whether batches come in the order of their ids, or as they are ready.
            on_error: what a failed batch leads to. "raise": it ends the stream. "defer": all other
                batches are delivered, then `PartialScanError` is raised. "collect": they stand in
                ``report.failures``, and nothing is raised. Whatever would fail every batch, such as
                an `AuthenticationError`, is raised at once.
            on_drift: what is done about a list that moves while it is read. "repair": pages are
                read again, within bounds, until every pod that was there throughout has come; where
                that can't be promised the report says so, and a warning is logged. "raise": the
                same, then the batch fails with `DriftError`. "report": nothing is read again.
                "ignore": pages do not overlap, no ids are kept, and rows may be lost or repeated.
            max_items: deliver so many at most; no page is asked for that they can't need.
            deadline: seconds that the whole scan may take, from the first item asked for.
            resume_from: the checkpoint of an earlier scan with the same ids, `page_size` and
                `batch_size`: an object or its JSON. What it holds as done is not read again.

        Raises:
            ConfigurationError: an argument that can't work; nothing was sent.
            CheckpointError: `resume_from` is damaged, newer, or of another scan; if that shows in
                the ids alone, the stream raises it before the batch is asked for.
        """
        structure = structure_of(model)
        selection = _selected(deployment_ids, node_ids, group_ids)
        batcher = self._batcher(selection[0], batch_size, page_size)
        check_number("concurrency", concurrency, least=1, most=MOST_IN_FLIGHT, whole=True)
        _check_kind("ordered", ordered, bool)
        _check_choice("on_error", on_error, OnError)
        _check_choice("on_drift", on_drift, OnDrift)
        if max_items is not None:
            check_number("max_items", max_items, least=1, whole=True)
        if deadline is not None:
            check_number("deadline", deadline, more=True)
        asked = fingerprint(
            self._project_id, self._transport.instance_id, selection[0], page_size, batch_size
        )
        if resume_from is not None:
            batcher = attrs.evolve(batcher, resume=_resumed(resume_from, asked))
        plan = ScanPlan(
            concurrency=concurrency,
            ordered=ordered,
            limit=page_size,
            on_drift=on_drift,
            max_items=max_items,
        )
        scan = self._scan(
            selection[1],
            batcher,
            plan,
            structure,
            deadline=deadline,
            on_error=on_error,
            fingerprint=asked,
        )
        return Stream(scan)

    async def count_pods(
        self,
        deployment_ids: Ids | None = None,
        *,
        node_ids: Ids | None = None,
        group_ids: Ids | None = None,
        page_size: int = 100,
        batch_size: int = 100,
        concurrency: int = 8,
    ) -> PodCount:
        """Count pods by one request of one row for each batch; arguments as for `iter_pods`.

        Raises:
            PayloadError: the server gives no count.
        """
        selection = _selected(deployment_ids, node_ids, group_ids)
        batcher = self._batcher(selection[0], batch_size, page_size)
        check_number("concurrency", concurrency, least=1, most=MOST_IN_FLIGHT, whole=True)
        plan = ScanPlan(concurrency=concurrency, ordered=True, limit=1, heads_only=True)
        scan = self._scan(selection[1], batcher, plan, structure_of(Pod))
        try:
            await scan.next_page()  # heads hold no page to deliver: this returns at the end
        finally:
            await scan.aclose()
        counts = [report.count for report in plan.reports()]
        known = tuple(count for count in counts if count is not None)
        if len(known) < len(counts):
            message = "the server gives no count for this list: iter_pods reads it all the same"
            raise PayloadError(message, path="count")
        requests = sum(requests_for(count, page_size) for count in known)
        return PodCount(total=sum(known), counts=known, requests=requests)

    # -- the session itself --------------------------------------------------------------------

    def statistics(self) -> SessionStatistics:
        """Return the figures of the session so far."""
        return SessionStatistics(**attrs.asdict(self._tally))

    async def aclose(self) -> None:
        """Close the connections, unless they are borrowed or another session's. Streams end."""
        if self._owner:
            await self._transport.connections.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        transport = getattr(self, "_transport", None)  # a traceback may show one that is half made
        where = f"project {self._project_id} at {transport.endpoint}" if transport else "not made"
        return f"<IefSession: {where}>"

    def _path(self, endpoint: _List) -> str:
        return endpoint.path.format(project_id=self._project_id)

    def _batcher(self, selector: Selector, batch_size: int, page_size: int) -> Batcher:
        check_number("page_size", page_size, least=1, most=MOST_ROWS, whole=True)
        check_number("batch_size", batch_size, least=1, most=MOST_IN_FLIGHT, whole=True)
        return Batcher(
            selector=selector,
            size=batch_size if selector == "deployment_ids" else 1,
            fixed_bytes=url_bytes(self._path(PODS), selector, page_size),
        )

    def _scan(
        self,
        ids: Iterable[object] | AsyncIterable[object],
        batcher: Batcher,
        plan: ScanPlan,
        structure: Structure[T],
        *,
        deadline: float | None = None,
        on_error: OnError = "raise",
        fingerprint: int = 0,
    ) -> Scan[T]:
        return Scan(
            ids=ids,
            batcher=batcher,
            plan=plan,
            fetch=self._fetch_pods,
            structure=structure,
            watch=SchemaWatch(PODS.model),
            key=PODS.key,
            clock=self._transport.clock,
            deadline=deadline,
            on_error=on_error,
            fingerprint=fingerprint,
        )

    async def _fetch_pods(
        self, request: PageRequest, deadline: float, lane: object
    ) -> Answer[Rows]:
        target = (
            f"{self._path(PODS)}?{request.query.text}&limit={request.limit}&offset={request.offset}"
        )
        return await self._transport.get(target, _read_pods, deadline=deadline, lane=lane)


def _read_pods(body: bytes) -> Rows:
    return split(body, key=PODS.key)


# ---- what may be given -------------------------------------------------------------------------


def _check_kind(name: str, value: object, kind: type) -> None:
    if not isinstance(value, kind):
        message = f"{name} takes {kind.__name__}, but was given {type(value).__name__}"
        raise ConfigurationError(message)


def _check_choice(name: str, value: object, choices: Any) -> None:
    if not isinstance(value, str) or value not in get_args(choices):
        known = ", ".join(map(repr, get_args(choices)))
        message = f"{name} takes one of {known}, but was given {value!r:.80}"
        raise ConfigurationError(message)


def _resumed(given: object, asked: int) -> ScanCheckpoint:
    """Return the checkpoint that is given, if it is of a scan that asks for the same."""
    if isinstance(given, str | bytes):
        given = ScanCheckpoint.from_json(given)
    if not isinstance(given, ScanCheckpoint):
        message = (
            "resume_from takes a ScanCheckpoint or what its to_json() gave, but was given "
            f"{type(given).__name__}"
        )
        raise ConfigurationError(message)
    if given.scan != asked:
        message = (
            "the checkpoint is of another scan: resume with the same project, instance, kind of "
            "ids, page_size and batch_size"
        )
        raise CheckpointError(message)
    return given


def _check_policies(retry: object, limits: object, timeout: object) -> None:
    _check_kind("retry", retry, RetryPolicy)
    _check_kind("limits", limits, Limits)
    _check_kind("timeout", timeout, Timeouts)


def _checked(name: str, value: object) -> str:
    """Return an id that goes into a path or a header, or refuse what would change either."""
    if isinstance(value, str) and re.fullmatch(r"[0-9A-Za-z_-]{1,64}", value):
        return value
    # what is longer than an id may be a token in the wrong place
    shown = repr(value) if len(str(value)) <= ID_CHARACTERS else f"{len(str(value))} characters"
    message = f"{name} takes 1 to 64 letters, digits, - and _, but was given {shown}"
    raise ConfigurationError(message)


def _narrowed(limits: Limits, connections: Connections) -> Limits:
    return attrs.evolve(limits, concurrency=connections.places(limits.concurrency))


def _endpoint(region: str | None, endpoint: str | None) -> str:
    """Return ``scheme://host[:port]`` without a slash at its end."""
    if endpoint is None:
        if region in REGIONS:
            return f"https://ief.{region}.myhuaweicloud.com"
        known = ", ".join(REGIONS)
        message = (
            f"region takes one of {known}, but was given {region!r:.80}; for any other give "
            "endpoint='https://…' with the API host of your region"
        )
        raise ConfigurationError(message)
    try:
        parts = urlsplit(endpoint)
        host, port = parts.hostname or "", parts.port
        extra = parts.path.strip("/") or parts.query or parts.fragment or parts.username
    except (ValueError, AttributeError, TypeError):
        host, port, extra, parts = "", None, "", urlsplit("")
    secure = parts.scheme == "https" or (parts.scheme == "http" and host in LOOPBACK)
    if not (secure and re.fullmatch(r"[0-9a-z.:-]+", host)) or extra:
        # a user, a query or a fragment may hold a secret
        shown = re.sub("//.*@|[?#].*", "***", repr(endpoint))
        message = (
            "endpoint takes https://host or https://host:port (http on loopback only; a host of "
            f"other letters in its xn-- form), but was given {shown:.200}"
        )
        raise ConfigurationError(message)
    host = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{host}" + (f":{port}" if port else "")


def _one_query(**given: object) -> Query:
    """Return the query of the one selector that is given."""
    chosen = {name: value for name, value in given.items() if value is not None}
    if len(chosen) != 1:
        names = ", ".join(given)
        message = f"give exactly one of {names}; {len(chosen)} were given"
        raise ConfigurationError(message)
    name, value = next(iter(chosen.items()))
    selector: Any = name
    if name != "deployment_ids":
        return Query(selector, (check_id(value, name),))
    batcher = Batcher(selector=selector, size=MOST_ROWS, fixed_bytes=0)
    batches = [batch for identity in _iterable(name, value) for batch in batcher.add(identity)]
    rest = batcher.flush()
    if not rest or batches:
        message = "deployment_ids takes 1 to about 100 ids in one call; iter_pods takes any number"
        raise ConfigurationError(message)
    return rest[0].query


def _selected(
    deployment_ids: Ids | None, node_ids: Ids | None, group_ids: Ids | None
) -> tuple[Selector, Iterable[object] | AsyncIterable[object]]:
    """Return the one selector that is given, and its ids: a collection copied, and checked."""
    given: dict[Selector, Ids | None] = {
        "deployment_ids": deployment_ids,
        "node_id": node_ids,
        "group_id": group_ids,
    }
    chosen = [(selector, ids) for selector, ids in given.items() if ids is not None]
    if len(chosen) != 1:
        message = (
            f"give exactly one of deployment_ids, node_ids, group_ids; {len(chosen)} were given"
        )
        raise ConfigurationError(message)
    selector, ids = chosen[0]
    name = {"node_id": "node_ids", "group_id": "group_ids"}.get(selector, selector)
    if isinstance(ids, AsyncIterable):
        return selector, ids
    given_ids = _iterable(name, ids)
    if isinstance(given_ids, Collection):
        return selector, tuple(check_id(identity, name) for identity in given_ids)
    return selector, given_ids


def _iterable(name: str, ids: object) -> Iterable[object]:
    """Refuse one id where several are taken: a bare text would be read letter by letter."""
    if isinstance(ids, str | bytes):
        message = f"{name} takes several ids, but was given one text: write [{ids!r:.80}]"
        raise ConfigurationError(message)
    if not isinstance(ids, Iterable):
        message = f"{name} takes an iterable of ids, but was given {type(ids).__name__}"
        raise ConfigurationError(message)
    return ids
