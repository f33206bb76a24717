"""Many projects, regions and instances in one stream: a session and a scan for each target."""

from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any, Literal, TypedDict, TypeVar, Unpack, get_args, overload

import attrs

from ief_async._arguments import check_number
from ief_async._auth import (
    CredentialProvider,
    Credentials,
    Key,
    Source,
    kind_of,
)
from ief_async._checkpoint import ScanCheckpoint, fingerprint
from ief_async._endpoints import PODS, Listed, ListedNode
from ief_async._errors import (
    CheckpointError,
    ConfigurationError,
    OnBadItem,
    OnDrift,
    OnError,
    OnUnknownField,
)
from ief_async._http import Connections, HttpSession
from ief_async._models import Pod
from ief_async._observer import Observer, OnEvent
from ief_async._paging import Selector
from ief_async._policies import Clock, Limits, RetryPolicy, Timeouts
from ief_async._scan import (
    FLEET,
    MOST_CONCURRENT,
    Fleet,
    Member,
    Scan,
    ScanSpec,
    Stream,
    as_checkpoint,
)
from ief_async._session import IefSession, addresses_of, scan_of, session_of
from ief_async._structure import structure_of

T = TypeVar("T")

By = Literal["deployments", "nodes", "groups"]

SELECTORS: dict[By, Selector] = {
    "deployments": "deployment_ids",
    "nodes": "node_id",
    "groups": "group_id",
}


@attrs.frozen(kw_only=True)
class Target:
    """One fleet of `scan_fleet`: a project, or one of its instances, at one endpoint.

    All attributes are those of `IefSession`.

    Attributes:
        credentials: how requests of this target are authenticated.
        project_id: without it the project named after `region` is looked up.
        region: such as ``"cn-north-4"``.
        endpoint: ``https://host[:port]`` instead of a region.
        iam_endpoint: where tokens are requested and projects looked up.
        instance_id: the platinum (enterprise) instance; None for the professional edition.
    """

    credentials: Credentials = attrs.field(repr=False, hash=False)
    project_id: str | None = None
    region: str | None = None
    endpoint: str | None = None
    iam_endpoint: str | None = None
    instance_id: str | None = None

    @property
    def name(self) -> str:
        """Its name in errors and reports: region or endpoint, project and instance."""
        parts = (self.region or self.endpoint, self.project_id, self.instance_id)
        return "/".join(part for part in parts if part)


class FleetOptions(TypedDict, total=False):
    """The options of `scan_fleet`, except the model."""

    by: By
    page_size: int
    batch_size: int
    concurrency: int
    concurrency_total: int
    ordered: bool
    on_error: OnError
    on_drift: OnDrift
    on_bad_item: OnBadItem
    on_unknown_field: OnUnknownField
    deadline: float | None
    resume_from: ScanCheckpoint | str | bytes | None
    http: HttpSession | None
    proxy: str | None
    retry: RetryPolicy
    limits: Limits
    timeout: Timeouts
    on_event: OnEvent | None


