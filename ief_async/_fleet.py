"""Many projects, regions and instances as one stream: a session and a scan for each target."""

import asyncio
import operator
from collections import Counter, deque
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain, repeat
from typing import Any, Generic, Literal, NoReturn, TypeVar, get_args, overload

import attrs

from ief_async._auth import (
    Credentials,
    Key,
    Keyring,
    Source,
    kind_of,
)
from ief_async._checkpoint import ScanCheckpoint, fingerprint
from ief_async._endpoints import PODS, Found, FoundNode
from ief_async._errors import (
    CheckpointError,
    ConfigurationError,
    IefError,
    OnBadItem,
    OnDrift,
    OnError,
    OnUnknownField,
    PartialScanError,
    TargetFailure,
)
from ief_async._http import Connections, HttpSession
from ief_async._models import Pod
from ief_async._observer import Observer, OnEvent
from ief_async._paging import Selector
from ief_async._policies import Clock, Limits, RetryPolicy, Timeouts
from ief_async._scan import (
    Reader,
    Scan,
    ScanProgress,
    ScanReport,
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
FLEET = fingerprint("scan_fleet")  # what tells a fleet's checkpoint from that of one scan


@attrs.frozen(kw_only=True)
class Target:
    """A fleet of `scan_fleet`: a project, or one instance of it, at one endpoint.

    Attributes:
        credentials: as for `IefSession`, as are all others.
        project_id: without it, it is looked up as the project that `region` names.
        region: such as ``"cn-north-4"``.
        endpoint: ``https://host[:port]`` instead.
        iam_endpoint: where tokens are got and projects looked up.
        instance_id: the platinum (enterprise) instance; without it the professional edition.
    """

    credentials: Credentials = attrs.field(repr=False, hash=False)
    project_id: str | None = None
    region: str | None = None
    endpoint: str | None = None
    iam_endpoint: str | None = None
    instance_id: str | None = None

    @property
    def name(self) -> str:
        """What errors and reports call it: where it is, its project and its instance."""
        parts = (self.region or self.endpoint, self.project_id, self.instance_id)
        return "/".join(part for part in parts if part)


@attrs.define(eq=False)
class _Member(Generic[T]):
    """A target at work.

    `name` tells it from the others, and so does `mark`: the fingerprint of what its checkpoint is
    of, which is its scan's where no other target has the same.
    """

    target: Target
    scan: Scan[T]
    name: str
    mark: int
    over: bool = False


class _Fleet(Generic[T]):
    """The engine of a stream over many scans: whichever has something to give is next."""

    of_targets = True

    def __init__(
        self,
        members: Sequence[_Member[T]],
        connections: Connections,
        on_error: OnError,
        reader: Reader[T],
    ) -> None:
        self._members = members
        self._reader = reader
        self._turns = deque(members)
        self._connections = connections
        self._on_error = on_error
        self._failures: dict[Target, TargetFailure] = {}
        self._served: _Member[T] | None = None  # whose items the consumer has in hand
        self._waiter: asyncio.Future[None] | None = None
        self._over = False
        self._busy = False
        for member in members:
            member.scan.on_change = self._wake

    @property
    def reader(self) -> Reader[Any]:
        """What the items of all targets are made by."""
        return self._reader

    @reader.setter
    def reader(self, reader: Reader[Any]) -> None:
        self._reader = reader
        for member in self._members:
            member.scan.reader = reader.for_target(member.target)

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def next_items(self) -> Iterator[Any]:
        """Return some items of whichever target has any, each with its target; none at the end."""
        with self._one_consumer():
            while (member := await self._choose()) is not None:
                try:
                    items = await member.scan.next_items()
                except IefError as error:
                    problem = error
                else:
                    if operator.length_hint(items):
                        return zip(repeat(member.target), items, strict=False)
                    member.over = member.scan.over
                    continue
                await self._bear(member, problem)
            return iter(())

    async def next_whole_page(self) -> Any:
        """Return the next page of any target, or None at the end."""
        with self._one_consumer():
            while (member := await self._choose()) is not None:
                try:
                    page = await member.scan.next_whole_page()
                except IefError as error:
                    problem = error
                else:
                    if page is not None:
                        items = tuple(zip(repeat(member.target), page.items, strict=False))
                        checkpoint = self._checkpoint(member, page.checkpoint)
                        whole: Any = page  # its items are of another type from here on
                        return attrs.evolve(whole, items=items, checkpoint=checkpoint)
                    member.over = member.scan.over
                    continue
                await self._bear(member, problem)
            return None

    @contextmanager
    def _one_consumer(self) -> Iterator[None]:
        if self._busy:
            message = "two tasks iterate this stream at once: give each its own scan_fleet()"
            raise ConfigurationError(message)
        self._busy = True
        try:
            yield
        except BaseException:
            self._cancel()
            self._connections.abandon()
            raise
        finally:
            self._busy = False

    async def _choose(self) -> _Member[T] | None:
        if self._served is not None:
            self._served.scan.settle()
            self._served = None
        while not self._over:
            running = [member for member in self._turns if not member.over]
            if not running:
                await self._end()
                return None
            for member in running:
                member.scan.begin()
                if member.scan.ready:
                    self._served = member
                    self._turns.remove(member)
                    self._turns.append(member)  # behind the others
                    return member
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        return None

    async def _bear(self, member: _Member[T], error: IefError) -> None:
        """Note that a target failed, or end all of them if that is the policy."""
        error.add_note(f"In target {member.name}.")
        if self._on_error == "raise" or member.scan.fatal:
            await self.aclose()
            self._raise(error)
        self._failures[member.target] = TargetFailure(member.name, error)

    async def _end(self) -> None:
        await self.aclose()
        if self._failures and self._on_error == "defer":
            message = (
                f"{len(self._failures)} of {len(self._members)} targets failed, wholly or in part; "
                "all others were delivered; resume from .checkpoint to read what is missing"
            )
            self._raise(PartialScanError(message, list(self._failures.values())))

    def _raise(self, error: IefError) -> NoReturn:
        error.checkpoint = self.checkpoint()
        try:
            raise error
        finally:
            del error  # it holds this frame, which would hold it: a cycle

    def _cancel(self) -> None:
        self._over = True
        for member in self._members:
            member.scan.cancel()
        self._wake()

    def abandon(self) -> None:
        """End all scans from wherever the garbage collector happens to run."""
        self._over = True
        for member in self._members:
            member.scan.abandon()
        self._connections.abandon()

    async def aclose(self) -> None:
        """End all scans, and wait until no task of them runs and every connection is closed."""
        self._cancel()
        cancelled: asyncio.CancelledError | None = None
        for member in self._members:
            try:
                await member.scan.aclose()
            except asyncio.CancelledError as error:  # the others end all the same
                cancelled = cancelled or error
        await self._connections.close()
        if cancelled is not None:
            try:
                raise cancelled
            finally:
                del cancelled  # it holds this frame, which would hold it: a cycle

    def checkpoint(self) -> ScanCheckpoint:
        """Return what the consumer is done with, of each target."""
        return self._checkpoint(None, None)

    def _checkpoint(
        self, member: _Member[T] | None, checkpoint: ScanCheckpoint | None
    ) -> ScanCheckpoint:
        targets = tuple(
            attrs.evolve(
                checkpoint if one is member and checkpoint is not None else one.scan.checkpoint(),
                scan=one.mark,
            )
            for one in self._members
        )
        return ScanCheckpoint(scan=FLEET, parts=(), targets=targets)

    def progress(self) -> ScanProgress:
        """Return how far all targets are together."""
        all_of = [member.scan.progress() for member in self._members]
        expected = [one.expected_items for one in all_of]
        known = [number for number in expected if number is not None]
        return ScanProgress(
            batches=sum(one.batches for one in all_of),
            pages=sum(one.pages for one in all_of),
            items=sum(one.items for one in all_of),
            expected_items=sum(known) if len(known) == len(expected) else None,
            retries=sum(one.retries for one in all_of),
            elapsed=max((one.elapsed for one in all_of), default=0.0),
        )

    def _all_failures(self, reports: Mapping[Target, ScanReport]) -> tuple[TargetFailure, ...]:
        """Return the targets that failed; with "collect" their scans raise nothing."""
        failures = dict(self._failures)
        for member in self._members:
            target, report = member.target, reports[member.target]
            if report.failures and target not in failures:
                message = f"{len(report.failures)} batches failed, all others were delivered"
                error = PartialScanError(message, report.failures)
                failures[target] = TargetFailure(member.name, error)
        return tuple(failures.values())

    def report(self) -> ScanReport:
        """Return what all targets came to, and each."""
        targets = {member.target: member.scan.report() for member in self._members}
        reports = targets.values()
        fields: Counter[str] = Counter()
        values: Counter[str] = Counter()
        for report in reports:
            fields.update(report.unknown_fields)
            values.update(report.unknown_values)
        return ScanReport(
            batches=tuple(chain.from_iterable(report.batches for report in reports)),
            failures=self._all_failures(targets),
            unknown_fields=dict(fields),
            unknown_values=dict(values),
            pages=sum(report.pages for report in reports),
            items=sum(report.items for report in reports),
            bad_items=sum(report.bad_items for report in reports),
            unknown_model_fields=_in_all(report.unknown_model_fields for report in reports),
            retries=sum(report.retries for report in reports),
            elapsed=max((report.elapsed for report in reports), default=0.0),
            most_pages=sum(report.most_pages for report in reports),
            most_bytes=sum(report.most_bytes for report in reports),
            complete=not self._failures and all(report.complete for report in reports),
            targets=targets,
        )


@overload
def scan_fleet(
    targets: Iterable[Target],
    *,
    by: By = "deployments",
    page_size: int = 100,
    batch_size: int = 100,
    concurrency: int = 8,
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
) -> Stream[tuple[Target, Pod]]: ...
@overload
def scan_fleet(
    targets: Iterable[Target],
    *,
    by: By = "deployments",
    model: type[T],
    page_size: int = 100,
    batch_size: int = 100,
    concurrency: int = 8,
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
) -> Stream[tuple[Target, T]]: ...
def scan_fleet(
    targets: Iterable[Target],
    *,
    by: By = "deployments",
    model: type[Any] = Pod,
    page_size: int = 100,
    batch_size: int = 100,
    concurrency: int = 8,
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

    Each target is a session of its own, with limits, retry budget and pause of its own, and a scan
    of its own window: one that is slow, throttled or failing holds no other up. Items come from
    whichever target has some, in turn; within a target as `IefSession.iter_pods` has it. All
    sessions are closed when the stream ends.

    Args:
        targets: the fleets, each once. One project_id at two endpoints or regions is two of them,
            and so are two accounts in one region whose projects are looked up.
        by: what a target's pods are found by: its deployments (the fewest requests), its nodes
            (pods of no deployment, too), or its node groups.
        model: as for `iter_pods`.
        page_size: likewise.
        batch_size: likewise.
        concurrency: requests of each target in flight at most.
        ordered: of the batches of each target, as for `iter_pods`.
        on_error: "defer": a target that fails, wholly or in part, stands in the `PartialScanError`
            that is raised when all others were delivered. "collect": in ``report.failures`` alone.
            "raise": the first failure ends the stream. Even an `AuthenticationError` is one
            target's business.
        on_drift: as for `iter_pods`.
        on_bad_item: as for `iter_pods`. With "skip" a deployment (node, group) without an id is
            left out, too, and counted in the report's ``targets[…].ids``.
        on_unknown_field: as for `iter_pods`, for the first page of each target.
        deadline: seconds that the whole may take.
        resume_from: the checkpoint of an earlier scan of the same targets. A target whose
            deployments (nodes, groups) have changed since fails with a `CheckpointError`. Targets
            that only their endpoints or accounts tell apart have to have the same ones again; of
            credentials without a name (a token, a function, temporary keys) the same order.
        http: an `aiohttp.ClientSession` for all of them to borrow.
        proxy: as for `IefSession`, for all of them.
        retry: of each target.
        limits: of each target.
        timeout: of each attempt.
        on_event: as for `IefSession`, for all of them.

    Raises:
        ConfigurationError: an argument that can't work; nothing was sent.
        CheckpointError: `resume_from` is damaged, newer, or holds other targets.
    """
    if by not in get_args(By):
        message = f"by takes one of {', '.join(get_args(By))}, but was given {by!r:.80}"
        raise ConfigurationError(message)
    given = _checked(targets)
    connections = Connections(http, proxy)
    spec = ScanSpec(
        listing=PODS,
        selector=SELECTORS[by],
        ids=(),  # what each target lists
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
    """Return the stream of all targets, whose sessions are made of these parts.

    `spec` is what is read of each target; its ids are what the target lists.
    """
    keyrings: dict[Any, Keyring] = {}
    sessions = [
        session_of(
            **attrs.asdict(target, recurse=False),
            connections=connections,
            observer=observer,
            clock=clock,
            keyring=_shared(keyrings, target.credentials, clock, observer),
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
    members = [
        _Member(*parts) for parts in zip(targets, scans, _names(targets), marks, strict=True)
    ]
    return Stream(_Fleet(members, connections, spec.on_error, structure_of(spec.model)))


def _marks(
    targets: Sequence[Target], sessions: Sequence[IefSession], asked: Sequence[int]
) -> list[int]:
    """Return a fingerprint of each target: of its scan, and more where that is another's, too.

    A project's id at two endpoints is two projects, and so is a region's own for two accounts. They
    are told apart by what is no secret; credentials that have nothing such by their position.
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
            "two targets are the same fleet: give each project or instance once at each endpoint; "
            "where two accounts have a region in common, give project_id= of each, or credentials "
            "that differ"
        )
        raise ConfigurationError(message)
    return marks


def _resumed(
    parts: Mapping[int, ScanCheckpoint], marks: Sequence[int], asked: Sequence[int]
) -> dict[int, ScanCheckpoint]:
    """Return what a checkpoint holds of each target, by the target's position.

    What it holds of a target that no other was like is the target's, wherever that answers now.
    """
    found = {at: parts[mark] for at, mark in enumerate(marks) if mark in parts}
    same = Counter(asked)
    for at, one in enumerate(asked):
        if one in parts and same[one] == 1:
            found[at] = parts[one]
    left = len(parts) - len({part.scan for part in found.values()})
    if left:
        message = (
            f"the checkpoint is of another scan: it holds {left} targets that are not "
            "given; resume with the same targets, by, page_size and batch_size"
        )
        raise CheckpointError(message)
    return found


def _names(targets: Sequence[Target]) -> list[str]:
    """Return what each target is called, so that no two have one name."""
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


def _in_all(names: Iterable[Sequence[str]]) -> tuple[str, ...]:
    """Return the names that stand in every one of these."""
    first, *others = [*names] or [()]
    return tuple(one for one in first if all(one in other for other in others))


def _checked(targets: object) -> tuple[Target, ...]:
    """Return the targets, or refuse what are none."""
    given = tuple(targets) if isinstance(targets, Iterable) else None
    wrong = [targets] if given is None else [one for one in given if not isinstance(one, Target)]
    if given is None or wrong:
        message = f"targets takes an iterable of Target, but was given {type(wrong[0]).__name__}"
        raise ConfigurationError(message)
    return given


def _scan(session: IefSession, spec: ScanSpec[T]) -> Scan[T]:
    """Return the scan of all pods of a session's project, found by what it lists."""
    found_by: dict[str, Any] = {"deadline": spec.deadline, "on_drift": spec.on_drift}
    # a function is for pods: what has no id is an error then
    found_by["on_bad_item"] = "skip" if spec.on_bad_item == "skip" else "raise"
    found: Stream[Any]
    if spec.selector == "node_id":
        found = session.iter_nodes(model=FoundNode, **found_by)
    elif spec.selector == "group_id":
        found = session.iter_groups(model=Found, **found_by)
    else:
        # what comes while the scan runs, or before it is resumed, stands behind the others
        found = session.iter_deployments(model=Found, sort="created_at:asc", **found_by)
    return scan_of(session, attrs.evolve(spec, ids=found))


def _shared(
    keyrings: dict[Any, Keyring], credentials: Credentials, clock: Clock, observer: Observer
) -> Keyring | None:
    """Return one keyring for all targets of a source whose keys are for any project.

    Of a source whose keys are for one project the targets share what is known of it; of a key or a
    password all keyrings do anyway.
    """
    known = isinstance(credentials, Source) or callable(credentials)
    by_value = isinstance(credentials, Key) or kind_of(credentials).identity() is not None
    if by_value or not known:
        return None  # of what is no credentials nothing is kept: it may be the token itself
    same = credentials if isinstance(credentials, Hashable) else id(credentials)
    keyring = keyrings.setdefault(same, Keyring(credentials, clock, observer))
    return keyring.for_another_project()


def _parts(given: object) -> dict[int, ScanCheckpoint]:
    """Return what a checkpoint holds of each target, by its fingerprint."""
    checkpoint = as_checkpoint(given)
    if checkpoint is None:
        return {}
    if checkpoint.scan != FLEET:
        message = "the checkpoint is not one of scan_fleet: give it to iter_pods"
        raise CheckpointError(message)
    return {target.scan: target for target in checkpoint.targets}
