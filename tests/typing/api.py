"""What type checkers must see. Never run, only checked."""

from collections.abc import AsyncIterator
from typing import assert_type

import aiohttp
import attrs

from ief_async import (
    AccessKey,
    BatchReport,
    Deployment,
    EcsMetadata,
    Group,
    IefSession,
    Instance,
    Limits,
    Node,
    Page,
    PasswordCredentials,
    Pod,
    PodCount,
    RetryPolicy,
    ScanCheckpoint,
    ScanProgress,
    ScanReport,
    SessionStatistics,
    Stream,
    Target,
    Timeouts,
    Token,
    scan_fleet,
)


@attrs.frozen
class Row:
    """A class of a user's own."""

    id: str


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
    assert_type(await scan.collect(), list[Row])
    assert_type(scan.progress, ScanProgress)
    assert_type(scan.report, ScanReport)
    assert_type(scan.report.batches, tuple[BatchReport, ...])


def pod(one: Pod) -> None:
    """A pod and its parts."""
    assert_type(one.id, str)
    assert_type(one.state, str | None)
    assert_type(one.containers[0].ports[0].host_port, int | None)
