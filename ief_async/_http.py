"""One exchange over HTTP: a request out, an answer in. Only this file speaks aiohttp.

What is asked of aiohttp, each because its default was measured to harm: redirects off (it forwards
``X-Auth-Token`` to other origins), its silent second GET off (it hides failures from the budget),
bodies read piece by piece against a cap (a gzip bomb), no cookies, no proxy from the environment,
URLs sent as they were built. Its errors hold the request's headers, so ours are made inside an
``except`` and returned: no token in any cause, context or traceback.
"""

import asyncio
import os
import ssl
import sys
import traceback
import warnings
import zlib
from collections.abc import Callable, Iterator, Mapping

import aiohttp
import attrs
from aiohttp.http_exceptions import HttpProcessingError
from multidict import CIMultiDictProxy
from yarl import URL

from ief_async._credentials import Request
from ief_async._errors import ConfigurationError, IefError, TransportError
from ief_async._pacing import Timeouts
from ief_async._structure import SNIPPET_CHARACTERS

Headers = CIMultiDictProxy[str]
HttpSession = aiohttp.ClientSession

USER_AGENT = "ief-async"
ERROR_BODY_BYTES = 64 * 1024
GZIP = 16 + zlib.MAX_WBITS  # as zlib wants to be told
GZIP_MEMBERS = 64  # a body is one member; empty ones in their thousands cost time and say nothing
TURN_BYTES = 256 * 1024  # a body that takes a quarter of a millisecond to be taken apart
INFLATED_BYTES = 256 * 1024  # at a time: what a few bytes of gzip may grow to

CERTIFICATE_ERRORS = (
    aiohttp.ClientConnectorCertificateError,
    aiohttp.ServerFingerprintMismatch,
    ssl.SSLCertVerificationError,
)
FOREIGN_ERRORS = (
    aiohttp.ClientError,
    HttpProcessingError,
    OSError,
    RuntimeError,
    UnicodeError,
    zlib.error,
)


class _DroppedError(aiohttp.ClientError):
    """A connection that ended early, under a class that aiohttp does not send again for."""


class _HostileGzipError(zlib.error):
    """Gzip that is made to cost time; asking for it again would not make it better."""


ELSEWHERE_ERRORS = (aiohttp.ClientConnectorDNSError, aiohttp.ClientSSLError, ssl.SSLError)
FINAL_ERRORS = (*CERTIFICATE_ERRORS, _HostileGzipError, aiohttp.InvalidURL, UnicodeError)
# aiohttp's errors and the system's, the most specific first, in words that a user can act on
WORDS: tuple[tuple[type[BaseException] | tuple[type[BaseException], ...], str], ...] = (
    (CERTIFICATE_ERRORS, "the server's certificate is not trusted; for a private CA give http="),
    (
        aiohttp.ClientConnectorDNSError,
        "the host name was not found; check region, endpoint and iam_endpoint",
    ),
    (aiohttp.ConnectionTimeoutError, "no connection in time, see Timeouts(connect=)"),
    (aiohttp.SocketTimeoutError, "the server went silent, see Timeouts(read=)"),
    (TimeoutError, "no whole answer in time, see Timeouts(total=)"),
    ((aiohttp.ClientSSLError, ssl.SSLError), "TLS failed"),
    (aiohttp.ClientConnectorError, "no connection"),
    ((_DroppedError, aiohttp.ClientConnectionError), "the connection ended before an answer came"),
    ((aiohttp.ClientPayloadError, zlib.error), "the body came cut or damaged"),
    (aiohttp.ClientHttpProxyError, "the proxy gave no way"),
    ((aiohttp.ClientResponseError, HttpProcessingError), "what came is not HTTP"),
    ((aiohttp.InvalidURL, UnicodeError), "the URL can't be sent"),
    (OSError, "the system gave no connection"),
    (aiohttp.ClientError, "no whole answer came"),
)


async def _once(
    request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
) -> aiohttp.ClientResponse:
    """Let aiohttp send a request once; its own repeat is for classes that this one is not."""
    dropped: str
    try:
        return await handler(request)
    except aiohttp.ClientConnectorError:
        raise  # aiohttp does not send these again, and their class says what failed
    except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError) as error:
        dropped = f"{type(error).__name__}: {error}"
    raise _DroppedError(dropped)


