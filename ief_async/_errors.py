"""All errors of this library, as one tree. Each class stands for one reaction of the caller.

::

    IefError
    ├ ConfigurationError      wrong arguments or use; nothing was sent (also ValueError)
    ├ TransportError          no complete answer: DNS, TCP, TLS, time-out, cut body
    ├ ApiError                the server refused the request
    │ ├ BadRequestError       400, 413, 414, 494
    │ ├ AuthenticationError   401, and a 400 about the token; or no credentials
    │ ├ PermissionDeniedError 403
    │ ├ NotFoundError         404
    │ ├ ThrottledError        429
    │ └ ServerError           5xx
    ├ PayloadError            a 200 without the documented data; never mistaken for an empty list
    ├ DriftError              the list could not be read consistently
    ├ CheckpointError         a checkpoint of another scan, damaged, newer, or in use
    └ PartialScanError        some batches or targets failed, all others came (also ExceptionGroup)

Every error consists of plain values, so it can be pickled. No error contains a token, a key or a
signed header. Control characters in text from a server are escaped.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import attrs

from ief_async._texts import printable
from ief_async._values import Value

if TYPE_CHECKING:
    from ief_async._checkpoint import ScanCheckpoint

# what a scan does when a batch fails, when a list changes while it is read, when an item can't be
# read, and when a model has a field that no row has
OnError = Literal["raise", "defer", "collect"]
OnDrift = Literal["repair", "raise", "report", "ignore"]
OnBadItem = Literal["raise", "skip"] | Callable[[Any, "PayloadError"], Any]
OnUnknownField = Literal["warn", "raise"]


class IefError(Exception):
    """The base of all errors that this library raises.

    Attributes:
        message: what happened, where, and what to do about it; also ``str(error)``.
        request_id: the server's id of the request, or None if it sent no id.
        attempts: how often the request was sent before this error was raised.
        elapsed: seconds from the start of the first attempt to this error.
        batch: in a scan, the number of the batch (from 0) that failed, else None.
        offset: in a scan, the offset of the page that failed, else None.
        checkpoint: in a scan, where to resume it with ``resume_from=``: after the items that the
            consumer had processed. Else None.
        transient: whether the same request may succeed when it is sent again.

    Example:
        ::

            from ief_async import IefError

            try:
                pods = await ief.iter_pods(ids).collect()
            except IefError as error:
                print(error.message, error.request_id)
    """

    def __init__(self, message: str, *, transient: bool = False) -> None:
        super().__init__(printable(message))
        self.message: str = printable(message)
        self.transient = transient
        self._locate()

    def add_note(self, note: str, /) -> None:
        """Add a note, with its control characters escaped."""
        super().add_note(printable(note, lines=True))

    def __copy__(self) -> Self:
        # Dask copies errors, and the copies would share their attributes
        again = type(self).__new__(type(self), *self.args)
        again.args = self.args
        vars(again).update(vars(self))
        return again

    def _locate(self) -> None:
        self.request_id: str | None = None
        self.attempts = 0
        self.elapsed: float = 0.0
        self.batch: int | None = None
        self.offset: int | None = None
        self.checkpoint: ScanCheckpoint | None = None


class ConfigurationError(IefError, ValueError):
    """Invalid arguments or use. Nothing was sent: change the call."""


class TransportError(IefError):
    """No complete answer: DNS, TCP, TLS, a time-out, a cut body, or something that is not HTTP.

    The request was retried as often as the `RetryPolicy` allows, unless ``transient`` is False.
    """


class ApiError(IefError):
    """The server refused the request.

    Attributes:
        status: the HTTP status.
        error_code: the service's code, such as ``"IEF.100001"`` or ``"APIGW.0308"``; "" if it
            sent none.
        error_msg: the service's message, shortened to 512 characters; "" if it sent none.
        retry_after: seconds to wait, as the server asks, or None if it does not say.
        window: seconds to wait if the message states the window of a quota ("limit:60,time:1
            minute") and no longer ``Retry-After`` was sent; else None.
    """

    advice: ClassVar[str] = "See the error code in the service's documentation."

    def __init__(
        self,
        message: str,
        *,
        status: int = 0,
        error_code: str = "",
        error_msg: str = "",
        retry_after: float | None = None,
        transient: bool = False,
    ) -> None:
        super().__init__(message, transient=transient)
        self.status = status
        self.error_code: str = printable(error_code)
        self.error_msg: str = printable(error_msg)
        self.retry_after = retry_after
        self.window: float | None = None


class BadRequestError(ApiError):
    """400, 413, 414 or 494: the server refuses this request, and would refuse it again."""

    advice = "Check project, ids, filters and limits; for 413, 414 and 494 lower batch_size."


class AuthenticationError(ApiError):
    """401, a 400 about the token, or no credentials (``status`` is 0 if nothing was sent).

    It ends a scan, regardless of ``on_error``; in `scan_fleet` it ends only the scan of its target.
    """

    advice = "Get a new token for this project and region, and make a new session with it."


class PermissionDeniedError(ApiError):
    """403: the credentials are valid, but lack the permission."""

    advice = "Ask for read access to IEF in this project."


class NotFoundError(ApiError):
    """404: no such path, project or id at this endpoint."""

    advice = "Check project_id, region and endpoint."


class ThrottledError(ApiError):
    """429, after all retries, or with a wait longer than the `RetryPolicy` allows."""

    advice = "Wait retry_after seconds if it is given; lower Limits.requests_per_second."


class ServerError(ApiError):
    """5xx: the service failed."""

    advice = "Try again later; give the request id to the service's support."


class PayloadError(IefError):
    """A 200 whose body is not the documented data.

    Attributes:
        path: where in the body, such as ``"pods[3].containers[0].ports[1].host_port"``; "" if the
            body as a whole is wrong.
        snippet: the beginning of a body that is not JSON at all (at most 200 characters), else "".
            Neither it nor the message contains a value of the data, except the id of the item.
        item_id: the id of the item that can't be read; None if the item has no id, or if the error
            is not about one item.
    """

    def __init__(
        self, message: str, *, path: str = "", snippet: str = "", transient: bool = False
    ) -> None:
        super().__init__(message, transient=transient)
        self.path: str = printable(path)
        self.snippet: str = printable(snippet)
        self.item_id: str | None = None


class DriftError(IefError):
    """The server's list is not consistent: it ignores the offset, or the list never ends."""


class CheckpointError(IefError):
    """A checkpoint that can't be used: of another scan, damaged, newer, or in use."""


@attrs.frozen(eq=False, repr=False)
class BatchFailure(Value):
    """A batch of a scan that failed, and its error.

    Attributes:
        batch: the number of the batch, as in `BatchReport.number`.
        ids: the ids of the batch.
        error: the error that ``on_error="raise"`` would have raised.
    """

    batch: int
    ids: tuple[str, ...] = attrs.field(repr=lambda ids: f"<{len(ids)} ids>")
    error: IefError


@attrs.frozen(eq=False, repr=False)
class TargetFailure(Value):
    """A target of `scan_fleet` that failed, completely or in part, and its error.

    Attributes:
        target: the name of the target.
        error: the error, as a scan of this target alone would have raised it.
    """

    target: str
    error: IefError


Failure = BatchFailure | TargetFailure


class PartialScanError(IefError, ExceptionGroup[IefError]):
    """Some batches of a scan, or some targets, failed; all others were delivered before.

    Attributes:
        failures: what failed, each with its error; `exceptions` has the errors alone.
        checkpoint: resume from it to read only the failed batches again.
    """

    failures: tuple[Failure, ...]

    def __new__(cls, message: str, failures: Sequence[Failure]) -> Self:
        """Make a group of the errors."""
        made = super().__new__(cls, printable(message), [failure.error for failure in failures])
        made.failures = tuple(failures)
        return made

    def __init__(self, message: str, failures: Sequence[Failure]) -> None:
        # `message` is the group's own, and can't be set
        BaseException.__init__(self, message, failures)
        self._locate()

    def __reduce__(self) -> Any:
        state = {name: value for name, value in vars(self).items() if name != "failures"}
        return type(self), (self.message, self.failures), state

    def derive(self, excs: Sequence[IefError], /) -> "PartialScanError":  # type: ignore[override]  # a part has the same kind
        """Return a group with only the failures that have these errors."""
        kept = [failure for failure in self.failures if failure.error in excs]
        part = PartialScanError(self.message, kept)
        part.checkpoint = self.checkpoint
        return part
