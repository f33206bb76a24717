"""The events that a session passes to its ``on_event`` hook: small frozen objects.

An event contains only the attributes listed here: paths without ids and query, statuses, request
ids, names of classes, times and counts. It contains no id of a pod, a deployment or a node, no
header, no text from a server and no secret. Later versions may add events and attributes. Pure.
"""

import attrs

from ief_async._values import Value


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Event(Value):
    """The base of all events.

    Attributes:
        scan: the number of its scan, unique in the process; None if it belongs to no scan, such as
            the request of `IefSession.list_pods` or one for a token.

    Example:
        ::

            from ief_async import Event, IefSession, ScanEnded

            def on_event(event: Event) -> None:
                if isinstance(event, ScanEnded):
                    print(event.items, event.elapsed)


            session = IefSession.from_env(on_event=on_event)
    """

    scan: int | None = None


@attrs.frozen(kw_only=True, eq=False, repr=False)
class ScanStarted(Event):
    """A scan started: the consumer requested the first item of a stream.

    The hook is called in the context of the scan: a context variable that it sets is visible to all
    requests of this scan, and to nothing else.

    Attributes:
        operation: the method that was called, such as ``"iter_pods"``.
    """

    operation: str


@attrs.frozen(kw_only=True, eq=False, repr=False)
class ScanEnded(Event):
    """A scan ended, or was abandoned.

    Attributes:
        operation: as in `ScanStarted`.
        items: items delivered to the consumer.
        pages: pages delivered to the consumer.
        batches: batches started.
        failed: batches that failed without ending the scan.
        retries: requests of the scan that were retried.
        elapsed: seconds since `ScanStarted`.
        complete: whether every batch was read to its end and delivered.
        drift: the worst verdict on any batch, as in `BatchReport`; None if no batch has one.
        error: the class of the error that ended it, or None.
    """

    operation: str
    items: int
    pages: int
    batches: int
    failed: int
    retries: int
    elapsed: float
    complete: bool
    drift: str | None
    error: str | None


@attrs.frozen(kw_only=True, eq=False, repr=False)
class RequestStarted(Event):
    """A request is being sent. It is in flight until its `RequestFinished`.

    Attributes:
        method: such as ``"GET"``.
        path: without query; ``{project_id}`` stands for the project.
        attempt: the number of the attempt, from 1.
    """

    method: str
    path: str
    attempt: int


@attrs.frozen(kw_only=True, eq=False, repr=False)
class RequestFinished(Event):
    """A request was answered, failed, or was cancelled. There is one for each `RequestStarted`.

    Attributes:
        method: as in `RequestStarted`.
        path: as in `RequestStarted`.
        attempt: as in `RequestStarted`.
        status: the HTTP status, or None without a complete response.
        error: the class of its error, or None. A 200 may lead to a `PayloadError`.
        elapsed: seconds that this attempt took.
        bytes: the length of the decompressed body; for an error, of the part that was read.
        request_id: the server's id of the request, or None.
    """

    method: str
    path: str
    attempt: int
    status: int | None
    error: str | None
    elapsed: float
    bytes: int
    request_id: str | None


@attrs.frozen(kw_only=True, eq=False, repr=False)
class RequestRetried(Event):
    """A request failed, and will be retried.

    Attributes:
        path: as in `RequestStarted`.
        attempt: the number of the attempt that failed.
        status: the HTTP status, or None without a complete response.
        error: the class of its error.
        wait: seconds until the next attempt, at least.
    """

    path: str
    attempt: int
    status: int | None
    error: str
    wait: float


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Throttled(Event):
    """A request was answered 429: the session pauses all requests of all its scans.

    Attributes:
        path: as in `RequestStarted`.
        wait: seconds until the session sends again.
        retry_after: seconds that the server asked for, or None.
        concurrency: requests that may be in flight from now on.
    """

    path: str
    wait: float
    retry_after: float | None
    concurrency: int


@attrs.frozen(kw_only=True, eq=False, repr=False)
class TokenRefreshed(Event):
    """A token or temporary access key was obtained, for the first time or again.

    Attributes:
        kind: ``"Token"`` or ``"AccessKey"``.
        lifetime: seconds until it expires, or None if its source does not say.
    """

    kind: str
    lifetime: float | None


@attrs.frozen(kw_only=True, eq=False, repr=False)
class PageReady(Event):
    """A page is delivered to the consumer.

    Attributes:
        batch: the number of its batch.
        offset: the position of its first row.
        limit: how many rows were requested.
        rows: how many of its rows are new. Over a scan their sum is the number of items delivered
            plus the number that ``on_bad_item`` left out.
        bytes: the length of its decompressed body.
        elapsed: seconds from the first attempt to the response, including waits.
        attempts: how often it was requested.
    """

    batch: int
    offset: int
    limit: int
    rows: int
    bytes: int
    elapsed: float
    attempts: int


@attrs.frozen(kw_only=True, eq=False, repr=False)
class BatchDone(Event):
    """A batch was read to its end, or failed; its last pages may still wait for the consumer.

    If an item proves unreadable only when it is delivered, a second event follows, with the error.

    Attributes:
        batch: its number, as in `BatchReport`, which also explains the other figures.
        count: the largest count that the server sent for it, or None.
        items: items of it that were delivered or are ready.
        pages: responses with rows.
        re_reads: pages requested again, or requested to bridge a gap.
        drift: ``"exact"``, ``"repaired"`` or ``"unknown"``; None if it was only counted.
        complete: whether it was read to its end.
        error: the class of its error, or None.
    """

    batch: int
    count: int | None
    items: int
    pages: int
    re_reads: int
    drift: str | None
    complete: bool
    error: str | None


@attrs.frozen(kw_only=True, eq=False, repr=False)
class DriftSeen(Event):
    """The list of a batch changed while it was read, or is not consistent.

    Attributes:
        batch: its number.
        drift: ``"repaired"`` or ``"unknown"``.
        flags: what was inconsistent, as in `BatchReport`.
    """

    batch: int
    drift: str
    flags: tuple[str, ...]


@attrs.frozen(kw_only=True, eq=False, repr=False)
class LimitClamped(Event):
    """The server sends fewer rows in a page than requested. This costs requests, but loses no rows.

    Attributes:
        batch: the number of the batch.
        asked: how many rows the scan requests in a page.
        given: how many rows the server sends.
    """

    batch: int
    asked: int
    given: int
