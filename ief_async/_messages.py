"""Requests and responses, as the parts of the package pass them to each other."""

from collections.abc import Callable, Mapping
from typing import Generic, TypeVar

import attrs

from ief_async._values import Value


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Request(Value):
    """A request as it is sent.

    Attributes:
        method: in upper case.
        url: the whole URL, encoded.
        headers: the headers that the server reads; an `AccessKey` signs them.
        body: as it is sent.
        expected: statuses that are not errors.
        timeout: seconds for a single attempt; None for the session's own time-outs and retries.
        header_bytes: the longest header of the response; None for aiohttp's own limit.
    """

    method: str = "GET"
    url: str
    headers: Mapping[str, str] = attrs.field(factory=dict, repr=False)
    body: bytes = attrs.field(default=b"", repr=False)
    expected: frozenset[int] = frozenset({200})
    timeout: float | None = None
    header_bytes: int | None = None


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Reply(Value):
    """A response with an expected status, not interpreted.

    Attributes:
        status: one of the expected statuses.
        headers: by name in lower case.
        body: as it was received.
    """

    status: int
    headers: Mapping[str, str] = attrs.field(repr=False)
    body: bytes = attrs.field(repr=False)


T = TypeVar("T")

M = TypeVar("M")


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Answer(Value, Generic[T]):
    """A response whose body was read.

    Attributes:
        value: what was read from the body.
        raw: the body.
        request_id: the server's id of the request, or None.
        elapsed: seconds from the start of the first attempt.
        attempts: how often the request was sent.
        scrub: masks secrets that were sent in a text about the response.
    """

    value: T = attrs.field(repr=False)
    raw: bytes = attrs.field(repr=False)
    request_id: str | None
    elapsed: float = 0.0
    attempts: int = 0
    scrub: Callable[[str], str] = attrs.field(default=str, repr=False)
