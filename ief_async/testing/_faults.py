"""Faults: everything that a server can do wrong with an answer, as plain data."""

import functools
import gzip
import math
import random
import struct
import zlib
from collections import deque
from collections.abc import Callable, Sequence
from typing import Literal, Self

import attrs

from ief_async.testing._answers import HTML, JSON, Answer, FakeRequest, Headers, Shape, error_answer

_LOGIN_PAGE = (
    b"<!DOCTYPE html><html><head><title>Log in</title></head>"
    b'<body><form action="/login">Please log in</form></body></html>'
)


@attrs.frozen
class Fault:
    """One thing that a server can do wrong. Each class method makes the fault it is named after.

    Example:
        import attrs
        from ief_async.testing import FakeIef, Fault

        async with FakeIef(pods=500) as fake:
            fake.script(Fault.throttle("2"), None, attrs.evolve(Fault.cut(), delay=1))
            fake.intercept(lambda seen: Fault.drop() if seen.query.get("offset") else None)
            ...  # the first three requests meet the script, the others the hook

    In the body of an answer whose status is not 200, ``{request_id}`` stands for the id that the
    answer carries in ``X-Request-Id``.

    Attributes:
        name: The name of the class method, for messages.
        answer: What is sent instead of the real answer; None means the real answer.
        change: A function that changes the answer before it is sent.
        literal: Bytes that are sent instead of the whole HTTP answer; ``b""`` sends nothing.
        before: Bytes that are sent before the answer.
        after: Bytes that are sent after the answer.
        keep: The share of the body that is sent; the headers still promise all of it.
        delay: How many seconds pass before the first byte; if infinite, none is ever sent.
        trickle: What is sent one byte at a time: the body, or the head as well.
        interval: How many seconds pass between those bytes.
        end: The connection stays open, is closed (FIN) or is reset (RST).
    """

    name: str
    answer: Answer | None = attrs.field(default=None, repr=False)
    change: Callable[[Answer], Answer] | None = attrs.field(default=None, repr=False)
    literal: bytes | None = attrs.field(default=None, repr=False)
    before: bytes = attrs.field(default=b"", repr=False)
    after: bytes = attrs.field(default=b"", repr=False)
    keep: float = 1.0
    delay: float = 0.0
    trickle: Literal["body", "head"] | None = None
    interval: float = 0.0
    end: Literal["open", "close", "reset"] = "open"

    @classmethod
    def status(
        cls,
        status: int,
        *,
        error_code: str | None = None,
        error_msg: str | None = None,
        shape: Shape = "ief",
        headers: Headers = (),
        body: bytes | None = None,
    ) -> Self:
        """Answer with a status and an error document, or any other body.

        Args:
            status: Any number.
            error_code: The code in the document; by default the usual one of the status.
            error_msg: The message in the document; by default the usual one of the status.
            shape: Which part of the service answers: the error document has the shape of IEF, of
                the API gateway, of IAM (two versions), of other services, or is HTML or empty.
            headers: Headers that are added, or replace the usual ones.
            body: A body instead of the error document.
        """
        answer = error_answer(status, error_code, error_msg, shape)
        if body is not None:
            answer = attrs.evolve(answer, body=body)
        return cls("status", answer=answer.with_headers(*headers))

    @classmethod
    def throttle(cls, retry_after: str | Sequence[str] | None = None) -> Self:
        """Answer 429 APIGW.0308. The message names no window; that of a `Quota` does.

        Args:
            retry_after: The value of ``Retry-After``, or several for as many headers.
        """
        values = [retry_after] if isinstance(retry_after, str) else retry_after or ()
        headers = [("Retry-After", value) for value in values]
        return attrs.evolve(cls.status(429, shape="apigw", headers=headers), name="throttle")

    @classmethod
    def redirect(cls, location: str | None, status: int = 302) -> Self:
        """Redirect.

        Args:
            location: The value of ``Location``; None leaves the header out.
            status: The status.
        """
        headers = () if location is None else (("Location", location),)
        return cls("redirect", answer=Answer(b"", status, None, headers))

    @classmethod
    def body(
        cls,
        data: bytes,
        *,
        status: int = 200,
        content_type: str | None = JSON,
        headers: Headers = (),
        framed: bool = True,
    ) -> Self:
        """Answer with another body.

        Args:
            data: The body.
            status: The status.
            content_type: The value of ``Content-Type``; None leaves the header out.
            headers: Headers that are added, or replace the usual ones.
            framed: If false, no length is stated: the body ends with the connection.
        """
        answer = Answer(data, status, content_type, tuple(headers), framed)
        return cls("body", answer=answer, end="open" if framed else "close")

    @classmethod
    def html(cls) -> Self:
        """Answer 200 with a login page."""
        return cls("html", answer=Answer(_LOGIN_PAGE, 200, HTML))

    @classmethod
    def empty(cls) -> Self:
        """Answer 200 with no body at all."""
        return cls("empty", answer=Answer(b""))

    @classmethod
    def edit(cls, change: Callable[[bytes], bytes]) -> Self:
        """Send the real answer with its body changed.

        Args:
            change: Returns the new body. The length that is stated fits it.
        """
        return cls("edit", change=lambda real: attrs.evolve(real, body=change(real.body)))

    @classmethod
    def headers(cls, *headers: tuple[str, str]) -> Self:
        """Send the real answer with other headers.

        Args:
            headers: Pairs of name and value; they are added, or replace the usual ones.
        """
        return cls("headers", change=lambda real: real.with_headers(*headers))

    @classmethod
    def cookie(cls) -> Self:
        """Send the real answer with a ``Set-Cookie``."""
        return attrs.evolve(cls.headers(("Set-Cookie", "lb=7; Path=/")), name="cookie")

    @classmethod
    def around(cls, *, before: bytes = b"", after: bytes = b"") -> Self:
        """Send the real answer between other bytes.

        Args:
            before: Bytes before the answer, such as ``103 Early Hints``.
            after: Bytes after the length that is stated.
        """
        return cls("around", before=before, after=after)

    @classmethod
    def raw(cls, data: bytes, *, close: bool = True) -> Self:
        """Send bytes instead of a whole HTTP answer.

        Args:
            data: The bytes.
            close: If false, the connection stays open.
        """
        return cls("raw", literal=data, end="close" if close else "open")

    @classmethod
    def drop(cls) -> Self:
        """Close the connection (FIN) without a byte."""
        return cls("drop", literal=b"", end="close")

    @classmethod
    def reset(cls) -> Self:
        """Reset the connection (RST) without a byte."""
        return cls("reset", literal=b"", end="reset")

    @classmethod
    def cut(cls, keep: float = 0.5, *, reset: bool = False, framed: bool = True) -> Self:
        """Send a part of the real answer, and end the connection.

        Args:
            keep: The share of the body that is sent.
            reset: Whether the connection is reset instead of closed.
            framed: If false, no length is stated, so the part looks like a whole body.
        """
        end: Literal["close", "reset"] = "reset" if reset else "close"
        change = None if framed else _unframed
        return cls("cut", keep=keep, end=end, change=change)

    @classmethod
    def cut_chunk(cls) -> Self:
        """Send the real answer as one chunk, and close the connection within it."""
        return cls("cut_chunk", change=_chunked, keep=0.5, end="close")

    @classmethod
    def bad_chunk(cls) -> Self:
        """Send the real answer in chunks, the second with a size that is not a number."""
        return cls("bad_chunk", change=functools.partial(_chunked, tail=b"zz\r\n"), end="close")

    @classmethod
    def close_after(cls) -> Self:
        """Send the real answer and close the connection, without ``Connection: close``."""
        return cls("close_after", end="close")

    @classmethod
    def gzip(cls) -> Self:
        """Send the real answer compressed, without any fault."""
        return cls("gzip", change=_gzipped)

    @classmethod
    def gzip_cut(cls) -> Self:
        """Send one half of the compressed answer; the length that is stated fits the half."""
        return cls("gzip_cut", change=_gzip_half)

    @classmethod
    def gzip_plain(cls) -> Self:
        """Send the real answer uncompressed, under ``Content-Encoding: gzip``."""
        return cls("gzip_plain", change=_says_gzip)

    @classmethod
    def gzip_crc(cls) -> Self:
        """Send the real answer compressed, with a wrong checksum."""
        return cls("gzip_crc", change=_gzip_wrong)

    @classmethod
    def gzip_bomb(cls, size: int = 256 << 20) -> Self:
        """Answer with blanks that are small on the wire and large when unpacked.

        Args:
            size: How many bytes they are when unpacked.
        """
        return cls("gzip_bomb", answer=_says_gzip(Answer(_compressed_blanks(size))))

    @classmethod
    def gzip_members(cls, n: int = 200_000) -> Self:
        """Answer with many empty gzip members.

        Args:
            n: How many.
        """
        return cls("gzip_members", answer=_says_gzip(Answer(gzip.compress(b"", mtime=0) * n)))

    @classmethod
    def hang(cls) -> Self:
        """Never answer: wait until the client leaves or the server stops."""
        return cls("hang", delay=math.inf)

    @classmethod
    def slow(cls, seconds: float) -> Self:
        """Send the real answer late.

        Args:
            seconds: How late.
        """
        return cls("slow", delay=seconds)

    @classmethod
    def drip(cls, interval: float = 1.0, *, head: bool = False) -> Self:
        """Send the real answer one byte at a time.

        Args:
            interval: How many seconds pass between two bytes.
            head: Whether the head is sent like this as well, and not only the body.
        """
        return cls("drip", trickle="head" if head else "body", interval=interval)


