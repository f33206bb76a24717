"""`IefSession`, the main entry point of the library."""

from collections.abc import Iterable
from copy import copy
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypedDict, TypeVar, Unpack, overload
from urllib.parse import quote

import attrs

from ief_async._arguments import check_kind, refuse
from ief_async._auth import Credentials, find_credentials
from ief_async._calls import fetch_page, fetch_pods
from ief_async._checkpoint import ScanCheckpoint
from ief_async._connect import connect, problem_of, reconnect
from ief_async._endpoints import (
    DEPLOYMENTS,
    GROUPS,
    INSTANCES,
    NODES,
    PODS,
    DeploymentOptions,
    GroupOptions,
    Ids,
    Listing,
    ListOptions,
    NodeOptions,
    PageOptions,
    PodOptions,
)
from ief_async._errors import (
    ConfigurationError,
    OnBadItem,
    OnDrift,
    OnError,
    OnUnknownField,
    PayloadError,
)
from ief_async._http import Connections, HttpSession
from ief_async._models import Pod
from ief_async._observer import Observer, OnEvent
from ief_async._paging import PageCap, requests_for
from ief_async._policies import Limits, RetryPolicy, Timeouts
from ief_async._regions import known_region
from ief_async._scan import Page, Scan, ScanSpec, Stream, select_ids
from ief_async._structure import structure_of
from ief_async._values import Value

if TYPE_CHECKING:  # their lists import these: a scan of pods does without
    from ief_async._models import Deployment, Group, Instance, Node

T = TypeVar("T")


@attrs.frozen(kw_only=True, eq=False, repr=False)
class PodCount(Value):
    """How many pods there are, counted without reading them.

    Attributes:
        total: the sum of all counts.
        counts: the count of each query (each batch of ids), in the order of the ids.
        requests: how many requests a scan with the same arguments takes if nothing changes.
    """

    total: int
    counts: tuple[int, ...]
    requests: int


@attrs.frozen(kw_only=True, eq=False, repr=False)
class SessionStatistics(Value):
    """The counters of a session, including the sessions derived from it.

    Attributes:
        requests: requests sent, including retries.
        retries: retries sent.
        throttles: responses with status 429.
        in_flight: requests in flight now.
        token_refreshes: how often a token or temporary key was obtained, including the first time.
    """

    requests: int
    retries: int
    throttles: int
    in_flight: int
    token_refreshes: int


class Options(TypedDict, total=False):
    """The arguments of `IefSession.with_options`."""

    project_id: str
    instance_id: str | None
    retry: RetryPolicy
    limits: Limits
    timeout: Timeouts


class Overrides(Options, total=False):
    """The other arguments of `IefSession.from_env`: all those of the constructor."""

    credentials: Credentials
    region: str | None
    endpoint: str | None
    iam_endpoint: str | None
    http: HttpSession | None
    proxy: str | None
    on_event: OnEvent | None


