"""What can go wrong, as one tree. Every branch is one thing that the caller can do about it.

::

    IefError
    ├ ConfigurationError      you: wrong arguments or use; nothing was sent (also ValueError)
    ├ TransportError          no whole answer: DNS, TCP, TLS, time-out, cut body
    ├ ApiError                the server said no
    │ ├ BadRequestError       400, 413, 414, 494
    │ ├ AuthenticationError   401, and a 400 that speaks of the token; or no key to be had
    │ ├ PermissionDeniedError 403
    │ ├ NotFoundError         404
    │ ├ ThrottledError        429
    │ └ ServerError           5xx
    ├ PayloadError            a 200 that is not the documented data; never an empty list
    ├ DriftError              the list could not be read consistently
    ├ CheckpointError         a checkpoint of another scan, damaged, newer, or in use
    └ PartialScanError        some batches or targets failed, all others came (also ExceptionGroup)

Every error is made of plain values, so it pickles. None holds a token, a key or a signed header,
and what a server says in it steers no terminal: such characters are shown escaped.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import attrs

from ief_async._texts import printable

if TYPE_CHECKING:
    from ief_async._checkpoint import ScanCheckpoint

# what a scan does about a batch that failed, about a list that moved under it, about an item that
# can't be read, and about a field of a model that no row has
OnError = Literal["raise", "defer", "collect"]
OnDrift = Literal["repair", "raise", "report", "ignore"]
OnBadItem = Literal["raise", "skip"] | Callable[[Any, "PayloadError"], Any]
OnUnknownField = Literal["warn", "raise"]


class IefError(Exception):
    """The root: ``except IefError`` catches whatever this library raises by itself.

    Attributes:
        message: what failed, where, and what to do next; also ``str(error)``.
        request_id: the server's name for the request, or None if it gave none.
        attempts: how many times the request was sent before this error was raised.
        elapsed: seconds from the start of the first attempt to this error.
        batch: in a scan, the number of the batch (from 0) that failed, else None.
        offset: in a scan, the offset of the page that failed, else None.
        checkpoint: in a scan, what its consumer had finished with, for ``resume_from=``, else None.
        transient: whether the same request may succeed when it is sent again.
    """

    def __init__(self, message: str, *, transient: bool = False) -> None:
        super().__init__(printable(message))
        self.message: str = printable(message)
        self.transient = transient
        self._locate()

    def add_note(self, note: str, /) -> None:
        """Add a note, in which nothing steers a terminal."""
        super().add_note(printable(note, lines=True))

    def __copy__(self) -> Self:
        # a process that runs Dask makes copies of errors that share their attributes
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
    """An argument or a use that can't work. Nothing was sent; change the call."""


class TransportError(IefError):
    """No whole answer came: DNS, TCP, TLS, a time-out, a cut body, or something that is not HTTP.

    It was sent again as often as the `RetryPolicy` allows, unless ``transient`` is False.
    """


class ApiError(IefError):
    """The server answered, and the answer is no.

    Attributes:
        status: the HTTP status.
        error_code: the service's code, such as ``"IEF.100001"`` or ``"APIGW.0308"``; "" if none.
        error_msg: the service's words, shortened to 512 characters; "" if none.
        retry_after: seconds that the server asks to wait, or None if it does not say.
        window: the same, where it stands in the text as the window of a quota ("limit:60,time:1
            minute") and no ``Retry-After`` says more; else None.
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
    """400, 413, 414 or 494: the server refuses the request as it stands."""

    advice = "Check project, ids, filters and limits; for 413, 414 and 494 lower batch_size."


class AuthenticationError(ApiError):
    """401, a 400 that speaks of the token, or no key to be had (its ``status`` may be 0 then).

    It ends a scan under every failure policy; of `scan_fleet`, that of its target.
    """

    advice = "Get a new token for this project and region, and make a new session with it."


class PermissionDeniedError(ApiError):
    """403: the credentials are known, but may not do this."""

    advice = "Ask for read access to IEF in this project."


class NotFoundError(ApiError):
    """404: no such path, project or id at this endpoint."""

    advice = "Check project_id, region and endpoint."


class ThrottledError(ApiError):
    """429, still after all retries, or with a wait above the caps of the `RetryPolicy`."""

    advice = "Wait retry_after seconds if it is given; lower Limits.requests_per_second."


class ServerError(ApiError):
    """5xx: the service failed."""

    advice = "Try again later; give the request id to the service's support."


class PayloadError(IefError):
    """A 200 whose body is not the documented data.

    Attributes:
        path: where in the body, such as ``"pods[3].containers[0].ports[1].host_port"``; "" if the
            body as a whole is wrong.
        snippet: how the body begins if it is no JSON at all (at most 200 characters), else "".
            No value of the data is ever in it, nor in the message, but for the id of the item.
        item_id: the id of the item that can't be read; None if it has none, or if the error is not
            of one item.
    """

    def __init__(
        self, message: str, *, path: str = "", snippet: str = "", transient: bool = False
    ) -> None:
        super().__init__(message, transient=transient)
        self.path: str = printable(path)
        self.snippet: str = printable(snippet)
        self.item_id: str | None = None


class DriftError(IefError):
    """The server's list does not add up: its offset is ignored, or its end never comes."""


class CheckpointError(IefError):
    """A checkpoint that can't be resumed from: of another scan, damaged, newer, or in use."""


@attrs.frozen
class BatchFailure:
    """A batch of a scan that failed, and what it failed with.

    Attributes:
        batch: its number, as in `BatchReport.number`.
        ids: what it asked for.
        error: the error, as the scan would have raised it.
    """

    batch: int
    ids: tuple[str, ...] = attrs.field(repr=lambda ids: f"<{len(ids)} ids>")
    error: IefError


@attrs.frozen
class TargetFailure:
    """A target of `scan_fleet` that failed, wholly or in part, and what it failed with.

    Attributes:
        target: its name.
        error: the error, as a scan of this target alone would have raised it.
    """

    target: str
    error: IefError


Failure = BatchFailure | TargetFailure


class PartialScanError(IefError, ExceptionGroup[IefError]):
    """Some batches of a scan failed, or some targets; all others came before this was raised.

    Attributes:
        failures: which failed, and with what; `exceptions` holds the errors alone.
        checkpoint: what is left: resume from it to read the failed batches again.
    """

    failures: tuple[Failure, ...]

    def __new__(cls, message: str, failures: Sequence[Failure]) -> Self:
        """Make the group of what the batches failed with."""
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

    def derive(self, excs: Sequence[IefError], /) -> "PartialScanError":  # type: ignore[override]  # a part holds the same kind
        """Return the part of it that holds these errors."""
        kept = [failure for failure in self.failures if failure.error in excs]
        part = PartialScanError(self.message, kept)
        part.checkpoint = self.checkpoint
        return part
