"""OpenTelemetry beside its own aiohttp instrumentation: spans, metrics, and no ids in either."""

import asyncio
import subprocess
import sys
from collections import Counter
from contextlib import asynccontextmanager

import pytest
from conftest import session_with, until
from opentelemetry import trace
from opentelemetry.instrumentation.aiohttp_client import AioHttpClientInstrumentor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from ief_async import (
    ConfigurationError,
    PasswordCredentials,
    RetryPolicy,
    ServerError,
    otel,
)
from ief_async.testing import FakeIef, Fault

PODS = "/v3/{project_id}/edgemgr/pods"
METHOD, TEMPLATE = "http.request.method", "url.template"
STATUS, ERROR = "http.response.status_code", "error.type"


class Telemetry:
    """What an application sets up, with all that it collected."""

    def __init__(self):
        self._spans = InMemorySpanExporter()
        self.tracers = TracerProvider()
        self.tracers.add_span_processor(SimpleSpanProcessor(self._spans))
        self._metrics = InMemoryMetricReader()
        self.meters = MeterProvider([self._metrics])
        self.hook = otel.observer(tracer_provider=self.tracers, meter_provider=self.meters)

    @property
    def spans(self):
        """All spans that have ended."""
        return self._spans.get_finished_spans()

    @property
    def scans(self):
        """Those of scans, by their names."""
        return {span.name: span for span in self.spans if span.name.startswith("ief.")}

    def children(self, span):
        """Return the spans whose parent is this one."""
        return [one for one in self.spans if one.parent and one.parent == span.context]

    def points(self, name):
        """Return the present points of a metric of ours, by their attributes."""
        data = self._metrics.get_metrics_data()
        (ours,) = [
            scope
            for resource in data.resource_metrics
            for scope in resource.scope_metrics
            if scope.scope.name == "ief_async"
        ]
        (metric,) = [one for one in ours.metrics if one.name == name]
        return {frozenset(one.attributes.items()): one for one in metric.data.data_points}

    def values(self, name):
        """Return the present values of a metric of ours, by their attributes."""
        return {attributes: point.value for attributes, point in self.points(name).items()}


def with_(**attributes):
    """Return attributes as the points have them, with dots where these names have blanks."""
    names = {"method": METHOD, "path": TEMPLATE, "status": STATUS, "error": ERROR}
    return frozenset((names[name], value) for name, value in attributes.items())


@pytest.fixture
def telemetry():
    """Set up OpenTelemetry, its instrumentation of aiohttp included, for one test."""
    telemetry = Telemetry()
    instrumentor = AioHttpClientInstrumentor()
    instrumentor.instrument(
        tracer_provider=telemetry.tracers,
        meter_provider=telemetry.meters,
        url_filter=lambda url: str(url.with_query(None)),
    )
    yield telemetry
    instrumentor.uninstrument()


@asynccontextmanager
async def watched(telemetry, pods=250, *, session=None, **options):
    """Run a fake fleet of one deployment, and a session with it that is observed."""
    given = {"retry": RetryPolicy(base=0, throttled_base=0), "on_event": telemetry.hook}
    async with (
        FakeIef(pods, **{"deployments": 1, **options}) as fake,
        session_with(fake, **given, **(session or {})) as ief,
    ):
        yield fake, ief


# ---- spans ---------------------------------------------------------------------------------------


async def test_scan_is_a_span_between_its_caller_and_its_requests(telemetry):
    """The caller's span is the parent of the scan's, which is that of each attempt's."""
    tracer = telemetry.tracers.get_tracer("an application")
    async with watched(telemetry) as (fake, ief):
        fake.script(Fault.status(503))
        with tracer.start_as_current_span("the application's") as outer:
            await ief.iter_pods(fake.deployment_ids).collect()

    scan = telemetry.scans["ief.iter_pods"]
    assert outer.get_span_context() == scan.parent
    assert SpanKind.INTERNAL is scan.kind
    requests = telemetry.children(scan)
    assert 4 == len(requests) == len(fake.requests)
    assert {SpanKind.CLIENT} == {span.kind for span in requests}
    assert 6 == len(telemetry.spans)


async def test_span_has_the_figures_of_its_scan(telemetry):
    """Its attributes are what ScanEnded says; a scan that ends well has no status."""
    async with watched(telemetry) as (fake, ief):
        fake.script(Fault.status(503))
        await ief.iter_pods(fake.deployment_ids).collect()

    scan = telemetry.scans["ief.iter_pods"]
    assert {
        "ief.operation.name": "iter_pods",
        "ief.scan.items": 250,
        "ief.scan.pages": 3,
        "ief.scan.batches": 1,
        "ief.scan.failed": 0,
        "ief.scan.retries": 1,
        "ief.scan.complete": True,
        "ief.scan.drift": "exact",
    } == dict(scan.attributes)
    assert StatusCode.UNSET is scan.status.status_code


