"""A request, and what came of it, as the parts of the package hand them to each other."""

from collections.abc import Callable, Mapping
from typing import Generic, TypeVar

import attrs


@attrs.frozen(kw_only=True)
class Request:
    """A request as it is sent.

    Attributes:
        method: in upper case.
        url: the whole URL, encoded.
        headers: those that matter to the server; an `AccessKey` signs them.
        body: as it is sent.
        expected: statuses whose answer is wanted; any other is an error.
        timeout: seconds for the one attempt that is made; None for the session's own time-outs and
            retries.
        header_bytes: how long a header of the answer may be; None for aiohttp's own limit.
    """

    method: str = "GET"
    url: str
    headers: Mapping[str, str] = attrs.field(factory=dict, repr=False)
    body: bytes = attrs.field(default=b"", repr=False)
    expected: frozenset[int] = frozenset({200})
    timeout: float | None = None
    header_bytes: int | None = None


@attrs.frozen(kw_only=True)
class Reply:
    """An expected answer, without any interpretation.

    Attributes:
        status: one of those that were expected.
        headers: by name in lower case.
        body: as it came.
    """

    status: int
    headers: Mapping[str, str] = attrs.field(repr=False)
    body: bytes = attrs.field(repr=False)


T = TypeVar("T")

M = TypeVar("M")


@attrs.frozen(kw_only=True)
class Answer(Generic[T]):
    """An answer whose body was read.

    Attributes:
        value: what was read from the body.
        raw: the body.
        request_id: the server's name for the request, or None.
        elapsed: seconds from the start of the first attempt.
        attempts: how often the request was sent.
        scrub: takes what was sent out of a text about the answer.
    """

    value: T = attrs.field(repr=False)
    raw: bytes = attrs.field(repr=False)
    request_id: str | None
    elapsed: float = 0.0
    attempts: int = 0
    scrub: Callable[[str], str] = attrs.field(default=str, repr=False)
