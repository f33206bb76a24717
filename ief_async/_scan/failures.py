"""What a failed request or batch means for its scan, and what is kept of it."""

from collections.abc import Sequence
from typing import Any

from ief_async._errors import (
    ApiError,
    AuthenticationError,
    BatchFailure,
    CheckpointError,
    ConfigurationError,
    DriftError,
    IefError,
    PartialScanError,
)
from ief_async._paging import PageRequest
from ief_async._scan.reports import ScanReport
from ief_async._scan.spec import ScanSpec

NOTE_IDS = 3
TOO_LARGE = frozenset({413, 414, 494})  # with fewer ids in the query it may be answered
TOO_SLOW = 504  # with fewer rows, too
# what fails every batch alike
FATAL = (AuthenticationError, CheckpointError, ConfigurationError)


def status_of(error: Exception) -> int:
    """Return the HTTP status that a request failed with; 0 if there is none."""
    return error.status if isinstance(error, ApiError) else 0


def fails_every_batch(error: Exception) -> bool:
    """Tell whether an error ends the scan under every policy."""
    return not isinstance(error, IefError) or isinstance(error, FATAL)


def error_at_end(
    spec: ScanSpec[Any], batches: int, failures: Sequence[BatchFailure], ids: ScanReport | None
) -> IefError | None:
    """Return what a scan ends with once all was read, if its policies want an error."""
    doubtful = ids.doubtful if ids is not None else ()
    if failures and spec.on_error == "defer":
        message = (
            f"{len(failures)} of {batches} batches failed, all others were delivered; resume from "
            ".checkpoint to read them again"
        )
        return PartialScanError(message, failures)
    if doubtful and spec.on_drift == "raise":
        flags = ", ".join(dict.fromkeys(flag for one in doubtful for flag in one.flags))
        message = (
            f"the list that the ids came from moved, and leaves ids in doubt ({flags}): their pods "
            "may be missing; scan again"
        )
        return DriftError(message)
    return None


def locate(error: Exception, request: PageRequest) -> None:
    """Say in an error which part of the scan it ended."""
    if isinstance(error, IefError):
        error.batch, error.offset = request.batch, request.offset
        error.add_note(
            f"In {_name(request)}, offset {request.offset}, "
            f"attempt {error.attempts}, request id {error.request_id or 'unknown'}."
        )


def _name(request: PageRequest) -> str:
    """Name a batch by its number and its first ids."""
    ids = request.query.ids
    if request.query.selector == "filter":
        return f"the list ({ids[0] or 'no filter'})"
    more = f" and {len(ids) - NOTE_IDS} more" if ids[NOTE_IDS:] else ""
    shown = f"{request.query.selector} {', '.join(ids[:NOTE_IDS])}{more}"
    return f"batch {request.batch} ({shown})"


def forget_frames(error: BaseException) -> None:
    """Cut an error that is kept, and all that led to it, from the frames that they came through.

    The frames hold the request and its answer: some 10 KB for each of thousands of failed batches.
    """
    left: list[BaseException | None] = [error]
    seen: set[int] = set()
    while left:
        one = left.pop()
        if one is not None and id(one) not in seen:
            seen.add(id(one))
            one.__traceback__ = None
            left += [one.__cause__, one.__context__, *getattr(one, "exceptions", ())]
