"""`IefSession`: the face of the library."""

import asyncio
import inspect
import re
from collections.abc import AsyncIterable, Awaitable, Collection, Iterable
from functools import partial
from types import TracebackType, UnionType
from typing import Any, Protocol, Self, TypedDict, TypeVar, Unpack, get_args, overload
from urllib.parse import quote

import attrs

from ief_async._arguments import check_number
from ief_async._auth import CredentialProvider, Credentials, Key, Project, Source, find_credentials
from ief_async._checkpoint import ScanCheckpoint, fingerprint
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
    CheckpointError,
    ConfigurationError,
    OnBadItem,
    OnDrift,
    OnError,
    OnUnknownField,
    PayloadError,
)
from ief_async._http import (
    Connections,
    Counters,
    Endpoints,
    HttpSession,
    Pacer,
    RetryBudget,
    Transport,
)
from ief_async._messages import Answer
from ief_async._models import Deployment, Group, Instance, Node, Pod
from ief_async._observer import Observer, OnEvent
from ief_async._paging import (
    Batcher,
    PageCap,
    PageRequest,
    Query,
    ScanPlan,
    Selector,
    check_id,
    requests_for,
    url_bytes,
)
from ief_async._policies import Clock, Limits, RetryPolicy, Timeouts
from ief_async._regions import check_endpoint, endpoints_of, iam_endpoint_of, known_region
from ief_async._scan import (
    Page,
    Reader,
    Scan,
    Stream,
    look_for_fields,
    page_of,
    raw_rows,
    stand_in,
    structure_some,
)
from ief_async._structure import ModelWatch, Rows, SchemaWatch, Structure, read_within, structure_of

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
        _clock: Clock = Clock(),
        _observer: Observer | None = None,
        _provider: CredentialProvider | None = None,
        _connections: Connections | None = None,
    ) -> None:
        known = isinstance(credentials, Key | Source)
        if isinstance(credentials, type) or not (known or callable(credentials)):
            given = type(credentials).__name__
            if isinstance(credentials, type):
                given = f"a class: write {credentials.__name__}(...)"
            elif isinstance(credentials, str | bytes):
                given += ": write Token(...)"
            elif isinstance(credentials, Awaitable):
                given += ": give the function, not what it returns"
            del credentials  # it may be the token itself, which no traceback is to show
            message = (
                "credentials takes Token, AccessKey, PasswordCredentials, EcsMetadata or an async "
                f"function, but was given {given}"
            )
            raise ConfigurationError(message)
        _check_policies(retry, limits, timeout)
        _check_kind("region", region, str | None)
        if project_id is not None:
            _checked("project_id", project_id)
        elif region is None and not getattr(credentials, "project", None):
            message = "project_id was not given: give it, or region= so that it can be looked up"
            raise ConfigurationError(message)
        self._owner = True
        self._caps: dict[str, PageCap] = {}
        self._tally = Counters()
        observer = _observer or Observer(on_event)
        connections = _connections or Connections(http, proxy)
        endpoints = (
            (check_endpoint("endpoint", endpoint),)
            if endpoint is not None
            else endpoints_of(region)
        )
        asked = iam_endpoint_of(region, iam_endpoint)
        checked_by = endpoints[0] if isinstance(credentials, Key) else asked
        self._transport = Transport(
            endpoints=Endpoints(*endpoints),
            iam_endpoint=asked,
            provider=_provider
            or CredentialProvider(credentials, _clock, observer, endpoint=checked_by),
            project=Project(project_id, region),
            instance_id=None if instance_id is None else _checked("instance_id", instance_id),
            connections=connections,
            pacer=Pacer(
                limits=_narrowed(limits, connections),
                budget=RetryBudget(retry.budget),
                clock=_clock,
                counters=self._tally,
                observer=observer,
            ),
            observer=observer,
            clock=_clock,
            retry=retry,
            limits=limits,
            timeouts=timeout,
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

    def with_options(self, **overrides: Unpack[Options]) -> "IefSession":
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
        old = self._transport
        retry = overrides.get("retry", old.retry)
        limits = overrides.get("limits", old.limits)
        timeout = overrides.get("timeout", old.timeouts)
        instance_id = overrides.get("instance_id", old.instance_id)
        _check_policies(retry, limits, timeout)
        other = object.__new__(type(self))
        other._owner = False
        other._caps = self._caps
        other._tally = self._tally
        project, provider, pacer = old.project, old.provider, old.pacer
        if "project_id" in overrides:
            project = Project(_checked("project_id", overrides["project_id"]), project.name)
            provider = provider.for_another_project()
        if "limits" in overrides:
            pacer = Pacer(
                limits=_narrowed(limits, old.connections),
                budget=pacer.budget,
                clock=old.clock,
                counters=self._tally,
                observer=old.observer,
            )
        other._transport = attrs.evolve(
            old,
            provider=provider,
            project=project,
            instance_id=None if instance_id is None else _checked("instance_id", instance_id),
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
        _check_bad_item(on_bad_item)
        _check_choice("on_unknown_field", on_unknown_field, OnUnknownField)
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
            _check_kind("plugin_instance_name", plugin_instance_name, str)
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
        selector, ids = _selected(deployment_ids, node_ids, group_ids)
        _check_kind("skip_empty_nodes", skip_empty_nodes, bool)
        batcher = self._batcher(selector, batch_size, page_size, skip_empty=skip_empty_nodes)
        _check_kind("ordered", ordered, bool)
        _check_choice("on_error", on_error, OnError)
        return self._stream(
            PODS,
            model,
            ids,
            batcher,
            page_size=page_size,
            concurrency=concurrency,
            ordered=ordered,
            on_error=on_error,
            on_drift=on_drift,
            on_bad_item=on_bad_item,
            on_unknown_field=on_unknown_field,
            max_items=max_items,
            deadline=deadline,
            resume_from=resume_from,
        )

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
        selector, ids = _selected(deployment_ids, node_ids, group_ids)
        batcher = self._batcher(selector, batch_size, page_size, skip_empty=skip_empty_nodes)
        check_number("concurrency", concurrency, least=1, most=MOST_IN_FLIGHT, whole=True)
        plan = ScanPlan(
            concurrency=concurrency, ordered=True, limit=1, on_drift="report", heads_only=True
        )  # nothing can move in a head, and nothing is warned of
        scan = self._scan(
            *(PODS, ids, batcher, plan, structure_of(Pod)),
            on_bad_item="skip",  # no row is looked at
            operation="count_pods",
        )
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
            **attrs.asdict(self._tally), token_refreshes=self._transport.provider.renewals
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

    def _batcher(
        self, selector: Selector, batch_size: int, page_size: int, *, skip_empty: bool
    ) -> Batcher:
        check_number("page_size", page_size, least=1, most=MOST_ROWS, whole=True)
        check_number("batch_size", batch_size, least=1, most=MOST_IN_FLIGHT, whole=True)
        project_id = self._transport.project.id or "x" * PROJECT_CHARACTERS
        path = PODS.path.replace(PROJECT_ID, project_id)
        return Batcher(
            selector=selector,
            size=batch_size if selector == "deployment_ids" else 1,
            fixed_bytes=url_bytes(path, selector, page_size),
            skip_empty_nodes=skip_empty and selector == "node_id",
        )

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
            _check_kind(name, value, str)
        if listing is DEPLOYMENTS and {"node_id", "group_id"} <= chosen.keys():
            message = "give node_id or group_id, not both: the service takes one of them"
            raise ConfigurationError(message)
        text = "&".join(f"{name}={quote(value, safe='')}" for name, value in chosen.items())
        batcher = Batcher(selector="filter", size=1, fixed_bytes=0)
        return self._stream(listing, model, [text], batcher, **options)

    def _stream(
        self,
        listing: Listing,
        model: type[Any],
        ids: Iterable[object] | AsyncIterable[object],
        batcher: Batcher,
        *,
        page_size: int = 100,
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
        """Stream a list, whatever it is of."""
        structure = structure_of(model)
        check_number("page_size", page_size, least=1, most=listing.most_rows, whole=True)
        check_number("concurrency", concurrency, least=1, most=MOST_IN_FLIGHT, whole=True)
        _check_choice("on_drift", on_drift, OnDrift)
        _check_bad_item(on_bad_item)
        _check_choice("on_unknown_field", on_unknown_field, OnUnknownField)
        if max_items is not None:
            check_number("max_items", max_items, least=1, whole=True)
        if deadline is not None:
            check_number("deadline", deadline, more=True)
        transport = self._transport
        kind = batcher.selector if batcher.selector != "filter" else listing.key
        asked = fingerprint(
            transport.project.given, transport.instance_id, kind, page_size, batcher.size
        )
        if resume_from is not None:
            batcher = attrs.evolve(batcher, resume=_resumed(resume_from, asked))
        plan = ScanPlan(
            concurrency=concurrency,
            ordered=ordered,
            limit=page_size,
            on_drift=on_drift,
            max_items=max_items,
            cap=self._caps.setdefault(listing.key, PageCap()),
        )
        return Stream(
            self._scan(
                listing,
                ids,
                batcher,
                plan,
                structure,
                deadline=deadline,
                on_error=on_error,
                on_bad_item=on_bad_item,
                on_unknown_field=on_unknown_field,
                fingerprint=asked,
            )
        )

    def _scan(
        self,
        listing: Listing,
        ids: Iterable[object] | AsyncIterable[object],
        batcher: Batcher,
        plan: ScanPlan,
        structure: Structure[T],
        *,
        deadline: float | None = None,
        on_error: OnError = "raise",
        on_bad_item: OnBadItem = "raise",
        on_unknown_field: OnUnknownField = "warn",
        fingerprint: int = 0,
        operation: str | None = None,
    ) -> Scan[T]:
        return Scan(
            ids=ids,
            batcher=batcher,
            plan=plan,
            fetch=partial(self._fetch, listing, tolerate=on_bad_item != "raise"),
            reader=structure,
            watch=SchemaWatch(listing.model),
            model_watch=ModelWatch(structure.model, listing.model),
            key=listing.key,
            clock=self._transport.clock,
            observer=self._transport.observer,
            operation=operation or listing.operation,
            deadline=deadline,
            on_error=on_error,
            on_bad_item=on_bad_item,
            on_unknown_field=on_unknown_field,
            fingerprint=fingerprint,
        )

    async def _fetch(
        self,
        listing: Listing,
        request: PageRequest,
        reader: Reader[Any],
        deadline: float,
        scan: int,
        *,
        tolerate: bool,
    ) -> Answer[Rows]:
        parts = (request.query.text, f"limit={request.limit}", f"offset={request.offset}")
        target = f"{listing.path}?{'&'.join(part for part in parts if part)}"
        read = partial(listing.read or partial(reader.read, key=listing.key), tolerate=tolerate)
        # who counts asks for one row; how many come with the count does not matter
        limit = request.limit if request.limit > 1 else None
        within = partial(read_within, read, key=listing.key, limit=limit)
        return await self._transport.get(target, within, deadline=deadline, scan=scan)


# ---- what may be given -------------------------------------------------------------------------


def _check_kind(name: str, value: object, kind: type | UnionType) -> None:
    if not isinstance(value, kind):
        takes = kind.__name__ if isinstance(kind, type) else kind
        message = f"{name} takes {takes}, but was given {type(value).__name__}"
        raise ConfigurationError(message)


def _check_choice(name: str, value: object, choices: Any) -> None:
    if not isinstance(value, str) or value not in get_args(choices):
        known = ", ".join(map(repr, get_args(choices)))
        message = f"{name} takes one of {known}, but was given {value!r:.80}"
        raise ConfigurationError(message)


def _check_bad_item(value: object) -> None:
    """Take "raise", "skip", or a plain function."""
    if not callable(value):
        _check_choice("on_bad_item", value, get_args(OnBadItem)[0])
    elif any(map(inspect.iscoroutinefunction, (value, type(value).__call__))):
        message = (
            "on_bad_item takes a plain function of a row and its error, but was given an async one"
        )
        raise ConfigurationError(message)


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
        given_ids = tuple(given_ids)
        for identity in given_ids:
            check_id(identity, name)
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


def addresses_of(session: IefSession) -> tuple[str, str]:
    """Return where a session's requests go first, and where IAM answers to it."""
    transport = session._transport  # noqa: SLF001  users have no business with it
    return transport.endpoints.home, transport.iam_endpoint
