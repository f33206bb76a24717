"""What type checkers must see of errors. Never run, only checked."""

from typing import assert_type

from ief_async import (
    ApiError,
    AuthenticationError,
    BadRequestError,
    BatchFailure,
    CheckpointError,
    ConfigurationError,
    DriftError,
    IefError,
    NotFoundError,
    PartialScanError,
    PayloadError,
    PermissionDeniedError,
    ScanCheckpoint,
    ServerError,
    TargetFailure,
    ThrottledError,
    TransportError,
)


def every(error: IefError) -> None:
    """What every error holds."""
    assert_type(error.message, str)
    assert_type(error.transient, bool)
    assert_type(error.request_id, str | None)
    assert_type(error.attempts, int)
    assert_type(error.elapsed, float)
    assert_type(error.batch, int | None)
    assert_type(error.offset, int | None)
    assert_type(error.checkpoint, ScanCheckpoint | None)


def by_the_server(error: ApiError) -> None:
    """What an error holds that the server sent."""
    assert_type(error.status, int)
    assert_type(error.error_code, str)
    assert_type(error.error_msg, str)
    assert_type(error.retry_after, float | None)


def caught() -> None:
    """Whatever is caught is one of the two, or has more of its own."""
    try:
        every(IefError(""))
    except (ConfigurationError, TransportError, DriftError, CheckpointError) as error:
        every(error)
    except (BadRequestError, AuthenticationError, PermissionDeniedError, NotFoundError) as error:
        by_the_server(error)
    except (ThrottledError, ServerError) as error:
        by_the_server(error)
    except PayloadError as error:
        assert_type((error.path, error.snippet), tuple[str, str])


def value(error: ConfigurationError) -> ValueError:
    """A wrong argument is a `ValueError`, too."""
    return error


def partial(error: PartialScanError) -> ExceptionGroup[IefError]:
    """A scan that failed in parts is a group, and tells which."""
    assert_type(error.checkpoint, ScanCheckpoint | None)
    assert_type(error.failures, tuple[BatchFailure | TargetFailure, ...])
    for failure in error.failures:
        assert_type(failure.error, IefError)
        match failure:
            case BatchFailure():
                assert_type((failure.batch, failure.ids), tuple[int, tuple[str, ...]])
            case TargetFailure():
                assert_type(failure.target, str)
    return error


async def by_kind() -> None:
    """``except*`` sees the errors of a scan that failed in parts."""
    try:
        every(IefError(""))
    except* ThrottledError as group:
        assert_type(group, ExceptionGroup[ThrottledError])