@overload
def scan_fleet(
    targets: Iterable[Target], **options: Unpack[FleetOptions]
) -> Stream[tuple[Target, Pod]]: ...
@overload
def scan_fleet(
    targets: Iterable[Target], *, model: type[T], **options: Unpack[FleetOptions]
) -> Stream[tuple[Target, T]]: ...
def scan_fleet(
    targets: Iterable[Target],
    *,
    by: By = "deployments",
    model: type[Any] = Pod,
    page_size: int = 100,
    batch_size: int = 100,
    concurrency: int = 8,
    concurrency_total: int = 64,
    ordered: bool = True,
    on_error: OnError = "defer",
    on_drift: OnDrift = "repair",
    on_bad_item: OnBadItem = "raise",
    on_unknown_field: OnUnknownField = "warn",
    deadline: float | None = None,
    resume_from: ScanCheckpoint | str | bytes | None = None,
    http: HttpSession | None = None,
    proxy: str | None = None,
    retry: RetryPolicy = RetryPolicy(),
    limits: Limits = Limits(),
    timeout: Timeouts = Timeouts(),
    on_event: OnEvent | None = None,
) -> Stream[Any]:
    """Return a `Stream` of ``(target, pod)`` over the whole fleet of every target.

    Each target has a session of its own, with its own limits, retry budget and pauses after a 429,
    and a scan with its own window, so a slow, throttled or failing target does not delay the
    others. At most 64 targets are read at once, not counting those that bring nothing for a second;
    the others begin in their order when one is over. Targets that have items ready deliver them in
    turn; within a target the order is that of `IefSession.iter_pods`. All sessions are closed when
    the stream ends.

    Args:
        targets: the fleets, each once. One project_id at two endpoints or regions is two targets;
            two accounts in one region whose projects are looked up are also two targets.
        by: how a target's pods are found: by its deployments (the fewest requests), its nodes (also
            finds pods of no deployment), or its node groups.
        model: as for `iter_pods`.
        page_size: as for `iter_pods`.
        batch_size: as for `iter_pods`.
        concurrency: requests of one target in flight at most.
        concurrency_total: requests in flight, and connections open, at most, of all targets
            together, requests for tokens included. Targets get equal shares, and a target leaves as
            many unused as it holds, so a slow one holds at most half of them; one that waits to
            retry a request holds none. If the pool of a borrowed `http` is smaller, that is
            the limit; its idle connections belong to its owner.
        ordered: as for `iter_pods`, for the batches of each target.
        on_error: what happens when a target fails, completely or in part. "defer": all others are
            delivered, then a `PartialScanError` that names it is raised. "collect": it is listed in
            ``report.failures``, and nothing is raised. "raise": the first failure ends the stream.
            An `AuthenticationError` also fails only its target.
        on_drift: as for `iter_pods`.
        on_bad_item: as for `iter_pods`. With "skip" a deployment (node, group) without an id is
            left out as well, and counted in the report's ``targets[…].ids``.
        on_unknown_field: as for `iter_pods`, for the first page of each target.
        deadline: seconds that the whole scan may take.
        resume_from: the checkpoint of an earlier scan of the same targets. A target whose
            deployments (nodes, groups) have changed since fails with a `CheckpointError`. Targets
            that differ only in their endpoint or account must have the same endpoint or account
            again. Those with credentials that have no name (a token, a function, temporary keys)
            must be in the same order.
        http: an `aiohttp.ClientSession` that all targets borrow.
        proxy: as for `IefSession`, for all targets.
        retry: as for `IefSession`, for each target.
        limits: as for `IefSession`, for each target.
        timeout: as for `IefSession`: how long one attempt may take.
        on_event: as for `IefSession`, for all targets.

    Returns:
        A stream that sends nothing before it is iterated. Its report has one report per target.

    Raises:
        ConfigurationError: an argument can't work; nothing was sent.
        CheckpointError: `resume_from` is damaged, newer, or of other targets.

    Example:
        ::

            targets = [
                Target(
                    project_id=fake.project_id,
                    endpoint=fake.endpoint,
                    credentials=Token(fake.token),
                ),
            ]
            async with scan_fleet(targets) as stream:
                async for target, pod in stream:
                    print(target.name, pod.name)
    """
    if by not in get_args(By):
        message = f"by must be one of {', '.join(map(repr, get_args(By)))}, got {by!r:.80}"
        raise ConfigurationError(message)
    given = _checked(targets)
    check_number("concurrency_total", concurrency_total, least=1, most=MOST_CONCURRENT, whole=True)
    connections = Connections(http, proxy, most=concurrency_total)
    spec = ScanSpec(
        listing=PODS,
        selector=SELECTORS[by],
        ids=(),  # each target lists its own
        model=model,
        page_size=page_size,
        batch_size=batch_size,
        concurrency=concurrency,
        ordered=ordered,
        on_error=on_error,
        on_drift=on_drift,
        on_bad_item=on_bad_item,
        on_unknown_field=on_unknown_field,
        deadline=deadline,
    )
    return fleet_of(
        given,
        spec,
        resume_from=resume_from,
        connections=connections,
        observer=Observer(on_event),
        retry=retry,
        limits=limits,
        timeout=timeout,
    )


def fleet_of(
    targets: Sequence[Target],
    spec: ScanSpec[Any],
    *,
    resume_from: ScanCheckpoint | str | bytes | None,
    connections: Connections,
    observer: Observer,
    clock: Clock = Clock(),
    **policies: Any,
) -> Stream[Any]:
    """Return the stream of all targets, with sessions made of these parts.

    `spec` says how each target is read; its ids are replaced by those that the target lists.
    """
    providers: dict[Any, CredentialProvider] = {}
    sessions = [
        session_of(
            **attrs.asdict(target, recurse=False),
            connections=connections,
            observer=observer,
            clock=clock,
            provider=_shared(providers, target.credentials, clock, observer),
            **policies,
        )
        for target in targets
    ]
    scans = [_scan(session, spec) for session in sessions]
    asked = [scan.fingerprint for scan in scans]
    marks = _marks(targets, sessions, asked)
    resumed = _resumed(_parts(resume_from), marks, asked)
    for at, part in resumed.items():
        own = attrs.evolve(part, scan=asked[at])
        scans[at] = _scan(sessions[at], attrs.evolve(spec, resume_from=own))
    members = [Member(*parts) for parts in zip(targets, scans, _names(targets), marks, strict=True)]
    reader = structure_of(spec.model)
    return Stream(Fleet(members, connections, spec.on_error, reader))