async def test_span_of_a_failed_scan_says_what_ended_it(telemetry):
    """A scan that an error ends is an error, under the name of its class."""
    async with watched(telemetry) as (fake, ief):
        fake.intercept(lambda _: Fault.status(500))
        with pytest.raises(ServerError):
            await ief.iter_pods(fake.deployment_ids).collect()

    scan = telemetry.scans["ief.iter_pods"]
    assert (StatusCode.ERROR, "ServerError") == (scan.status.status_code, scan.status.description)
    assert "ServerError" == scan.attributes["error.type"]
    assert not scan.attributes["ief.scan.complete"]


async def test_scan_that_is_left_ends_its_span(telemetry):
    """A bare break ends the span, too, and is no error."""
    async with watched(telemetry) as (fake, ief):
        async for _ in ief.iter_pods(fake.deployment_ids):
            break
        await asyncio.sleep(0)

    scan = telemetry.scans["ief.iter_pods"]
    assert StatusCode.UNSET is scan.status.status_code
    assert not scan.attributes["ief.scan.complete"]


async def test_consumer_keeps_its_own_span(telemetry):
    """Between items the current span is the consumer's, and what it starts is no scan's child."""
    tracer = telemetry.tracers.get_tracer("an application")
    async with watched(telemetry, 20) as (fake, ief):
        with tracer.start_as_current_span("the application's") as outer:
            async for _ in ief.iter_pods(fake.deployment_ids):
                assert outer is trace.get_current_span()
                with tracer.start_as_current_span("its work"):
                    pass

    assert 20 == sum(
        span.name == "its work" and span.parent == outer.get_span_context()
        for span in telemetry.spans
    )


async def test_scans_side_by_side_keep_their_requests_apart(telemetry):
    """Of two scans that run at once each span has its own requests, and no other."""
    async with watched(telemetry, 900, deployments=2, latency=0.002) as (fake, ief):
        await asyncio.gather(
            *(ief.iter_pods([one], page_size=50).collect() for one in fake.deployment_ids)
        )

    first, second = [span for span in telemetry.spans if span.name == "ief.iter_pods"]
    assert len(fake.requests) == len(telemetry.children(first)) + len(telemetry.children(second))
    assert 10 == len(telemetry.children(first)) == len(telemetry.children(second))


async def test_scan_that_feeds_another_is_its_child(telemetry):
    """iter_pods(iter_deployments()): the list of deployments is read within the scan of pods."""
    async with watched(telemetry, deployments=4) as (_, ief):
        await ief.iter_pods(ief.iter_deployments()).collect()

    outer, inner = telemetry.scans["ief.iter_pods"], telemetry.scans["ief.iter_deployments"]
    assert outer.context == inner.parent
    assert telemetry.children(inner)


async def test_login_belongs_to_the_scan_that_needs_it(telemetry):
    """The request for a token is a child of the scan's span, like all that it waits for."""
    async with FakeIef(50, deployments=1) as fake:
        secret = PasswordCredentials(domain=fake.domain, user=fake.user, password=fake.password)
        options = {"credentials": secret, "iam_endpoint": fake.iam_endpoint}
        async with session_with(fake, **options, on_event=telemetry.hook) as ief:
            await ief.iter_pods(fake.deployment_ids).collect()

    requests = telemetry.children(telemetry.scans["ief.iter_pods"])
    assert Counter(POST=1, GET=1) == Counter(span.name for span in requests)


async def test_single_call_has_no_span_but_its_requests(telemetry):
    """list_pods is one request, whose span the instrumentation makes."""
    async with watched(telemetry) as (fake, ief):
        await ief.list_pods(deployment_id=fake.deployment_ids[0])

    assert ["GET"] == [span.name for span in telemetry.spans]


# ---- metrics -------------------------------------------------------------------------------------