class Connections:
    """aiohttp's session, owned or borrowed, bound to the loop and process of its first use."""

    def __init__(self, http: HttpSession | None) -> None:
        self._owned: HttpSession | None = None
        if http is not None and not isinstance(http, HttpSession):
            message = f"http takes an aiohttp.ClientSession, but was given {type(http).__name__}"
            raise ConfigurationError(message)
        if http is not None and http.trust_env:
            warnings.warn(
                "http= has trust_env on: a proxy from the environment may see the credentials",
                UserWarning,
                stacklevel=3,
            )
        self._borrowed = http
        self._loop: asyncio.AbstractEventLoop | None = None
        self._process = 0
        self.closed: bool = False
        self._turns = asyncio.Lock()

    def session(self) -> HttpSession:
        """Return the aiohttp session, or raise `ConfigurationError` if it can't be used here."""
        loop = asyncio.get_running_loop()
        if self._loop is None:
            self._loop, self._process = loop, os.getpid()
        self._refuse_strangers(loop)
        if self._borrowed is not None:
            return self._borrowed
        if self._owned is None:
            self._owned = aiohttp.ClientSession(
                # no limit of its own: a request that waits in the pool uses up its time-out
                connector=aiohttp.TCPConnector(limit=0),
                cookie_jar=aiohttp.DummyCookieJar(),
            )
        return self._owned

    def _refuse_strangers(self, loop: asyncio.AbstractEventLoop) -> None:
        problem = None
        if self.closed or (self._borrowed is not None and self._borrowed.closed):
            problem = "the session is closed: make a new IefSession"
        elif self._process != os.getpid():
            problem = "the session was first used before this process was forked: make one here"
        elif self._loop is not loop:
            problem = "the session belongs to another event loop: make one IefSession per loop"
        if problem is not None:
            raise ConfigurationError(problem)

    def places(self, wanted: int) -> int:
        """Return how many requests may run at once: what a borrowed pool gives, if that is less.

        Requests that wait in a pool would use up their time-out there.
        """
        connector = self._borrowed.connector if self._borrowed is not None else None
        pools = (connector.limit, connector.limit_per_host) if connector is not None else ()
        return min([wanted, *(places for places in pools if places)])

    async def turn(self) -> None:
        """Let the event loop go round once for each large answer that came at the same time.

        To take one apart keeps it for a millisecond: sixteen in a row would keep it for sixteen.
        """
        async with self._turns:
            await asyncio.sleep(0)

    async def close(self) -> None:
        """Close what is owned; what is borrowed stays open."""
        self.closed = True
        if self._owned is not None:
            await self._owned.close()

    def __del__(self) -> None:
        if self._owned is not None and not self._owned.closed:
            self.discard()  # first, as a warning may be made an error
            warnings.warn(
                "an IefSession was never closed: use `async with`, or await its aclose()",
                ResourceWarning,
                source=self,
                stacklevel=2,
            )

    def abandon(self) -> None:
        """Close what is owned from wherever the garbage collector happens to run."""
        if self.closed or self._loop is None or self._loop.is_closed():
            self.discard()
        else:
            self._loop.call_soon_threadsafe(self.discard)

    def discard(self) -> None:
        """Close what is owned without waiting for anything."""
        self.closed = True
        connector = self._owned.connector if self._owned is not None else None
        if self._owned is not None and not self._owned.closed:
            self._owned.detach()  # else aiohttp would warn, too, and write a log line at exit
        if connector is not None and not sys.is_finalizing():  # warnings may be gone by then
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # it can't be awaited here
                aiohttp.BaseConnector.close(connector)


@attrs.frozen(kw_only=True)
class Exchange:
    """An answer as it came.

    Attributes:
        status: the HTTP status.
        headers: all of them.
        body: decompressed: all of an expected answer, the beginning of any other.
        problem: why the body of an expected answer was not read, or "".
    """

    status: int
    headers: Headers = attrs.field(repr=False)
    body: bytes = attrs.field(repr=False)
    problem: str = ""


@attrs.frozen
class Unreached:
    """Why no whole answer came.

    Attributes:
        error: to be raised.
        elsewhere: whether another host may do better: this one's name or certificate fails.
    """

    error: IefError
    elsewhere: bool


async def exchange(
    connections: Connections,
    request: Request,
    sign: Callable[[], Mapping[str, str]],
    *,
    timeouts: Timeouts,
    max_body_bytes: int,
    scrub: Callable[[str], str],
    quotable: bool = True,
) -> Exchange | Unreached:
    """Send a request once, with the headers that `sign` makes, and read its answer.

    What can't be parsed is shown in the error, unless it is not `quotable`: it may hold a new key.

    An error is returned, not raised: the frames of this and all below it hold what the server sent,
    which may echo the token, and a traceback would carry them.
    """
    http = connections.session()
    url = URL(request.url, encoded=True)
    ended: BaseException
    try:
        # the headers are made within the call, so that no frame of ours holds a token
        async with http.request(
            request.method,
            url,
            data=request.body or None,
            headers={
                "Accept-Encoding": "gzip",
                "User-Agent": USER_AGENT,
                **request.headers,
                **sign(),
            },
            timeout=aiohttp.ClientTimeout(
                total=request.timeout or timeouts.total,
                sock_connect=request.timeout or timeouts.connect,
                sock_read=request.timeout or timeouts.read,
            ),
            allow_redirects=False,
            raise_for_status=False,
            auto_decompress=False,
            max_field_size=request.header_bytes,
            middlewares=(*getattr(http, "_middlewares", ()), _once),
        ) as response:
            wanted = response.status in request.expected
            cap = max_body_bytes if wanted else ERROR_BODY_BYTES
            body, problem = await _body(response, cap, wanted=wanted, scrub=scrub)
            if len(body) > TURN_BYTES:
                await connections.turn()
    except FOREIGN_ERRORS as error:
        if isinstance(error, RuntimeError) and not connections.closed:
            ended = _frameless(error)  # a bug, not the weather
        else:
            what = f"{request.method} {url.raw_path}"
            failure = _failure(error, connections, url, what, scrub, quotable=quotable)
            return Unreached(failure, isinstance(error, ELSEWHERE_ERRORS))
    except asyncio.CancelledError as error:
        ended = asyncio.CancelledError(*error.args)
    except Exception as error:  # noqa: BLE001  of the middlewares of a borrowed session, say
        ended = _frameless(error)
    else:
        return Exchange(
            status=response.status, headers=response.headers, body=body, problem=problem
        )
    try:
        raise ended
    finally:
        del ended  # it holds this frame, which would hold it: a cycle


