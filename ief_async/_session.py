"""`IefSession`: the face of the library."""

import asyncio
from collections.abc import AsyncIterable, Iterable
from copy import copy
from functools import partial
from types import TracebackType
from typing import Any, Protocol, Self, TypedDict, TypeVar, Unpack, overload
from urllib.parse import quote

import attrs

from ief_async._arguments import check_choice, check_kind, check_number
from ief_async._auth import Credentials, find_credentials
from ief_async._checkpoint import ScanCheckpoint
from ief_async._connect import connect, problem_of, reconnect
from ief_async._endpoints import (
    DEPLOYMENTS,
    GROUPS,
    INSTANCES,
    MOST_ROWS,
    NODES,
    PODS,
    DeploymentOptions,
    GroupOptions,
    Listing,
    ListOptions,
    NodeOptions,
)
from ief_async._errors import (
    ConfigurationError,
    OnBadItem,
    OnDrift,
    OnError,
    OnUnknownField,
    PayloadError,
)
from ief_async._http import Connections, HttpSession, Transport
from ief_async._messages import Answer
from ief_async._models import Deployment, Group, Instance, Node, Pod
from ief_async._observer import Observer, OnEvent
from ief_async._paging import (
    Batcher,
    PageCap,
    PageRequest,
    Query,
    check_id,
    requests_for,
)
from ief_async._policies import Limits, RetryPolicy, Timeouts
from ief_async._regions import known_region
from ief_async._scan import (
    Page,
    Reader,
    Scan,
    ScanSpec,
    Stream,
    check_bad_item,
    check_iterable,
    look_for_fields,
    page_of,
    raw_rows,
    select_ids,
    stand_in,
    structure_some,
)
from ief_async._structure import ModelWatch, Rows, Structure, read_within, structure_of

T = TypeVar("T")


class Identified(Protocol):
    """Whatever has an id: a `Deployment`, a `Node`, a `Group`, or an object of your own."""

    @property
    def id(self) -> str:
        """The id, as the server gave it."""


Ids = Iterable[str | Identified] | AsyncIterable[str | Identified]