async def test_requests_are_counted_and_timed_by_what_came_of_them(telemetry):
    """Requests, their times and repeats stand under path template, status and class of error."""
    async with watched(telemetry) as (fake, ief):
        fake.script(Fault.status(503), Fault.html(), Fault.reset(), Fault.throttle("0"))
        await ief.iter_pods(fake.deployment_ids).collect()

    get = {"method": "GET", "path": PODS}
    wanted = {
        with_(**get, status=200): 3,
        with_(**get, status=503, error="ServerError"): 1,
        with_(**get, status=200, error="PayloadError"): 1,
        with_(**get, status=429, error="ThrottledError"): 1,
        with_(**get, error="TransportError"): 1,
    }
    assert wanted == telemetry.values("ief.client.requests")
    times = telemetry.points("ief.client.request.duration")
    assert wanted == {attributes: point.count for attributes, point in times.items()}
    assert all(0 < point.sum < 10 for point in times.values())
    errors = ["ServerError", "PayloadError", "TransportError", "ThrottledError"]
    assert {with_(path=PODS, error=error): 1 for error in errors} == (
        telemetry.values("ief.client.retries")
    )


async def test_items_are_counted_by_what_lists_them(telemetry):
    """Each pod and each deployment that is delivered counts once, whatever pages overlap."""
    async with watched(telemetry, 1000, deployments=7) as (_, ief):
        await ief.iter_pods(ief.iter_deployments()).collect()

    assert {
        frozenset({("ief.operation.name", "iter_pods")}): 1000,
        frozenset({("ief.operation.name", "iter_deployments")}): 7,
    } == telemetry.values("ief.client.items")


async def test_requests_in_flight_go_up_and_down(telemetry):
    """What is in flight is seen while it is, and nothing is left of it when a scan is left."""
    attributes = with_(method="GET", path=PODS)
    async with watched(telemetry, 1000) as (fake, ief):
        fake.intercept(lambda seen: Fault.hang() if seen.query["offset"] != "0" else None)
        async with ief.iter_pods(fake.deployment_ids, concurrency=4) as scan:
            items = aiter(scan)
            await anext(items)
            await until(lambda: fake.statistics().in_flight == 4)
            assert {attributes: 4} == telemetry.values("ief.client.active_requests")

    assert {attributes: 0} == telemetry.values("ief.client.active_requests")


async def test_buckets_are_made_for_seconds(telemetry):
    """The histogram tells 10 ms from 100 ms, which the usual buckets would not."""
    async with watched(telemetry) as (fake, ief):
        await ief.list_pods(deployment_id=fake.deployment_ids[0])

    (point,) = telemetry.points("ief.client.request.duration").values()
    assert otel.SECONDS == point.explicit_bounds


# ---- what it needs, and what it never shows ------------------------------------------------------


async def test_no_span_and_no_metric_names_a_secret_or_an_id(telemetry):
    """Over scans with faults: no token, password, id of a pod, a deployment or the project."""
    async with FakeIef(300, deployments=3, fault_rate=0.3, seed=2) as fake:
        secret = PasswordCredentials(domain=fake.domain, user=fake.user, password=fake.password)
        options = {"credentials": secret, "iam_endpoint": fake.iam_endpoint}
        retry = RetryPolicy(attempts=20, base=0, throttled_base=0)
        async with session_with(fake, **options, retry=retry, on_event=telemetry.hook) as ief:
            await ief.iter_pods(fake.deployment_ids, batch_size=1, page_size=20).collect()
        issued = {seen.headers.get("x-auth-token", "?" * 99) for seen in fake.requests}

    ours = [span.to_json() for span in telemetry.spans if span.name.startswith("ief.")]
    told = "".join(ours) + telemetry._metrics.get_metrics_data().to_json()
    theirs = "".join(span.to_json() for span in telemetry.spans)
    secrets = {fake.password, fake.user, *issued}
    ids = {*fake.deployment_ids, *fake.pod_ids()}
    assert 1 == len(ours)
    assert "ServerError" in told
    assert [] == [one for one in secrets | ids if one in told or one in theirs]
    assert fake.project_id not in "".join(ours)


def test_missing_package_is_named(monkeypatch):
    """Without OpenTelemetry the error says what to install."""
    monkeypatch.setitem(sys.modules, "opentelemetry", None)

    with pytest.raises(ConfigurationError, match=r"pip install 'ief-async\[otel\]'"):
        otel.observer()


def test_api_alone_is_loaded():
    """The module loads nothing of OpenTelemetry, a hook loads its API, and no SDK ever."""
    code = """
import sys
def loaded(name): return [one for one in sys.modules if one.startswith(name)]
import ief_async, ief_async.otel as otel
assert not loaded("opentelemetry")
hook = otel.observer()
assert loaded("opentelemetry.trace") and not loaded("opentelemetry.sdk")
hook(ief_async.ScanStarted(scan=1, operation="iter_pods"))
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], check=False, capture_output=True, text=True
    )

    assert ("", 0) == (done.stderr, done.returncode)
