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
    """One thing that a server can do wrong. Made by the class methods, each named after its fault.

    A fault is plain data, so one can be built on another: ``attrs.evolve(Fault.cut(), delay=1)``.
    In the body of an answer whose status is not 200, ``{request_id}`` stands for the id that the
    answer carries in ``X-Request-Id``.

    Attributes:
        name: the constructor's name, for messages.
        answer: what is sent in place of the real answer, if anything.
        change: what is done to the answer before it is sent.
        literal: bytes in place of the whole HTTP answer; ``b""`` is silence.
        before: bytes sent ahead of the answer.
        after: bytes sent behind the answer.
        keep: the share of the body that is sent; the headers still promise all of it.
        delay: seconds before the first byte; infinite: there is never one.
        trickle: None, or what comes one byte at a time: the body, or the head as well.
        interval: seconds between those bytes.
        end: what becomes of the connection: used again, closed (FIN), or reset (RST).
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
        """Answer with a status, and an error in one of the shapes that are known, or any body."""
        answer = error_answer(status, error_code, error_msg, shape)
        if body is not None:
            answer = attrs.evolve(answer, body=body)
        return cls("status", answer=answer.with_headers(*headers))

    @classmethod
    def throttle(cls, retry_after: str | Sequence[str] | None = None) -> Self:
        """Answer 429 APIGW.0308, with as many ``Retry-After`` headers as given, word for word.

        Its text names no window; a `Quota` does.
        """
        values = [retry_after] if isinstance(retry_after, str) else retry_after or ()
        headers = [("Retry-After", value) for value in values]
        return attrs.evolve(cls.status(429, shape="apigw", headers=headers), name="throttle")

    @classmethod
    def redirect(cls, location: str | None, status: int = 302) -> Self:
        """Point elsewhere, or nowhere with None."""
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
        """Answer with another body; unframed: without a length, up to the end of the connection."""
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
        """Send the real answer with its body changed."""
        return cls("edit", change=lambda real: attrs.evolve(real, body=change(real.body)))

    @classmethod
    def headers(cls, *headers: tuple[str, str]) -> Self:
        """Send the real answer with these headers added, or put in place of the usual ones."""
        return cls("headers", change=lambda real: real.with_headers(*headers))

    @classmethod
    def cookie(cls) -> Self:
        """Send the real answer with a ``Set-Cookie``."""
        return attrs.evolve(cls.headers(("Set-Cookie", "lb=7; Path=/")), name="cookie")

    @classmethod
    def around(cls, *, before: bytes = b"", after: bytes = b"") -> Self:
        """Send the real answer with bytes ahead of it (103 early hints) or past its length."""
        return cls("around", before=before, after=after)

    @classmethod
    def raw(cls, data: bytes, *, close: bool = True) -> Self:
        """Send these bytes in place of a whole HTTP answer."""
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
        """Promise the real answer, send this share of its body, end the connection."""
        end: Literal["close", "reset"] = "reset" if reset else "close"
        change = None if framed else _unframed
        return cls("cut", keep=keep, end=end, change=change)

    @classmethod
    def cut_chunk(cls) -> Self:
        """Send the real answer in chunks, the last of them cut, none of length 0."""
        return cls("cut_chunk", change=_chunked, keep=0.5, end="close")

    @classmethod
    def bad_chunk(cls) -> Self:
        """Send the real answer in chunks whose second size is no number."""
        return cls("bad_chunk", change=functools.partial(_chunked, tail=b"zz\r\n"), end="close")

    @classmethod
    def close_after(cls) -> Self:
        """Send the real answer, let the client think that the connection lives on, close it."""
        return cls("close_after", end="close")

    @classmethod
    def gzip(cls) -> Self:
        """Send the real answer compressed, as it should be."""
        return cls("gzip", change=_gzipped)

    @classmethod
    def gzip_cut(cls) -> Self:
        """Send half of the compressed answer, under a length that fits the half."""
        return cls("gzip_cut", change=_gzip_half)

    @classmethod
    def gzip_plain(cls) -> Self:
        """Say that the real answer is compressed, and send it plain."""
        return cls("gzip_plain", change=_says_gzip)

    @classmethod
    def gzip_crc(cls) -> Self:
        """Send the real answer compressed, with a wrong checksum."""
        return cls("gzip_crc", change=_gzip_wrong)

    @classmethod
    def gzip_bomb(cls, size: int = 256 << 20) -> Self:
        """Answer with blanks that are small on the wire and this many bytes unpacked."""
        return cls("gzip_bomb", answer=_says_gzip(Answer(_compressed_blanks(size))))

    @classmethod
    def gzip_members(cls, n: int = 200_000) -> Self:
        """Answer with this many empty gzip members in a row."""
        return cls("gzip_members", answer=_says_gzip(Answer(gzip.compress(b"", mtime=0) * n)))

    @classmethod
    def hang(cls) -> Self:
        """Never answer: wait until the client leaves or the server stops."""
        return cls("hang", delay=math.inf)

    @classmethod
    def slow(cls, seconds: float) -> Self:
        """Send the real answer late."""
        return cls("slow", delay=seconds)

    @classmethod
    def drip(cls, interval: float = 1.0, *, head: bool = False) -> Self:
        """Send the body of the real answer one byte at a time; with ``head`` the head as well."""
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
"""What ``fault_rate`` draws from unless told otherwise: each is worth a retry."""


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
        """Return the fault of this request; `NORMAL` is none."""
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
        # With credit the chance is one half: the share is kept, the moment stays open.
        if self._credit < 1 or self._random.random() >= max(0.5, self._rate):
            return None
        self._credit -= 1
        return self._random.choice(self._faults)