def _marks(
    targets: Sequence[Target], sessions: Sequence[IefSession], asked: Sequence[int]
) -> list[int]:
    """Return a fingerprint of each target: that of its scan, extended where two scans share one.

    The same project id at two endpoints means two projects, and so does the looked-up project of
    one region for two accounts. Such targets are distinguished by endpoint and account name, or by
    their position if their credentials have no name.
    """
    same = Counter(asked)
    where = [
        addresses_of(session)[: 1 if target.project_id else 2]
        for target, session in zip(targets, sessions, strict=True)
    ]
    marks = list(asked)
    for at, target in enumerate(targets):
        if same[asked[at]] == 1:
            continue
        account: object = None
        if target.project_id is None:
            alike = [
                other
                for other, place, scan in zip(targets, where, asked, strict=True)
                if (place, scan) == (where[at], asked[at])
            ]
            account = kind_of(target.credentials).account() or alike.index(target)
        marks[at] = fingerprint("target", asked[at], where[at], account)
    if len(set(marks)) < len(marks):
        message = (
            "two targets are the same fleet: give each project or instance once per endpoint; for "
            "two accounts in one region, give project_id= of each, or different credentials"
        )
        raise ConfigurationError(message)
    return marks


def _resumed(
    parts: Mapping[int, ScanCheckpoint], marks: Sequence[int], asked: Sequence[int]
) -> dict[int, ScanCheckpoint]:
    """Return the part of a checkpoint for each target, by the target's position.

    A target whose scan is unique is found by the scan's fingerprint, even at another endpoint.
    """
    found = {at: parts[mark] for at, mark in enumerate(marks) if mark in parts}
    same = Counter(asked)
    for at, one in enumerate(asked):
        if one in parts and same[one] == 1:
            found[at] = parts[one]
    left = len(parts) - len({part.scan for part in found.values()})
    if left:
        message = (
            f"the checkpoint is of another scan: it has {left} targets that are not "
            "given; resume with the same targets, by, page_size and batch_size"
        )
        raise CheckpointError(message)
    return found


def _names(targets: Sequence[Target]) -> list[str]:
    """Return a unique name for each target."""
    names = [target.name for target in targets]
    for more in (
        lambda target: target.endpoint,
        lambda target: kind_of(target.credentials).login(),
    ):
        same = Counter(names)
        names = [
            f"{name} at {told}" if same[name] > 1 and (told := more(target)) else name
            for name, target in zip(names, targets, strict=True)
        ]
    same = Counter(names)
    return [f"{name} #{at}" if same[name] > 1 else name for at, name in enumerate(names, 1)]


def _checked(targets: object) -> tuple[Target, ...]:
    """Return the targets as a tuple, or raise an error."""
    given = tuple(targets) if isinstance(targets, Iterable) else None
    wrong = [targets] if given is None else [one for one in given if not isinstance(one, Target)]
    if given is None or wrong:
        message = f"targets must be an iterable of Target, got {type(wrong[0]).__name__}"
        raise ConfigurationError(message)
    return given


def _scan(session: IefSession, spec: ScanSpec[T]) -> Scan[T]:
    """Return the scan of all pods of a session's project, by the ids that the project lists."""
    found_by: dict[str, Any] = {"deadline": spec.deadline, "on_drift": spec.on_drift}
    # a function is only for pods: with one, a row without an id is an error
    found_by["on_bad_item"] = "skip" if spec.on_bad_item == "skip" else "raise"
    found: Stream[Any]
    if spec.selector == "node_id":
        found = session.iter_nodes(model=ListedNode, **found_by)
    elif spec.selector == "group_id":
        found = session.iter_groups(model=Listed, **found_by)
    else:
        # oldest first, so that new deployments come after the known ones, also when it is resumed
        found = session.iter_deployments(model=Listed, sort="created_at:asc", **found_by)
    return scan_of(session, attrs.evolve(spec, ids=found))


def _shared(
    providers: dict[Any, CredentialProvider],
    credentials: Credentials,
    clock: Clock,
    observer: Observer,
) -> CredentialProvider | None:
    """Return a shared provider if the credentials are a source, else None.

    All targets with the same source share its keys if they are valid for any project, and what is
    known about the source otherwise. Keys and passwords are shared by value without this.
    """
    known = isinstance(credentials, Source) or callable(credentials)
    by_value = isinstance(credentials, Key) or kind_of(credentials).identity() is not None
    if by_value or not known:
        return None  # an invalid value is not stored: it may be the token itself
    same = credentials if isinstance(credentials, Hashable) else id(credentials)
    provider = providers.setdefault(same, CredentialProvider(credentials, clock, observer))
    return provider.for_another_project()


def _parts(given: object) -> dict[int, ScanCheckpoint]:
    """Return the parts of a checkpoint by the fingerprint of their target."""
    checkpoint = as_checkpoint(given)
    if checkpoint is None:
        return {}
    if checkpoint.scan != FLEET:
        message = "the checkpoint is not of scan_fleet: pass it to iter_pods"
        raise CheckpointError(message)
    return {target.scan: target for target in checkpoint.targets}