PROJECT_ID = "{project_id}"  # in a path, until the project is known
PROJECT_CHARACTERS = 32  # as every id of a project has
MOST_IN_FLIGHT = 1_000
ID_CHARACTERS = 64
MOST_OFFSET = 10**10 - 1


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
        token_refreshes: how often a token or temporary key was got, the first time included.
    """

    requests: int
    retries: int
    throttles: int
    in_flight: int
    token_refreshes: int


class Options(TypedDict, total=False):
    """What `IefSession.with_options` takes."""

    project_id: str
    instance_id: str | None
    retry: RetryPolicy
    limits: Limits
    timeout: Timeouts


class Overrides(Options, total=False):
    """What `IefSession.from_env` takes besides: all that the constructor takes."""

    credentials: Credentials
    region: str | None
    endpoint: str | None
    iam_endpoint: str | None
    http: HttpSession | None
    proxy: str | None
    on_event: OnEvent | None


class IefSession:
    """An async session with the IEF service of one project: the way to `iter_pods`.

    Use it with ``async with``, or await `aclose`. It belongs to the event loop of its first use.
    Retries, time-outs and limits hold for all that is done with it, all its streams together.

    Args:
        project_id: the id of the project whose fleet it is. Without it, it is what the token of
            `PasswordCredentials` is for, or is looked up once as the project that `region` names.
        credentials: how requests are authenticated: a `Token`, an `AccessKey`,
            `PasswordCredentials`, `EcsMetadata`, or an async function that returns a `Token` or an
            `AccessKey`, which is called again when what it gave is refused.
        region: such as ``"cn-north-4"``; gives the endpoint of a region that is known. The
            variables and the ``regions.yaml`` of the official SDK are heeded.
        endpoint: ``https://host[:port]`` instead; plain http only on loopback.
        iam_endpoint: likewise, where tokens are got and projects looked up; by default the region's
            or the global one.
        instance_id: the platinum (enterprise) instance to ask. Without it the professional edition
            answers: a list of another edition's pods is then empty, not refused.
        http: an `aiohttp.ClientSession` to borrow. It is never closed, and its headers, cookies,
            proxies and TLS settings are its owner's; its pool size caps `Limits.concurrency`. Its
            `auth`, and what a netrc file says of the host, are not sent.
        proxy: ``http://[user:password@]host[:port]`` of a proxy on the way to IEF and IAM. TLS goes
            through it (``CONNECT``), so it sees no credentials; what is asked by plain http, on
            loopback and of the metadata service, never goes through it. User and password are in no
            error, log or repr. Without it none is used, whatever the environment says: see
            `from_env`.
        retry: how often and how patiently a request is repeated.
        limits: what the session allows itself.
        timeout: how long one attempt may take.
        on_event: a function that is called with each `Event`, on the event loop, for this session
            and those derived from it. It has to be quick: it is waited for. Once it raises, that is
            logged, and it is not called again.

    Raises:
        ConfigurationError: an argument can't work; its text names the argument and what it takes.
    """

    _owner = True  # of the connections

    def __init__(
        self,
        project_id: str | None = None,
        *,
        credentials: Credentials,
        region: str | None = None,
        endpoint: str | None = None,
        iam_endpoint: str | None = None,
        instance_id: str | None = None,
        http: HttpSession | None = None,
        proxy: str | None = None,
        retry: RetryPolicy = RetryPolicy(),
        limits: Limits = Limits(),
        timeout: Timeouts = Timeouts(),
        on_event: OnEvent | None = None,
    ) -> None:
        problem = problem_of(credentials)
        if problem is not None:
            del credentials
            raise ConfigurationError(problem)
        self._caps: dict[str, PageCap] = {}
        self._transport = connect(
            project_id,
            credentials=credentials,
            region=region,
            endpoint=endpoint,
            iam_endpoint=iam_endpoint,
            instance_id=instance_id,
            connections=Connections(http, proxy),
            observer=Observer(on_event),
            retry=retry,
            limits=limits,
            timeout=timeout,
        )

    @classmethod
    def from_env(cls, profile: str | None = None, **overrides: Unpack[Overrides]) -> Self:
        """Return a session with what the official SDK's variables and files say.

        Credentials are looked for in ``HUAWEICLOUD_SDK_AK``, ``_SK`` and ``_SECURITY_TOKEN``; then
        in ``~/.huaweicloud/credentials`` (or ``HUAWEICLOUD_SDK_CREDENTIALS_FILE``), section
        ``[basic]``; then, by the first request, in the metadata of the elastic cloud server that
        this may run on. The project comes from beside them, else it is looked up, at
        ``HUAWEICLOUD_SDK_IAM_ENDPOINT`` if that is set; the region from
        ``HUAWEICLOUD_SDK_REGION_IEF_…`` or ``regions.yaml`` if they name just one. A proxy is used
        as ``HTTPS_PROXY`` (else ``ALL_PROXY``) and ``NO_PROXY`` say, in capitals or not, unless
        `proxy` or `http` is given.

        Args:
            profile: a section of the file; then nothing else is looked at.
            overrides: any argument of `IefSession`, which wins.

        Raises:
            ConfigurationError: what was found can't work, or there is no such profile. That there
                are no credentials anywhere is said by the first request, with every place.
        """
        given: dict[str, Any] = {}
        if "credentials" not in overrides:
            found = find_credentials(profile)
            given = {"credentials": found.credentials, "project_id": found.project_id}
            given["iam_endpoint"] = found.iam_endpoint
        if not {"region", "endpoint"} & overrides.keys():
            given["region"] = known_region()
        session = cls(**{**given, **overrides})
        if not {"proxy", "http"} & overrides.keys():
            transport = session._transport
            transport.connections.trust_environment(
                [*transport.endpoints.known, transport.iam_endpoint]
            )
        return session

    def with_options(self, **overrides: Unpack[Options]) -> Self:
        """Return a session with other options that shares whatever is not overridden.

        Connections, credentials, statistics, `on_event` and the retry budget are always shared;
        other `limits` count on their own, and with another project a password gets a token of its
        own. Only the session that it came from closes the connections.
        """
        unknown = sorted(overrides.keys() - Options.__annotations__.keys())
        if unknown:
            takes = ", ".join(Options.__annotations__)
            message = f"with_options takes {takes}, but was given {', '.join(unknown)}"
            raise ConfigurationError(message)
        other = copy(self)
        other._transport = reconnect(self._transport, dict(overrides))  # noqa: SLF001  of its own class
        other._owner = False  # noqa: SLF001  likewise
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
        on_bad_item: OnBadItem = "raise",
        on_unknown_field: OnUnknownField = "warn",
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
        on_bad_item: OnBadItem = "raise",
        on_unknown_field: OnUnknownField = "warn",
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
        on_bad_item: OnBadItem = "raise",
        on_unknown_field: OnUnknownField = "warn",
        model: type[Any] = Pod,
    ) -> Page[Any]:
        """Make exactly one call of the documented API: ``GET /v3/{project_id}/edgemgr/pods``.

        Exactly one of the four ids selects the pods. Without `limit` the server chooses how many to
        give, and nobody knows how many it does; a page may be shorter than `limit`, and only its
        `count` says how many there are. For all of them use `iter_pods`. `model`, `on_bad_item` and
        `on_unknown_field` are as there; what is left out or replaced counts ``page.bad_items``.

        Raises:
            ConfigurationError: not exactly one id, or an argument that can't work.
            IefError: what came of the call after all attempts.
        """
        structure = structure_of(model)
        check_bad_item("on_bad_item", on_bad_item)
        check_choice("on_unknown_field", on_unknown_field, OnUnknownField)
        query = _one_query(
            deployment_ids=deployment_ids,
            deployment_id=deployment_id,
            node_id=node_id,
            group_id=group_id,
        )
        check_number("offset", offset, most=MOST_OFFSET, whole=True)
        target = f"{PODS.path}?{query.text}"
        if limit is not None:
            check_number("limit", limit, least=1, most=MOST_ROWS, whole=True)
            target += f"&limit={limit}"
        target += f"&offset={offset}"
        if plugin_instance_name is not None:
            check_kind("plugin_instance_name", plugin_instance_name, str)
            target += f"&plugin_instance_name={quote(plugin_instance_name, safe='')}"
        read = partial(structure.read, key=PODS.key, tolerate=on_bad_item != "raise")
        answer = await self._transport.get(
            target, partial(read_within, read, key=PODS.key, limit=limit)
        )
        watch = ModelWatch(model, PODS.model)
        if watch.unknown:
            await look_for_fields(watch, raw_rows(answer, key=PODS.key), on_unknown_field)
        items, bad = await _structured(structure, answer, on_bad_item)
        return page_of(answer, items, offset=offset, limit=limit, bad_items=bad)

    @overload
    def iter_pods(
        self,
        deployment_ids: Ids | None = None,
        *,
        node_ids: Ids | None = None,
        group_ids: Ids | None = None,
        skip_empty_nodes: bool = True,
        page_size: int = 100,
        batch_size: int = 100,
        concurrency: int = 8,
        ordered: bool = True,
        on_error: OnError = "raise",
        on_drift: OnDrift = "repair",
        on_bad_item: OnBadItem = "raise",
        on_unknown_field: OnUnknownField = "warn",
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
        skip_empty_nodes: bool = True,
        model: type[T],
        page_size: int = 100,
        batch_size: int = 100,
        concurrency: int = 8,
        ordered: bool = True,
        on_error: OnError = "raise",
        on_drift: OnDrift = "repair",
        on_bad_item: OnBadItem = "raise",
        on_unknown_field: OnUnknownField = "warn",
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
        skip_empty_nodes: bool = True,
        model: type[Any] = Pod,
        page_size: int = 100,
        batch_size: int = 100,
        concurrency: int = 8,
        ordered: bool = True,
        on_error: OnError = "raise",
        on_drift: OnDrift = "repair",
        on_bad_item: OnBadItem = "raise",
        on_unknown_field: OnUnknownField = "warn",
        max_items: int | None = None,
        deadline: float | None = None,
        resume_from: ScanCheckpoint | str | bytes | None = None,
    ) -> Stream[Any]:
        """Return a `Stream` of every pod of these deployments, or of these nodes or groups.

        Pages are fetched concurrently, in bounded memory, each pod once. See `Stream` for what is
        promised, and what is not.

        Args:
            deployment_ids: any iterable or async iterable of ids, or of objects that have one, such
                as `iter_deployments`; read as the scan needs them. A batch is asked for when it is
                full, or the ids are at their end. Ids given twice are asked for once. A collection
                is copied now. No ids, no request.
            node_ids: instead: one query for each node, as the API has it.
            group_ids: instead: one query for each node group (platinum edition). A pod whose node
                is in two groups comes once for each.
            skip_empty_nodes: whether a `Node` that reports no pods (its ``deployment_num`` is 0) is
                left out; of an id alone nobody knows.
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
            on_bad_item: what a row leads to that can't be read. "raise": its batch fails with a
                `PayloadError` that names the field, the item and the request. "skip": it is left
                out, and counted in ``report.bad_items``; the first one is logged as a warning. A
                function: it is called with the row, as `json.loads` gives it, and the
                `PayloadError`, and returns the item that stands in its place, or None to leave it
                out; it is counted likewise, and what it raises ends the scan. A row that has no id,
                or is no object, is one, too. What is wrong with a body as a whole fails its batch.
            on_unknown_field: what a field of `model` leads to that no document names and no row of
                the first page has: one that is misspelt would be its default in every item. "warn":
                a warning is logged, and it stands in ``report.unknown_model_fields``. "raise": the
                stream raises a `ConfigurationError` that names it.
            max_items: deliver so many at most; no page is asked for that they can't need.
            deadline: seconds that the whole scan may take, from the first item asked for.
            resume_from: the checkpoint of an earlier scan with the same ids, `page_size` and
                `batch_size`: an object or its JSON. What it holds as done is not read again.

        Raises:
            ConfigurationError: an argument that can't work; nothing was sent.
            CheckpointError: `resume_from` is damaged, newer, or of another scan; if that shows in
                the ids alone, the stream raises it before the batch is asked for.
        """
        selector, ids = select_ids(
            deployment_ids=deployment_ids, node_ids=node_ids, group_ids=group_ids
        )
        spec = ScanSpec(
            listing=PODS,
            selector=selector,
            ids=ids,
            model=model,
            page_size=page_size,
            batch_size=batch_size,
            concurrency=concurrency,
            ordered=ordered,
            on_error=on_error,
            on_drift=on_drift,
            on_bad_item=on_bad_item,
            on_unknown_field=on_unknown_field,
            max_items=max_items,
            deadline=deadline,
            resume_from=resume_from,
            skip_empty_nodes=skip_empty_nodes,
        )
        return Stream(scan_of(self, spec))

    async def count_pods(
        self,
        deployment_ids: Ids | None = None,
        *,
        node_ids: Ids | None = None,
        group_ids: Ids | None = None,
        skip_empty_nodes: bool = True,
        page_size: int = 100,
        batch_size: int = 100,
        concurrency: int = 8,
    ) -> PodCount:
        """Count pods by one request of one row for each batch; arguments as for `iter_pods`.

        Raises:
            PayloadError: the server gives no count.
        """
        selector, ids = select_ids(
            deployment_ids=deployment_ids, node_ids=node_ids, group_ids=group_ids
        )
        spec = ScanSpec(
            listing=PODS,
            selector=selector,
            ids=ids,
            model=Pod,
            page_size=page_size,
            batch_size=batch_size,
            concurrency=concurrency,
            on_drift="report",  # nothing can move in a head, and nothing is warned of
            on_bad_item="skip",  # no row is looked at
            skip_empty_nodes=skip_empty_nodes,
            count_only=True,
        )
        scan = scan_of(self, spec)
        try:
            await scan.next_page()  # heads hold no page to deliver: this returns at the end
        finally:
            await scan.aclose()
        counts = [report.count for report in scan.plan.reports()]
        known = tuple(count for count in counts if count is not None)
        if len(known) < len(counts):
            message = "the server gives no count for this list: iter_pods reads it all the same"
            raise PayloadError(message, path="count")
        requests = sum(requests_for(count, page_size) for count in known)
        return PodCount(total=sum(known), counts=known, requests=requests)

    # -- what a scan starts from ---------------------------------------------------------------

    @overload
    def iter_deployments(self, **options: Unpack[DeploymentOptions]) -> Stream[Deployment]: ...
    @overload
    def iter_deployments(
        self, *, model: type[T], **options: Unpack[DeploymentOptions]
    ) -> Stream[T]: ...
    def iter_deployments(self, *, model: type[Any] = Deployment, **options: Any) -> Stream[Any]:
        """Return a `Stream` of the project's deployments: give it to `iter_pods` to scan them all.

        ``GET /v3/{project_id}/edgemgr/deployments``. Filters: `name` (a part of it), `node_id` or
        `group_id`, and `sort` (``"created_at:asc"``, ``"created_at:desc"``). `page_size` (100 at
        most), `concurrency`, `on_drift`, `on_bad_item`, `on_unknown_field`, `max_items`, `deadline`
        and `resume_from` are as for `iter_pods`. One list is one batch: what fails is raised. Where
        only ids are needed, a `model` of an id alone lets nothing else be odd.
        """
        return self._iter(DEPLOYMENTS, model, options)

    @overload
    def iter_nodes(self, **options: Unpack[NodeOptions]) -> Stream[Node]: ...
    @overload
    def iter_nodes(self, *, model: type[T], **options: Unpack[NodeOptions]) -> Stream[T]: ...
    def iter_nodes(self, *, model: type[Any] = Node, **options: Any) -> Stream[Any]:
        """Return a `Stream` of the project's edge nodes: ``iter_pods(node_ids=…)`` takes them.

        ``GET /v2/{project_id}/edgemgr/nodes``. Filters: `name` (a part of it), `state`, `tags`
        (``"key.value,key.value"``; wins over `app_name`), `group_id`, `device_id`, `device_name`,
        `app_name`, and `sort`. The rest is as for `iter_deployments`; a page has 1,000 rows at
        most.
        """
        return self._iter(NODES, model, options)

    @overload
    def iter_groups(self, **options: Unpack[GroupOptions]) -> Stream[Group]: ...
    @overload
    def iter_groups(self, *, model: type[T], **options: Unpack[GroupOptions]) -> Stream[T]: ...
    def iter_groups(self, *, model: type[Any] = Group, **options: Any) -> Stream[Any]:
        """Return a `Stream` of the node groups of a platinum instance, with their nodes.

        ``GET /v2/{project_id}/edgemgr/groups``. Filters: `name`, and `sort`. The rest is as for
        `iter_deployments`; a page has 1,000 rows at most, and may be large.
        """
        return self._iter(GROUPS, model, options)

    @overload
    def iter_instances(self, **options: Unpack[ListOptions]) -> Stream[Instance]: ...
    @overload
    def iter_instances(self, *, model: type[T], **options: Unpack[ListOptions]) -> Stream[T]: ...
    def iter_instances(self, *, model: type[Any] = Instance, **options: Any) -> Stream[Any]:
        """Return a `Stream` of the project's platinum (enterprise) instances.

        ``GET /v2/{project_id}/edgemgr/ief-instances``. Their ids are what `instance_id` takes. It
        has no filters; the rest is as for `iter_groups`.
        """
        return self._iter(INSTANCES, model, options)

    # -- the session itself --------------------------------------------------------------------

    def statistics(self) -> SessionStatistics:
        """Return the figures of the session so far."""
        return SessionStatistics(
            **attrs.asdict(self._transport.pacer.tally),
            token_refreshes=self._transport.keyring.renewals,
        )

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
        where = (
            f"project {transport.project.id or transport.project.name} at {transport.endpoint}"
            if transport
            else "?"
        )
        return f"<IefSession: {where}>"

    def _iter(self, listing: Listing, model: type[Any], options: dict[str, Any]) -> Stream[Any]:
        """Stream a list that takes filters instead of ids."""
        unknown = options.keys() - listing.options.__annotations__.keys()
        if unknown:
            takes = ", ".join(sorted(listing.options.__annotations__))
            given = ", ".join(sorted(unknown))
            message = f"{listing.operation} takes model, {takes}, but was given {given}"
            raise ConfigurationError(message)
        chosen = {name: options.pop(name) for name in sorted(listing.filters & options.keys())}
        chosen = {name: value for name, value in chosen.items() if value is not None}
        for name, value in chosen.items():
            check_kind(name, value, str)
        if listing is DEPLOYMENTS and {"node_id", "group_id"} <= chosen.keys():
            message = "give node_id or group_id, not both: the service takes one of them"
            raise ConfigurationError(message)
        text = "&".join(f"{name}={quote(value, safe='')}" for name, value in chosen.items())
        return Stream(scan_of(self, ScanSpec(listing=listing, ids=[text], model=model, **options)))


def session_of(
    project_id: str | None = None, *, credentials: Credentials, **parts: Any
) -> IefSession:
    """Return a session made of parts, some of which may be shared: see `connect`."""
    problem = problem_of(credentials)
    if problem is not None:
        del credentials
        raise ConfigurationError(problem)
    session = object.__new__(IefSession)
    session._caps = {}
    session._transport = connect(project_id, credentials=credentials, **parts)
    return session


def scan_of(session: IefSession, spec: ScanSpec[T]) -> Scan[T]:
    """Return a scan by a session: for what is built on sessions."""
    transport, caps = session._transport, session._caps  # noqa: SLF001  users have no business with them
    return Scan(
        spec,
        batcher=spec.batcher(transport.project.id),
        plan=spec.plan(caps.setdefault(spec.listing.key, PageCap())),
        fetch=partial(_fetch, transport=transport, spec=spec),
        reader=structure_of(spec.model),
        clock=transport.clock,
        observer=transport.observer,
        fingerprint=spec.fingerprint(transport.project.given, transport.instance_id),
    )


async def _fetch(
    request: PageRequest,
    reader: Reader[Any],
    deadline: float,
    scan: int,
    *,
    transport: Transport,
    spec: ScanSpec[Any],
) -> Answer[Rows]:
    """Ask for a page, and take the answer apart."""
    listing = spec.listing
    parts = (request.query.text, f"limit={request.limit}", f"offset={request.offset}")
    target = f"{listing.path}?{'&'.join(part for part in parts if part)}"
    read = partial(
        listing.read or partial(reader.read, key=listing.key), tolerate=spec.on_bad_item != "raise"
    )
    # who counts asks for one row; how many come with the count does not matter
    limit = request.limit if request.limit > 1 else None
    within = partial(read_within, read, key=listing.key, limit=limit)
    return await transport.get(target, within, deadline=deadline, scan=scan)


# ---- what may be given -------------------------------------------------------------------------


async def _structured(
    structure: Structure[T], answer: Answer[Rows], on_bad_item: OnBadItem
) -> tuple[list[T], int]:
    """Return the items of an answer, and how many of its rows could not be read."""
    items: list[T] = []
    taken = bad = 0
    while rest := range(taken, len(answer.value.ids)):
        await asyncio.sleep(0)  # between chunks the event loop has its turn
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


def _one_query(**given: object) -> Query:
    """Return the query of the one selector that is given."""
    chosen = {name: value for name, value in given.items() if value is not None}
    if len(chosen) != 1:
        names = ", ".join(given)
        message = f"give one of {names}: {len(chosen)} were given"
        raise ConfigurationError(message)
    name, value = next(iter(chosen.items()))
    selector: Any = name
    if name != "deployment_ids":
        return Query(selector, (check_id(value, name),))
    batcher = Batcher(selector=selector, size=MOST_ROWS, fixed_bytes=0)
    batches = [batch for identity in check_iterable(name, value) for batch in batcher.add(identity)]
    rest = batcher.flush()
    if not rest or batches:
        message = "deployment_ids takes 1 to about 100 ids in one call; iter_pods takes any number"
        raise ConfigurationError(message)
    return rest[0].query


def addresses_of(session: IefSession) -> tuple[str, str]:
    """Return where a session's requests go first, and where IAM answers to it."""
    transport = session._transport  # noqa: SLF001  users have no business with it
    return transport.endpoints.home, transport.iam_endpoint