def _frameless(error: Exception) -> Exception:
    """Return an error without the frames it came through: aiohttp's hold the request's headers."""
    frames = "".join(traceback.format_tb(error.__traceback__))
    error.add_note(f"It came through these frames, which hold secrets and are left out:\n{frames}")
    error.__cause__ = error.__context__ = None
    return error.with_traceback(None)


async def _body(
    response: aiohttp.ClientResponse, cap: int, *, wanted: bool, scrub: Callable[[str], str]
) -> tuple[bytes, str]:
    """Read a body up to its cap, decompressed; say what kept it from being read."""
    said = response.headers.get("Content-Encoding", "")
    encoding = said.lower()
    pieces: list[bytes] = []
    fits = encoding in {"", "identity", "gzip"}
    if fits:
        problem = (
            f"the body is longer than {cap} bytes; ask for a smaller page_size, or raise "
            "Limits(max_body_bytes=)"
        )
        fits = (response.content_length or 0) <= cap
        if fits or not wanted:
            pieces, fits = await _read_up_to(cap, response, zipped=encoding == "gzip")
    else:
        problem = f"the body is encoded as {scrub(said)[:64]}, though gzip was asked for"
    if not fits:
        response.close()
        if wanted:
            return b"", problem
    return b"".join(pieces), ""


def _failure(
    error: BaseException,
    connections: Connections,
    url: URL,
    what: str,
    scrub: Callable[[str], str],
    *,
    quotable: bool = True,
) -> IefError:
    """Map an error of aiohttp or of the system to ours."""
    if connections.closed:
        return ConfigurationError(f"{what}: the session was closed while the request ran")
    words = next(words for kinds, words in WORDS if isinstance(error, kinds))
    detail = scrub(_detail(error, quotable=quotable))[:SNIPPET_CHARACTERS]
    message = f"{what}: {words} ({url.host}:{url.port}{': ' if detail else ''}{detail})"
    return TransportError(message, transient=not isinstance(error, FINAL_ERRORS))


def _detail(error: BaseException, *, quotable: bool) -> str:
    """Return what an error adds to its class; never the whole URL, which time-outs print."""
    if not quotable and not isinstance(error, OSError):  # all others may quote what came
        return ""
    if isinstance(error, aiohttp.ClientPayloadError):
        cause = error.__cause__  # what was cut; the error itself prints a status that nobody sent
        return " ".join(cause.message.split()) if isinstance(cause, HttpProcessingError) else ""
    if isinstance(error, TimeoutError):
        return ""
    if isinstance(error, aiohttp.ClientConnectorError):
        return str(error.os_error)
    if isinstance(error, aiohttp.ClientResponseError | HttpProcessingError):
        return " ".join(error.message.split())
    return str(error)


class _Inflater:
    """Undoes gzip a bounded step at a time, as a few bytes of it may stand for gigabytes."""

    def __init__(self) -> None:
        self._member = zlib.decompressobj(GZIP)
        self._members = 1

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield what these bytes stand for."""
        while data:
            if self._member.eof:
                self._member = zlib.decompressobj(GZIP)
                self._members += 1
            if self._members > GZIP_MEMBERS:
                message = f"the body has more than {GZIP_MEMBERS} gzip members"
                raise _HostileGzipError(message)
            yield self._member.decompress(data, INFLATED_BYTES)
            data = self._member.unconsumed_tail or self._member.unused_data

    def end(self) -> bytes:
        """Return what is left, or raise `zlib.error` if the last member is not whole."""
        rest = self._member.flush()
        if not self._member.eof:
            message = "the gzip body ends early"
            raise zlib.error(message)
        return rest


async def _read_up_to(
    cap: int, response: aiohttp.ClientResponse, *, zipped: bool
) -> tuple[list[bytes], bool]:
    """Read a body, and tell whether it is whole: beyond its cap, the rest is left where it is."""
    inflater = _Inflater() if zipped else None
    pieces: list[bytes] = []
    async for piece in response.content.iter_any():
        for plain in inflater.feed(piece) if inflater else (piece,):
            pieces.append(plain)
            cap -= len(plain)
            if cap < 0:
                return pieces, False
            if len(plain) == INFLATED_BYTES:  # there is more of it, and others want the loop
                await asyncio.sleep(0)
    if inflater and pieces:
        pieces.append(inflater.end())
    return pieces, True
