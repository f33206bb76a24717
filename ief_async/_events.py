"""What a session tells its ``on_event`` hook: one small frozen object for each thing that happens.

Each holds what stands on this list, and nothing else: paths without ids or query, statuses, request
ids, names of classes, times and counts. No id of a pod, a deployment or a node, no header, no text
that a server sent, no secret. Later versions may add kinds and fields. Pure.
"""

import attrs


@attrs.frozen(kw_only=True)
class Event:
    """Something that happened: the root of all kinds.

    Attributes:
        scan: which scan it belongs to, counted over the whole process; None if to none, such as
            the request of `IefSession.list_pods`, or of a token.
    """

    scan: int | None = None


@attrs.frozen(kw_only=True)
class ScanStarted(Event):
    """The first item of a stream was asked for.

    The hook is called in the context of the scan: a context variable that it sets is seen by all
    requests of this scan, and by nothing else.

    Attributes:
        operation: the method that was called, such as ``"iter_pods"``.
    """

    operation: str


@attrs.frozen(kw_only=True)
class ScanEnded(Event):
    """A scan came to its end, or was left.

    Attributes:
        operation: as in `ScanStarted`.
        items: items handed to the consumer.
        pages: likewise.
        batches: batches started.
        failed: batches that failed, and did not end the scan.
        retries: requests of the scan that were sent again.
        elapsed: seconds since `ScanStarted`.
        complete: whether every batch was read to its end and handed over.
        drift: the worst verdict on any batch, as in `BatchReport`; None if there is none.
        error: the class of what ended it, or None.
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


@attrs.frozen(kw_only=True)
class RequestStarted(Event):
    """A request goes out now. What is between this and its `RequestFinished` is in flight.

    Attributes:
        method: such as ``"GET"``.
        path: without query; ``{project_id}`` stands for the project.
        attempt: how often it was sent, this time included.
    """

    method: str
    path: str
    attempt: int


@attrs.frozen(kw_only=True)
class RequestFinished(Event):
    """A request was answered, or not, or was cancelled. One for each `RequestStarted`.

    Attributes:
        method: as in `RequestStarted`.
        path: likewise.
        attempt: likewise.
        status: the HTTP status, or None if no whole answer came.
        error: the class of the error that it led to, or None. A 200 may be a `PayloadError`.
        elapsed: seconds that this attempt took.
        bytes: the length of the body, decompressed; of an error, as far as it was read.
        request_id: the server's name for it, or None.
    """

    method: str
    path: str
    attempt: int
    status: int | None
    error: str | None
    elapsed: float
    bytes: int
    request_id: str | None


@attrs.frozen(kw_only=True)
class RequestRetried(Event):
    """A request failed, and will be sent again.

    Attributes:
        path: as in `RequestStarted`.
        attempt: the number of the attempt that failed.
        status: the HTTP status of an answer that said no, else None.
        error: the class of its error.
        wait: seconds until the next attempt, at the least.
    """

    path: str
    attempt: int
    status: int | None
    error: str
    wait: float


@attrs.frozen(kw_only=True)
class Throttled(Event):
    """A request was answered 429: nothing of the session is sent for a while, whichever scan's.

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


@attrs.frozen(kw_only=True)
class TokenRefreshed(Event):
    """A token or temporary key was got, for the first time or anew.

    Attributes:
        kind: ``"Token"`` or ``"AccessKey"``.
        lifetime: seconds that it lasts, or None if its source does not say.
    """

    kind: str
    lifetime: float | None


@attrs.frozen(kw_only=True)
class PageReady(Event):
    """A page goes to the consumer.

    Attributes:
        batch: the number of its batch.
        offset: the position of its first row.
        limit: how many rows were asked for.
        rows: how many of its rows are new; over a scan they add up to what is delivered, and what
            `on_bad_item` left out.
        bytes: the length of its body, decompressed.
        elapsed: seconds from the first attempt to the answer, waits included.
        attempts: how often it was asked for.
    """

    batch: int
    offset: int
    limit: int
    rows: int
    bytes: int
    elapsed: float
    attempts: int


@attrs.frozen(kw_only=True)
class BatchDone(Event):
    """A batch was read to its end, or failed; its last pages may still wait for the consumer.

    Where a row shows its fault only when it is delivered, a second one follows, with the error.

    Attributes:
        batch: its number, as in `BatchReport`, where the other figures are explained, too.
        count: the largest count that the server gave for it, or None.
        items: rows delivered or ready to be.
        pages: answers that held rows.
        re_reads: pages asked for again, or to bridge a gap.
        drift: ``"exact"``, ``"repaired"`` or ``"unknown"``; None if it was only counted.
        complete: whether it was read to its end.
        error: the class of what it failed with, or None.
    """

    batch: int
    count: int | None
    items: int
    pages: int
    re_reads: int
    drift: str | None
    complete: bool
    error: str | None


@attrs.frozen(kw_only=True)
class DriftSeen(Event):
    """The list of a batch moved while it was read, or does not add up.

    Attributes:
        batch: its number.
        drift: ``"repaired"`` or ``"unknown"``.
        flags: what did not add up, as in `BatchReport`.
    """

    batch: int
    drift: str
    flags: tuple[str, ...]


@attrs.frozen(kw_only=True)
class LimitClamped(Event):
    """The server gives fewer rows a page than it was asked for: it costs requests, never rows.

    Attributes:
        batch: the number of the batch.
        asked: rows that the scan wants in a page.
        given: rows that come.
    """

    batch: int
    asked: int
    given: int
