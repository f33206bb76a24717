"""A request on its way: its state, and the events that tell of it."""

import logging

import attrs

from ief_async._http.exchange import Exchange, Unreached
from ief_async._observer import Observer


@attrs.define
class Sending:
    """The state of a request.

    Attributes:
        started: when it began.
        path: what events call it.
        scan: the scan that it is of, or None.
        sent: how often it was sent.
        refused: how often it was refused for a key that was then renewed.
        stale: whether its key is an old one.
        fresh: whether it needs a new connection.
    """

    started: float
    path: str
    scan: int | None = None
    sent: int = 0
    refused: int = 0
    stale: bool = False
    fresh: bool = False

    def tell_started(self, observer: Observer, method: str) -> None:
        """Emit the event that an attempt begins."""
        from ief_async._events import RequestStarted  # most sessions make no event

        observer.tell(
            RequestStarted(scan=self.scan, method=method, path=self.path, attempt=self.sent)
        )

    def tell_finished(
        self,
        observer: Observer,
        method: str,
        elapsed: float,
        reached: Exchange | Unreached | None,
        outcome: object,
    ) -> None:
        """Emit the event that an attempt ended, and write its line.

        Args:
            observer: who is told.
            method: of the request.
            elapsed: seconds that the attempt took.
            reached: what came, or None if the attempt was cancelled or broke.
            outcome: what that means: an `Unreached`, an error, or a value.
        """
        from ief_async._events import RequestFinished

        failure = outcome.error if isinstance(outcome, Unreached) else outcome
        finished = RequestFinished(
            scan=self.scan,
            method=method,
            path=self.path,
            attempt=self.sent,
            status=reached.status if isinstance(reached, Exchange) else None,
            error=type(failure).__name__ if isinstance(failure, BaseException) else None,
            elapsed=elapsed,
            bytes=len(reached.body) if isinstance(reached, Exchange) else 0,
            request_id=getattr(failure, "request_id", None),
        )
        observer.tell(
            finished,
            logging.DEBUG,
            "%s %s: %s in %.3f s, attempt %d, %d bytes, request id %s",
            method,
            finished.path,
            " ".join(str(one) for one in (finished.status, finished.error) if one is not None),
            elapsed,
            finished.attempt,
            finished.bytes,
            finished.request_id,
        )