class IefSession:
    """An async session with the IEF service of one project.

    Use it with ``async with``, or await `aclose`. A session belongs to the event loop of its first
    use. Retries, time-outs and limits apply to everything that is done with it, over all its
    streams together. (The class is long because it is the whole API: most of its lines are
    documentation and signatures, and each method passes its arguments on.)

    Args:
        project_id: the id of the project whose fleet is read. Without it the project is the one
            that the token of `PasswordCredentials` is for, or the project named after `region`,
            which is looked up once.
        credentials: how requests are authenticated: a `Token`, an `AccessKey`,
            `PasswordCredentials`, `EcsMetadata`, or an async function that returns a `Token` or an
            `AccessKey`; it is called again when the service rejects what it returned.
        region: such as ``"cn-north-4"``; selects the endpoint of a known region. The variables and
            the ``regions.yaml`` of the official SDK are read.
        endpoint: ``https://host[:port]`` instead of a region; plain http only on loopback.
        iam_endpoint: the address of IAM, where tokens are requested and projects looked up; by
            default the region's or the global one.
        instance_id: the platinum (enterprise) instance. Without it the professional edition
            answers, and a list of another edition's pods is empty instead of an error.
        http: an `aiohttp.ClientSession` to borrow. It is never closed, and its headers, cookies,
            proxies and TLS settings apply; its pool size limits `Limits.concurrency`. Its `auth`,
            and the entry of a netrc file for the host, are not sent.
        proxy: ``http://[user:password@]host[:port]`` of a proxy for IEF and IAM. TLS goes through
            it (``CONNECT``), so it sees no credentials; requests over plain http, to loopback or to
            the metadata service never use it. No error, log or repr contains user and password.
            By default no proxy is used, even if the environment names one: see `from_env`.
        retry: when and how often a request is retried.
        limits: how much the session may do at once.
        timeout: how long one attempt may take.
        on_event: a function that is called with each `Event`, on the event loop, for this session
            and those derived from it. It must be quick, as it blocks the session. If it raises, the
            error is logged and the function is not called again.

    Raises:
        ConfigurationError: an argument is invalid; the message names it and says what it must be.

    Example:
        ::

            async with IefSession(
                fake.project_id, credentials=Token(fake.token), endpoint=fake.endpoint
            ) as ief:
                page = await ief.list_pods(deployment_ids=fake.deployment_ids, limit=10)
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
        """Return a session with the settings of the official SDK's variables and files.

        Credentials are looked for in ``HUAWEICLOUD_SDK_AK``, ``_SK`` and ``_SECURITY_TOKEN``; then
        in ``~/.huaweicloud/credentials`` (or ``HUAWEICLOUD_SDK_CREDENTIALS_FILE``), section
        ``[basic]``; then, at the first request, in the metadata of the elastic cloud server that
        this may run on. The project is read from the same place, else looked up, at
        ``HUAWEICLOUD_SDK_IAM_ENDPOINT`` if that is set. The region comes from
        ``HUAWEICLOUD_SDK_REGION_IEF_…`` or ``regions.yaml`` if they name exactly one. The proxy
        comes from ``HTTPS_PROXY`` (else ``ALL_PROXY``) and ``NO_PROXY``, in upper or lower case,
        unless `proxy` or `http` is given.

        Args:
            profile: a section of the credentials file; credentials are then read only from there.
            overrides: any argument of `IefSession`; it takes precedence.

        Returns:
            The session. Nothing was sent yet.

        Raises:
            ConfigurationError: a setting is invalid, or there is no such profile. Missing
                credentials are reported by the first request, with every place that was searched.

        Example:
            ::

                async with IefSession.from_env() as ief:
                    async for pod in ief.iter_pods(ief.iter_deployments()):
                        print(pod.name, pod.state)
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
        """Return a session with other options that shares everything else with this one.

        Connections, credentials, statistics, `on_event` and the retry budget are always shared. New
        `limits` apply to the new session alone, and for another project a password gets a token of
        its own. Only the original session closes the connections. A subclass keeps its type and its
        attributes.

        Args:
            overrides: `project_id`, `instance_id`, `retry`, `limits` or `timeout`, as for
                `IefSession`.

        Returns:
            A session of the same class.

        Raises:
            ConfigurationError: an argument can't work, or can't be overridden.

        Example:
            ::

                patient = ief.with_options(timeout=Timeouts(total=300))
                pods = await patient.iter_pods(deployment_ids).collect()
        """
        unknown = sorted(overrides.keys() - Options.__annotations__.keys())
        if unknown:
            names = ", ".join(Options.__annotations__)
            refuse("an argument of with_options", f"one of {names}", ", ".join(unknown))
        other = copy(self)
        other._transport = reconnect(self._transport, dict(overrides))  # noqa: SLF001  of its own class
        other._owner = False  # noqa: SLF001  of its own class
        return other

    # -- pods ----------------------------------------------------------------------------------

    @overload
    async def list_pods(self, **options: Unpack[PageOptions]) -> Page[Pod]: ...
    @overload
    async def list_pods(self, *, model: type[T], **options: Unpack[PageOptions]) -> Page[T]: ...
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

        A page may be shorter than `limit`; only its `count` says how many pods there are. To read
        all of them use `iter_pods`.

        Args:
            deployment_ids: 1 to about 100 ids of deployments. Give exactly one of the four kinds
                of ids.
            deployment_id: the id of one deployment.
            node_id: the id of one node.
            group_id: the id of one node group (platinum edition).
            plugin_instance_name: only pods of this plug-in instance.
            limit: how many rows to request. Without it the server uses an undocumented default.
            offset: the position of the first row.
            on_bad_item: as for `iter_pods`; ``page.bad_items`` counts rows left out or replaced.
            on_unknown_field: as for `iter_pods`.
            model: as for `iter_pods`.

        Returns:
            The page.

        Raises:
            ConfigurationError: not exactly one kind of ids, or an invalid argument.
            IefError: the call failed, after all attempts.

        Example:
            ::

                page = await ief.list_pods(node_id=node_ids[0], limit=100)
                print(f"{len(page.items)} of {page.count} pods")
        """
        return await fetch_pods(
            self._transport,
            model,
            ids={
                "deployment_ids": deployment_ids,
                "deployment_id": deployment_id,
                "node_id": node_id,
                "group_id": group_id,
            },
            plugin_instance_name=plugin_instance_name,
            limit=limit,
            offset=offset,
            on_bad_item=on_bad_item,
            on_unknown_field=on_unknown_field,
        )

    @overload
    def iter_pods(
        self, deployment_ids: Ids | None = None, **options: Unpack[PodOptions]
    ) -> Stream[Pod]: ...
    @overload
    def iter_pods(
        self, deployment_ids: Ids | None = None, *, model: type[T], **options: Unpack[PodOptions]
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

        Pages are requested concurrently, in bounded memory, and each pod is delivered once. See
        `Stream` for what is guaranteed, and what is not.

        Args:
            deployment_ids: any iterable or async iterable of ids, or of objects with an `id`, such
                as `iter_deployments`; read as the scan needs them. A batch is sent when it is full
                or the ids end. Duplicate ids are requested once. A collection is copied at once.
                Without ids nothing is requested.
            node_ids: nodes instead of deployments: one query per node, as the API requires.
            group_ids: node groups instead of deployments: one query per group (platinum edition). A
                pod whose node is in two groups is delivered once for each.
            skip_empty_nodes: whether to skip a `Node` that reports no pods (its ``deployment_num``
                is 0); plain ids are never skipped.
            model: an attrs class. Only its fields are decoded, so a few fields cost little.
            page_size: rows per request. If the server returns fewer, the scan needs more requests
                and loses no rows. Rows are structured in chunks, but the ids of a page are read at
                once, which blocks the event loop for about 2 ms per MB.
            batch_size: deployment ids per query; a URL never exceeds 4,000 bytes.
            concurrency: the most requests of this stream in flight; the session's `Limits` also
                apply.
            ordered: whether batches are delivered in the order of their ids, or as they are ready.
            on_error: what happens when a batch fails. "raise": it ends the stream. "defer": all
                other batches are delivered, then `PartialScanError` is raised. "collect": failures
                are listed in ``report.failures``, and nothing is raised. An error that would fail
                every batch, such as an `AuthenticationError`, is always raised at once.
            on_drift: what happens when a list changes while it is read. "repair": pages are read
                again, within bounds, until every pod that existed throughout was delivered; if that
                can't be guaranteed, the report says so and a warning is logged. "raise": the same,
                but then the batch fails with `DriftError`. "report": nothing is read again.
                "ignore": pages do not overlap, no ids are kept, and rows may be lost or repeated.
            on_bad_item: what happens to a row that can't be read. "raise": its batch fails with a
                `PayloadError` that names the field, the item and the request. "skip": the row is
                left out and counted in ``report.bad_items``; the first one is logged as a warning.
                A function: it is called with the row, as `json.loads` returns it, and the
                `PayloadError`, and returns the item to use instead, or None to leave the row out.
                The row is counted in both cases, and an exception of the function ends the scan. A
                row without an id, or that is not an object, also can't be read. A body that is
                malformed as a whole fails its batch.
            on_unknown_field: what happens when `model` has a field that is neither documented nor
                in any row of the first page, such as a misspelt one, which would have its default
                in every item. "warn": a warning is logged, and ``report.unknown_model_fields``
                lists it. "raise": the stream raises a `ConfigurationError` that names it.
            max_items: deliver at most this many; pages that can't be needed are not requested.
            deadline: seconds that the whole scan may take, from the request for the first item.
            resume_from: the checkpoint of an earlier scan with the same ids, `page_size` and
                `batch_size`: an object or its JSON. What it marks as done is not read again.

        Returns:
            A stream that sends nothing before it is iterated.

        Raises:
            ConfigurationError: an argument can't work; nothing was sent.
            CheckpointError: `resume_from` is damaged, newer, or of another scan. If only the ids
                differ, the stream raises it before it requests the batch.

        Example:
            ::

                async for pod in ief.iter_pods(deployment_ids, page_size=500):
                    print(pod.name, pod.state)
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
        """Count pods without reading them, with one request for each batch.

        Args:
            deployment_ids: as for `iter_pods`.
            node_ids: as for `iter_pods`.
            group_ids: as for `iter_pods`.
            skip_empty_nodes: as for `iter_pods`.
            page_size: rows per request of a scan; used only for `PodCount.requests`.
            batch_size: as for `iter_pods`.
            concurrency: the most requests in flight.

        Returns:
            The counts, and how many requests a scan would take.

        Raises:
            ConfigurationError: an argument can't work; nothing was sent.
            PayloadError: the server sends no count.
            IefError: a batch failed, after all attempts.

        Example:
            ::

                counted = await ief.count_pods(deployment_ids)
                print(f"{counted.total} pods in {counted.requests} pages")
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
            on_drift="report",  # one row can't move, and no warning applies
            on_bad_item="skip",  # no row is read
            skip_empty_nodes=skip_empty_nodes,
            count_only=True,
        )
        scan = scan_of(self, spec)
        try:
            await scan.next_page()  # delivers no page, and returns at the end
        finally:
            await scan.aclose()
        counts = [report.count for report in scan.plan.reports()]
        known = tuple(count for count in counts if count is not None)
        if len(known) < len(counts):
            message = "the server sends no count for this list: iter_pods reads it without one"
            raise PayloadError(message, path="count")
        requests = sum(requests_for(count, page_size) for count in known)
        return PodCount(total=sum(known), counts=known, requests=requests)

    # -- other lists ---------------------------------------------------------------------------

    @overload
    def iter_deployments(self, **options: Unpack[DeploymentOptions]) -> "Stream[Deployment]": ...
    @overload
    def iter_deployments(
        self, *, model: type[T], **options: Unpack[DeploymentOptions]
    ) -> Stream[T]: ...
    def iter_deployments(self, **options: Any) -> Stream[Any]:
        """Return a `Stream` of the project's deployments; `iter_pods` accepts it.

        ``GET /v3/{project_id}/edgemgr/deployments``. The list is one batch: any error is raised.

        Args:
            model: as for `iter_pods`. If only ids are needed, a class with only an `id` can't fail
                because of another field.
            options: the filters `name` (a part of it), and `node_id` or `group_id`; `sort`
                (``"created_at:asc"`` or ``"created_at:desc"``); and `page_size` (100 at most),
                `concurrency`, `on_drift`, `on_bad_item`, `on_unknown_field`, `max_items`,
                `deadline` and `resume_from` as for `iter_pods`.

        Returns:
            A stream that sends nothing before it is iterated.

        Raises:
            ConfigurationError: an argument can't work; nothing was sent.
            CheckpointError: `resume_from` is damaged, newer, or of another list.

        Example:
            ::

                async for pod in ief.iter_pods(ief.iter_deployments(name="web")):
                    print(pod.name, pod.state)
        """
        return _stream(self, DEPLOYMENTS, options)

    @overload
    def iter_nodes(self, **options: Unpack[NodeOptions]) -> "Stream[Node]": ...
    @overload
    def iter_nodes(self, *, model: type[T], **options: Unpack[NodeOptions]) -> Stream[T]: ...
    def iter_nodes(self, **options: Any) -> Stream[Any]:
        """Return a `Stream` of the project's edge nodes: ``iter_pods(node_ids=…)`` accepts it.

        ``GET /v2/{project_id}/edgemgr/nodes``.

        Args:
            model: as for `iter_deployments`.
            options: the filters `name` (a part of it), `state`, `tags` (``"key.value,key.value"``;
                takes precedence over `app_name`), `group_id`, `device_id`, `device_name` and
                `app_name`; `sort`; and the others of `iter_deployments`, with a `page_size` of
                1,000 at most.

        Returns:
            A stream that sends nothing before it is iterated.

        Raises:
            ConfigurationError: an argument can't work; nothing was sent.
            CheckpointError: `resume_from` is damaged, newer, or of another list.

        Example:
            ::

                running = ief.iter_nodes(state="RUNNING")
                pods = await ief.iter_pods(node_ids=running).collect()
        """
        return _stream(self, NODES, options)

    @overload
    def iter_groups(self, **options: Unpack[GroupOptions]) -> "Stream[Group]": ...
    @overload
    def iter_groups(self, *, model: type[T], **options: Unpack[GroupOptions]) -> Stream[T]: ...
    def iter_groups(self, **options: Any) -> Stream[Any]:
        """Return a `Stream` of the node groups of a platinum instance, with their nodes.

        ``GET /v2/{project_id}/edgemgr/groups``. A page may be large, as a group contains its nodes.

        Args:
            model: as for `iter_deployments`.
            options: the filter `name`; `sort`; and the others of `iter_deployments`, with a
                `page_size` of 1,000 at most.

        Returns:
            A stream that sends nothing before it is iterated.

        Raises:
            ConfigurationError: an argument can't work; nothing was sent.
            CheckpointError: `resume_from` is damaged, newer, or of another list.

        Example:
            ::

                async for group in ief.iter_groups():
                    print(group.name, len(group.nodes))
        """
        return _stream(self, GROUPS, options)

    @overload
    def iter_instances(self, **options: Unpack[ListOptions]) -> "Stream[Instance]": ...
    @overload
    def iter_instances(self, *, model: type[T], **options: Unpack[ListOptions]) -> Stream[T]: ...
    def iter_instances(self, **options: Any) -> Stream[Any]:
        """Return a `Stream` of the project's platinum (enterprise) instances.

        ``GET /v2/{project_id}/edgemgr/ief-instances``. Their ids are values for `instance_id`.

        Args:
            model: as for `iter_deployments`.
            options: those of `iter_groups`, without filters.

        Returns:
            A stream that sends nothing before it is iterated.

        Raises:
            ConfigurationError: an argument can't work; nothing was sent.
            CheckpointError: `resume_from` is damaged, newer, or of another list.

        Example:
            ::

                async for instance in ief.iter_instances():
                    platinum = ief.with_options(instance_id=instance.id)
                    pods = await platinum.iter_pods(platinum.iter_deployments()).collect()
        """
        return _stream(self, INSTANCES, options)

    # -- the session itself --------------------------------------------------------------------

    def statistics(self) -> SessionStatistics:
        """Return the counters of the session so far.

        Returns:
            A snapshot that includes derived sessions.

        Example:
            ::

                pods = await ief.iter_pods(deployment_ids).collect()
                print(f"{ief.statistics().requests} requests")
        """
        return SessionStatistics(
            **attrs.asdict(self._transport.pacer.counters),
            token_refreshes=self._transport.provider.renewals,
        )

    async def aclose(self) -> None:
        """End all streams, and close the connections, except borrowed and shared ones."""
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
        transport = getattr(
            self, "_transport", None
        )  # a traceback may show a session whose constructor failed
        where = (
            f"project {transport.project.id or transport.project.name} at {transport.endpoint}"
            if transport
            else "?"
        )
        return f"<IefSession: {where}>"


