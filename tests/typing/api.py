"""What type checkers must see. Never run, only checked."""

from collections.abc import AsyncIterator, Callable, Mapping
from typing import Literal, assert_type

import aiohttp
import attrs

from ief_async import (
    AccessKey,
    BatchDone,
    BatchFailure,
    BatchReport,
    Deployment,
    DriftSeen,
    EcsMetadata,
    Event,
    Group,
    IefSession,
    Instance,
    LimitClamped,
    Limits,
    Node,
    Page,
    PageReady,
    PasswordCredentials,
    Pod,
    PodCount,
    RequestFinished,
    RequestRetried,
    RequestStarted,
    RetryPolicy,
    ScanCheckpoint,
    ScanEnded,
    ScanProgress,
    ScanReport,
    ScanStarted,
    SessionStatistics,
    Stream,
    Target,
    TargetFailure,
    Throttled,
    Timeouts,
    Token,
    TokenRefreshed,
    scan_fleet,
    sparse,
)
from ief_async.otel import observer


@attrs.frozen
class Row:
    """A class of a user's own."""

    id: str


@sparse("state")
@attrs.frozen(kw_only=True)
class SparseRow:
    """One of which most rows lack most fields: a checker sees no difference."""

    id: str
    state: str | None = None


async def ids() -> AsyncIterator[str]:
    """Ids that are discovered while the scan runs."""
    yield "d"


async def session(http: aiohttp.ClientSession) -> None:
    """A session and what it gives."""
    async with IefSession(
        "p",
        credentials=Token("t"),
        region="cn-north-4",
        http=http,
        retry=RetryPolicy(attempts=3),
        limits=Limits(requests_per_second=10),
        timeout=Timeouts(total=5),
    ) as ief:
        assert_type(ief, IefSession)
        assert_type(ief.iter_pods(["d"]), Stream[Pod])
        assert_type(ief.iter_pods(ids()), Stream[Pod])
        assert_type(ief.iter_pods(node_ids={"n"}, model=Row), Stream[Row])
        assert_type(ief.iter_pods(["d"], model=SparseRow), Stream[SparseRow])
        assert_type(SparseRow(id="p").state, str | None)
        assert_type(await ief.list_pods(node_id="n"), Page[Pod])
        assert_type(await ief.list_pods(deployment_ids=["d"], model=Row), Page[Row])
        assert_type(await ief.count_pods(["d"]), PodCount)
        assert_type(ief.statistics(), SessionStatistics)
        assert_type(ief.with_options(retry=RetryPolicy()), IefSession)
        assert_type(ief.iter_deployments(name="a"), Stream[Deployment])
        assert_type(ief.iter_nodes(state="RUNNING", page_size=500), Stream[Node])
        assert_type(ief.iter_nodes(model=Row, tags="a.b"), Stream[Row])
        assert_type(ief.iter_groups(), Stream[Group])
        assert_type(ief.iter_instances(max_items=1), Stream[Instance])
        assert_type(ief.iter_pods(ief.iter_deployments()), Stream[Pod])
        assert_type(ief.iter_pods(node_ids=ief.iter_nodes(), skip_empty_nodes=False), Stream[Pod])
        assert_type(ief.iter_pods([Row("d")], resume_from="{}", max_items=3), Stream[Pod])


async def token() -> Token:
    """A source of a user's own."""
    return Token("t")


def credentials() -> None:
    """Every kind of credentials is taken."""
    IefSession("p", credentials=AccessKey("a", "s", "t"), region="cn-north-4")
    IefSession(credentials=EcsMetadata(timeout=2), region="cn-north-4")
    IefSession(credentials=PasswordCredentials(domain="d", user="u", password="p", project="x"))
    IefSession("p", credentials=token, region="cn-north-4", iam_endpoint="https://iam.example.com")
    assert_type(IefSession.from_env("profile", region="cn-north-4"), IefSession)


