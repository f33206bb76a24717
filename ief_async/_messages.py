"""What goes over the wire and comes back, as the wings hand it to each other."""

from collections.abc import Callable, Mapping
from typing import Generic, TypeVar

import attrs


@attrs.frozen(kw_only=True)
class Request:
    """A request as it is sent.

    Attributes:
        method: in capitals.
        url: the whole of it, encoded.
        headers: those that matter to the server; they are signed by an `AccessKey`.
        body: as it is sent.
        expected: statuses whose answer is wanted; any other is an error.
        timeout: seconds for one attempt, and then there is only one; None: as for any request.
        header_bytes: how long a header of the answer may be; None: as is usual.
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
    """What came of a request: any of its expected statuses, with names of headers in lower case."""

    status: int
    headers: Mapping[str, str] = attrs.field(repr=False)
    body: bytes = attrs.field(repr=False)


T = TypeVar("T")

M = TypeVar("M")


@attrs.frozen(kw_only=True)
class Answer(Generic[T]):
    """What came of a request: the value that was read from the body, and how it came.

    `scrub` takes what was sent out of words about it.
    """

    value: T = attrs.field(repr=False)
    raw: bytes = attrs.field(repr=False)
    request_id: str | None
    elapsed: float = 0.0
    attempts: int = 0
    scrub: Callable[[str], str] = attrs.field(default=str, repr=False)