def _unframed(answer: Answer) -> Answer:
    return attrs.evolve(answer, framed=False)


def _chunked(answer: Answer, tail: bytes = b"0\r\n\r\n") -> Answer:
    body = b"%x\r\n%b\r\n%b" % (len(answer.body), answer.body, tail)
    chunked = attrs.evolve(answer, body=body, framed=False)
    return chunked.with_headers(("Transfer-Encoding", "chunked"))


def _says_gzip(answer: Answer) -> Answer:
    return answer.with_headers(("Content-Encoding", "gzip"))


def _gzipped(answer: Answer) -> Answer:
    return _says_gzip(attrs.evolve(answer, body=gzip.compress(answer.body, mtime=0)))


def _gzip_half(answer: Answer) -> Answer:
    whole = _gzipped(answer)
    return attrs.evolve(whole, body=whole.body[: len(whole.body) // 2])


def _gzip_wrong(answer: Answer) -> Answer:
    whole = _gzipped(answer)
    checksum, length = struct.unpack("<II", whole.body[-8:])
    return attrs.evolve(whole, body=whole.body[:-8] + struct.pack("<II", checksum ^ 1, length))


@functools.cache
def _compressed_blanks(size: int) -> bytes:
    # A block that ends in a full flush may be repeated, so only one MiB is ever compressed.
    blanks = b" " * min(size, 1 << 20)
    repeats, rest = divmod(size, max(len(blanks), 1))
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    block = packer.compress(blanks) + packer.flush(zlib.Z_FULL_FLUSH)
    end = packer.compress(blanks[:rest]) + packer.flush()
    checksum = 0
    for _ in range(repeats):
        checksum = zlib.crc32(blanks, checksum)
    checksum = zlib.crc32(blanks[:rest], checksum)
    head = b"\x1f\x8b\x08\0\0\0\0\0\0\xff"
    return head + block * repeats + end + struct.pack("<II", checksum, size % (1 << 32))


NORMAL = Fault("none")

DEFAULT_MIX: tuple[Fault, ...] = (
    Fault.status(500),
    Fault.status(502, shape="html"),
    Fault.status(503, shape="empty"),
    Fault.status(504, shape="apigw"),
    Fault.throttle(),
    Fault.drop(),
    Fault.reset(),
    Fault.cut(),
    Fault.html(),
    Fault.empty(),
)
"""The faults that ``fault_rate`` draws from by default: a client should retry each of them."""


class FaultPlan:
    """Decides on the fault of each request: a scripted one, else the hook's, else a random one."""

    def __init__(self, rate: float, faults: Sequence[Fault], seed: int) -> None:
        if not 0 <= rate <= 1:
            msg = f"fault_rate must be a number from 0 to 1, got {rate!r}"
            raise ValueError(msg)
        self._rate = rate
        self._faults = faults
        self._random = random.Random(seed)  # noqa: S311 - repeatable, and no secret
        self._credit = 0.0
        self.script: deque[Fault | None] = deque()
        self.hook: Callable[[FakeRequest], Fault | None] | None = None
        self.used = 0

    def next(self, seen: FakeRequest) -> Fault:
        """Return the fault of this request; `NORMAL` is the normal answer."""
        if self.script:
            fault = self.script.popleft()
        elif self.hook is not None:
            fault = self.hook(seen)
        else:
            fault = self._draw()
        self.used += fault is not None
        return fault or NORMAL

    def _draw(self) -> Fault | None:
        """Return a random fault, or None; the share of faults never exceeds the rate."""
        self._credit += self._rate
        # With credit the chance is one half: the rate is kept, but no client can count on it.
        if self._credit < 1 or self._random.random() >= max(0.5, self._rate):
            return None
        self._credit -= 1
        return self._random.choice(self._faults)