async def fleet() -> None:
    """Many targets, and what they give."""
    target = Target(credentials=token, region="cn-north-4")
    assert_type(scan_fleet([target]), Stream[tuple[Target, Pod]])
    stream = scan_fleet([target], by="nodes", model=Row)
    assert_type(stream, Stream[tuple[Target, Row]])
    async for at, row in stream:
        assert_type((at, row), tuple[Target, Row])
    assert_type(stream.checkpoint(), ScanCheckpoint)


async def stream(scan: Stream[Row]) -> None:
    """A stream and what it gives."""
    async with scan as same:
        assert_type(same, Stream[Row])
        async for row in scan:
            assert_type(row, Row)
        async for page in scan.pages():
            assert_type(page.items, tuple[Row, ...])
            assert_type(page.raw, bytes)
            assert_type((page.count, page.limit), tuple[int | None, int | None])
            assert_type(page.checkpoint, ScanCheckpoint | None)
    assert_type(await scan.collect(), list[Row])
    assert_type(scan.progress, ScanProgress)
    assert_type(scan.report, ScanReport)
    await scan.aclose()


def results(progress: ScanProgress, report: ScanReport, batch: BatchReport) -> None:
    """What a scan tells of itself."""
    assert_type((progress.items, progress.expected_items), tuple[int, int | None])
    assert_type((progress.fraction, progress.eta), tuple[float | None, float | None])
    assert_type(report.batches, tuple[BatchReport, ...])
    assert_type(report.failures, tuple[BatchFailure | TargetFailure, ...])
    assert_type(report.complete, bool)
    assert_type(report.unknown_fields, Mapping[str, int])
    assert_type(batch.drift, Literal["exact", "repaired", "unknown"])
    assert_type(batch.flags, tuple[str, ...])
    assert_type(batch.count, int | None)


def figures(count: PodCount, statistics: SessionStatistics) -> None:
    """What a count and a session tell."""
    assert_type((count.total, count.requests), tuple[int, int])
    assert_type(count.counts, tuple[int, ...])
    assert_type((statistics.requests, statistics.throttles), tuple[int, int])


def checkpoint(one: ScanCheckpoint) -> None:
    """A checkpoint comes from its JSON and goes there."""
    assert_type(one.to_json(), str)
    assert_type(ScanCheckpoint.from_json(b"{}"), ScanCheckpoint)
    assert_type(ScanCheckpoint.merge(one, one), ScanCheckpoint)


def told(event: Event) -> None:
    """A hook, and what it finds in each kind."""
    assert_type(event.scan, int | None)
    match event:
        case RequestStarted() | RequestFinished():
            assert_type((event.method, event.path, event.attempt), tuple[str, str, int])
        case RequestRetried():
            assert_type((event.wait, event.error, event.status), tuple[float, str, int | None])
        case Throttled():
            assert_type((event.wait, event.retry_after), tuple[float, float | None])
        case PageReady():
            assert_type((event.batch, event.rows, event.bytes), tuple[int, int, int])
        case BatchDone():
            assert_type((event.batch, event.drift, event.error), tuple[int, str | None, str | None])
        case DriftSeen():
            assert_type(event.flags, tuple[str, ...])
        case LimitClamped():
            assert_type((event.asked, event.given), tuple[int, int])
        case TokenRefreshed():
            assert_type((event.kind, event.lifetime), tuple[str, float | None])
        case ScanStarted() | ScanEnded():
            assert_type(event.operation, str)


def hooks() -> None:
    """Whatever takes an event at once is a hook, OpenTelemetry's included."""
    target = Target(credentials=token, region="cn-north-4")
    assert_type(observer(), Callable[[Event], None])
    IefSession("p", credentials=token, region="cn-north-4", on_event=observer())
    IefSession.from_env(on_event=told)
    scan_fleet([target], on_event=told)
    scan_fleet([target], model=Row, on_event=print)