# ---- for scan_fleet and the engines --------------------------------------------------------------


def session_of(
    project_id: str | None = None, *, credentials: Credentials, **parts: Any
) -> IefSession:
    """Return a session made of parts that may be shared: see `connect`."""
    problem = problem_of(credentials)
    if problem is not None:
        del credentials
        raise ConfigurationError(problem)
    session = object.__new__(IefSession)
    session._caps = {}
    session._transport = connect(project_id, credentials=credentials, **parts)
    return session


def scan_of(session: IefSession, spec: ScanSpec[T]) -> Scan[T]:
    """Return a scan by a session."""
    transport, caps = session._transport, session._caps  # noqa: SLF001  not for users
    return Scan(
        spec,
        batcher=spec.batcher(transport.project.id),
        plan=spec.plan(caps.setdefault(spec.listing.key, PageCap())),
        fetch=partial(fetch_page, transport=transport, spec=spec),
        reader=structure_of(spec.model),
        clock=transport.clock,
        observer=transport.observer,
        fingerprint=spec.fingerprint(transport.project.given, transport.instance_id),
    )


def addresses_of(session: IefSession) -> tuple[str, str]:
    """Return the first endpoint of a session, and its IAM endpoint."""
    transport = session._transport  # noqa: SLF001  not for users
    return transport.endpoints.home, transport.iam_endpoint


def _stream(session: IefSession, listing: Listing, options: dict[str, Any]) -> Stream[Any]:
    """Return the stream of a list that has filters instead of ids."""
    model = options.pop("model") if "model" in options else listing.model
    known = listing.options.__annotations__
    unknown = options.keys() - known.keys()
    if unknown:
        names = ", ".join(["model", *sorted(known)])
        refuse(f"an argument of {listing.operation}", f"one of {names}", ", ".join(sorted(unknown)))
    chosen = {name: options.pop(name) for name in sorted(listing.filters) if name in options}
    chosen = {name: value for name, value in chosen.items() if value is not None}
    for name, value in chosen.items():
        check_kind(name, value, str)
    if len(chosen.keys() & set(listing.exclusive)) > 1:
        message = (
            f"only one of {' and '.join(listing.exclusive)} may be given: the service accepts one"
        )
        raise ConfigurationError(message)
    text = "&".join(f"{name}={quote(value, safe='')}" for name, value in chosen.items())
    return Stream(scan_of(session, ScanSpec(listing=listing, ids=[text], model=model, **options)))
