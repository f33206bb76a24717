"""OpenTelemetry for sessions: a span for each scan, and metrics. Needs the extra ``otel``.

::

    ief = IefSession(..., on_event=otel.observer())

Spans:

- ``ief.iter_pods``, ``ief.count_pods``, ``ief.iter_deployments``, …: one for each scan, from the
  request for the first item to the end. Its attributes are the figures of `ScanEnded`, each named
  ``ief.scan.…``, and ``error.type``. Its parent is the span in which the scan started. It is never
  the current span for the consumer's code.
- Single requests have the spans of ``opentelemetry-instrumentation-aiohttp-client``, as children of
  their scan's span. Use the ``url_filter`` of that package to keep ids out of their URLs.

Metrics:

- ``ief.client.items``, a counter of delivered items (pods, nodes, …) by ``ief.operation.name``.
- ``ief.client.requests``, a counter by ``http.request.method``, ``url.template``,
  ``http.response.status_code`` and ``error.type``.
- ``ief.client.request.duration``, a histogram in seconds with the same attributes, of each attempt.
- ``ief.client.active_requests``, an up-down counter of requests in flight by
  ``http.request.method`` and ``url.template``.
- ``ief.client.retries``, a counter by ``url.template`` and ``error.type``.

Only OpenTelemetry's API is used: unless the application sets up an SDK, nothing is recorded.
"""

from collections.abc import Callable
from importlib.metadata import version
from typing import TYPE_CHECKING

from ief_async._errors import ConfigurationError
from ief_async._events import (
    Event,
    PageReady,
    RequestFinished,
    RequestRetried,
    RequestStarted,
    ScanEnded,
    ScanStarted,
)

if TYPE_CHECKING:
    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import Span, TracerProvider

__all__ = ["observer"]

# the buckets of the semantic conventions for `http.client.request.duration`; the default is in ms
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10)
FIGURES = ("items", "pages", "batches", "failed", "retries", "complete", "drift")


def observer(
    *,
    tracer_provider: "TracerProvider | None" = None,
    meter_provider: "MeterProvider | None" = None,
) -> Callable[[Event], None]:
    """Return an ``on_event`` hook that records spans and metrics.

    Args:
        tracer_provider: where spans go; by default the application's provider.
        meter_provider: where metrics go; by default the application's provider.

    Returns:
        The hook. One hook serves any number of sessions.

    Raises:
        ConfigurationError: OpenTelemetry's API is not installed.

    Example:
        ::

            from ief_async import IefSession, otel

            session = IefSession.from_env(on_event=otel.observer())
    """
    try:
        return _Observer(tracer_provider, meter_provider)
    except ImportError:
        message = "OpenTelemetry is not installed: pip install 'ief-async[otel]'"
    raise ConfigurationError(message)


class _Observer:
    """The hook, with its instruments and the spans of the running scans."""

    def __init__(
        self, tracer_provider: "TracerProvider | None", meter_provider: "MeterProvider | None"
    ) -> None:
        from opentelemetry import metrics, trace

        name, our_version = "ief_async", version("ief-async")
        self._tracer = trace.get_tracer(name, our_version, tracer_provider)
        self._scans: dict[int | None, tuple[str, Span]] = {}
        meter = metrics.get_meter(name, our_version, meter_provider)
        self._items = meter.create_counter(
            "ief.client.items", "{item}", "Items (pods, nodes, …) delivered."
        )
        self._requests = meter.create_counter(
            "ief.client.requests", "{request}", "Requests sent, including retries."
        )
        self._duration = meter.create_histogram(
            "ief.client.request.duration",
            "s",
            "Duration of one attempt of a request.",
            explicit_bucket_boundaries_advisory=SECONDS,
        )
        self._active = meter.create_up_down_counter(
            "ief.client.active_requests", "{request}", "Requests in flight."
        )
        self._retries = meter.create_counter("ief.client.retries", "{retry}", "Retries sent.")

    def __call__(self, event: Event) -> None:
        match event:
            case RequestStarted():
                self._active.add(1, _request(event))
            case RequestFinished():
                self._active.add(-1, _request(event))
                attributes = _request(event) | _outcome(event)
                self._requests.add(1, attributes)
                self._duration.record(event.elapsed, attributes)
            case RequestRetried():
                self._retries.add(1, {"url.template": event.path, "error.type": event.error})
            case PageReady():
                operation, _ = self._scans[event.scan]
                self._items.add(event.rows, {"ief.operation.name": operation})
            case ScanStarted():
                self._start(event)
            case ScanEnded():
                self._end(event)

    def _start(self, event: ScanStarted) -> None:
        from opentelemetry import context, trace

        span = self._tracer.start_span(
            f"ief.{event.operation}", attributes={"ief.operation.name": event.operation}
        )
        self._scans[event.scan] = event.operation, span
        # the context belongs to the scan and ends with it, so nothing is detached
        context.attach(trace.set_span_in_context(span))

    def _end(self, event: ScanEnded) -> None:
        from opentelemetry.trace import Status, StatusCode

        _, span = self._scans.pop(event.scan)
        for name in FIGURES:
            if (value := getattr(event, name)) is not None:
                span.set_attribute(f"ief.scan.{name}", value)
        if event.error is not None:
            span.set_attribute("error.type", event.error)
            span.set_status(Status(StatusCode.ERROR, event.error))
        span.end()


def _request(event: RequestStarted | RequestFinished) -> dict[str, str | int]:
    return {"http.request.method": event.method, "url.template": event.path}


def _outcome(event: RequestFinished) -> dict[str, str | int]:
    outcome: dict[str, str | int] = {}
    if event.status is not None:
        outcome["http.response.status_code"] = event.status
    if event.error is not None:
        outcome["error.type"] = event.error
    return outcome
