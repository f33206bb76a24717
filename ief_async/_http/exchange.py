"""One exchange over HTTP: a request out, an answer in.

These defaults of aiohttp are changed, each because it was measured to harm: redirects are off (it
forwards ``X-Auth-Token`` to other origins), its silent second GET is off (it hides failures from
the retry budget), bodies are read piece by piece against a cap (a gzip bomb), and there are no
cookies, no password of a netrc file, no proxy that would see what is sent, and URLs are sent as
they were built. Its errors hold the request's headers, so ours are made inside an ``except`` and
returned: no token is in any cause, context or traceback.
"""

import asyncio
import socket
import ssl
import traceback
import zlib
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from typing import Any

import aiohttp
import attrs
from aiohttp.http_exceptions import HttpProcessingError
from yarl import URL

from ief_async._errors import ConfigurationError, IefError, TransportError
from ief_async._http.connections import USER_AGENT, Connections, HttpSession
from ief_async._http.proxies import Proxy
from ief_async._http.responses import Failure, Headers, is_retried
from ief_async._messages import Request
from ief_async._policies import Timeouts
from ief_async._structure import SNIPPET_CHARACTERS
from ief_async._values import Value

ERROR_BODY_BYTES = 64 * 1024
GZIP = 16 + zlib.MAX_WBITS  # zlib's way to name the format
GZIPPED = frozenset({"gzip", "x-gzip"})  # one and the same, says RFC 9110
GZIP_MEMBERS = 64  # a body is one member; thousands of empty ones cost time and hold nothing
LARGE_BODY_BYTES = 256 * 1024  # to parse such a body takes a quarter of a millisecond
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
    """Gzip that is made to cost time."""


ELSEWHERE_ERRORS = (aiohttp.ClientConnectorDNSError, aiohttp.ClientSSLError, ssl.SSLError)
# what resolvers say of a name that has no address; all else they say may pass
UNKNOWN_NAMES = {
    getattr(socket, name)
    for name in ("EAI_NONAME", "EAI_NODATA", "EAI_ADDRFAMILY")
    if hasattr(socket, name)
} | {11_001, 11_004}  # of Windows
UNKNOWN_NAMES_OF_ARES = {1, 4}  # no data, not found: the codes of aiodns
# what aiohttp's errors and the system's mean, the most specific first
FAILURES: tuple[tuple[type[BaseException] | tuple[type[BaseException], ...], Failure], ...] = (
    (CERTIFICATE_ERRORS, Failure.CERTIFICATE),
    (aiohttp.ClientConnectorDNSError, Failure.UNKNOWN_NAME),
    (aiohttp.ConnectionTimeoutError, Failure.CONNECT_TIMEOUT),
    (aiohttp.SocketTimeoutError, Failure.READ_TIMEOUT),
    (TimeoutError, Failure.TOTAL_TIMEOUT),
    ((aiohttp.ClientSSLError, ssl.SSLError), Failure.TLS),
    (aiohttp.ClientProxyConnectionError, Failure.PROXY_CONNECTION),
    (aiohttp.ClientConnectorError, Failure.CONNECTION),
    ((_DroppedError, aiohttp.ClientConnectionError), Failure.DROPPED),
    (_HostileGzipError, Failure.HOSTILE_GZIP),
    ((aiohttp.ClientPayloadError, zlib.error), Failure.DAMAGED),
    (aiohttp.ClientHttpProxyError, Failure.PROXY_REFUSED),
    ((aiohttp.ClientResponseError, HttpProcessingError), Failure.NOT_HTTP),
    ((aiohttp.InvalidURL, UnicodeError), Failure.BAD_URL),
    (OSError, Failure.SYSTEM),
    (aiohttp.ClientError, Failure.INCOMPLETE),
)


class _Attempt:
    """Sends a request once, as one or two middlewares, and knows over which connection.

    `fresh` asks for a connection of its own; `reused` tells afterwards whether it was an idle one.
    The middlewares of a borrowed session run between its own two; without any, one is enough, as
    each costs a tenth of a request.
    """

    def __init__(
        self, http: HttpSession, url: URL, sign: Callable[[], Mapping[str, str]], *, fresh: bool
    ) -> None:
        self._http = http
        self._url = url
        self._sign = sign
        self._fresh = fresh
        self._between: tuple[aiohttp.ClientMiddlewareType, ...] = getattr(http, "_middlewares", ())
        self.reused = False

    @property
    def middlewares(self) -> tuple[aiohttp.ClientMiddlewareType, ...]:
        """What aiohttp runs, the first one outermost."""
        if not self._between:
            return (self._send,)
        return (self._authenticate_first, *self._between, self._send)

    async def _authenticate_first(
        self, request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        self._authenticate(request)
        return await handler(request)

    def _authenticate(self, request: aiohttp.ClientRequest) -> None:
        """Add the headers that `sign` makes; no frame of ours holds their values.

        A middleware does this because aiohttp has by now added what a netrc file, or the `auth` of
        a borrowed session, says of the host. That is another password, and is removed.
        """
        if request.proxy is not None and not request.is_ssl():
            message = (
                f"The proxy on the way to {self._url.host}:{self._url.port} would see the "
                "credentials, since that is not https: remove the proxy, or trust_env, from the "
                "aiohttp session of http="
            )
            raise ConfigurationError(message)
        if "Authorization" not in self._http.headers:
            request.headers.pop("Authorization", None)
        request.headers.update(self._sign())

    async def _send(
        self, request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        if not self._between:
            self._authenticate(request)
        dropped: str
        if self._fresh:
            self.drop_idle()
        # aiohttp takes an idle connection, if there is one, before it gives way to other tasks
        self.reused = any(
            connection.is_connected() for idle in self._idle() for connection, _ in idle
        )
        try:
            return await handler(request)
        except aiohttp.ClientConnectorError:
            raise  # aiohttp does not send these again, and their class says what failed
        except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError) as error:
            dropped = f"{type(error).__name__}: {error}"
        raise _DroppedError(dropped)  # of a class that aiohttp does not send again for

    def drop_idle(self) -> None:
        """Drop the idle connections to the host: if one of them is dead, all may be."""
        for idle in self._idle():
            while idle:
                connection, _ = idle.popleft()
                connection.abort()  # a clean shutdown would wait for an answer that may never come

    def _idle(self) -> Iterator[Any]:
        """Yield the queues of idle connections to the host.

        aiohttp has no public way to see them, nor to drop some of them. Since 3.0 they are here, by
        key, each with the moment it was put there; whoever takes one checks that it is alive. If
        they are elsewhere, it is as if no connection was ever reused.
        """
        here = (self._url.raw_host, self._url.port)
        for key, idle in getattr(self._http.connector, "_conns", {}).items():
            if (key.host, key.port) == here:
                yield idle


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Exchange(Value):
    """An answer as it came.

    Attributes:
        status: the HTTP status.
        headers: all of them.
        body: decompressed: the whole of an expected answer, the beginning of any other.
        problem: why the body of an expected answer was not read, or "".
    """

    status: int
    headers: Headers = attrs.field(repr=False)
    body: bytes = attrs.field(repr=False)
    problem: str = ""


@attrs.frozen(eq=False, repr=False)
class Unreached(Value):
    """Why no complete answer came.

    Attributes:
        error: what is to be raised.
        elsewhere: whether another host may answer: this one's name or certificate fails.
        reused: whether the request was sent over a connection that was idle, and may be dead.
    """

    error: IefError
    elsewhere: bool
    reused: bool


async def exchange(
    connections: Connections,
    request: Request,
    sign: Callable[[], Mapping[str, str]],
    *,
    timeouts: Timeouts,
    max_body_bytes: int,
    scrub: Callable[[str], str],
    quotable: bool = True,
    fresh: bool = False,
) -> Exchange | Unreached:
    """Send a request once, and read its answer.

    After a failure on an idle connection that was reused, the others to that host are dropped:
    after a sleep, or behind a NAT, all of them may be dead.

    An error is returned, not raised: the frames of this function and of all below it hold what the
    server sent, which may echo the token, and a traceback would carry them.

    Args:
        connections: where an aiohttp session is found.
        request: what is sent.
        sign: makes the headers that authenticate it.
        timeouts: how long it may take, unless the request says so itself.
        max_body_bytes: how long the body of an expected answer may be.
        scrub: takes what was sent out of the server's words.
        quotable: whether an error may quote what can't be parsed: it may hold a new key.
        fresh: whether it is sent over a new connection.
    """
    http = connections.session()
    url = URL(request.url, encoded=True)
    attempt = _Attempt(http, url, sign, fresh=fresh)
    proxy = connections.proxy_for(url)
    what = f"{request.method} {url.raw_path}"
    ended: BaseException
    try:
        async with http.request(
            request.method,
            url,
            data=request.body or None,
            headers={
                "Accept-Encoding": "gzip",
                "User-Agent": USER_AGENT,
                **request.headers,
            },
            proxy=None if proxy is None else proxy.url,
            proxy_headers=_proxy_headers(proxy),
            timeout=_client_timeout(timeouts, request.timeout, by_proxy=proxy is not None),
            allow_redirects=False,
            raise_for_status=False,
            auto_decompress=False,
            max_field_size=request.header_bytes,
            middlewares=attempt.middlewares,
        ) as response:
            wanted = response.status in request.expected
            cap = max_body_bytes if wanted else ERROR_BODY_BYTES
            body, problem = await _body(response, cap, wanted=wanted, scrub=scrub)
            if len(body) > LARGE_BODY_BYTES:
                await connections.let_others_run()
    except FOREIGN_ERRORS as error:
        if isinstance(error, RuntimeError) and not connections.closed:
            ended = _frameless(error)  # a bug, and no failure of the network
        else:
            if attempt.reused:
                attempt.drop_idle()
            failure = _error_of(
                error,
                connections,
                url,
                what,
                lambda text: scrub(text if proxy is None else proxy.scrub(text)),
                quotable=quotable,
            )
            elsewhere = (
                isinstance(error, ELSEWHERE_ERRORS)
                and not _is_passing(error)
                and not _is_of_proxy(error, url)
            )
            return Unreached(failure, elsewhere=elsewhere, reused=attempt.reused)
    except asyncio.CancelledError as error:
        if not _is_cancelled():  # a session that is closed cancels its look-ups of host names
            lost = _DroppedError("the look-up of the host was cancelled")
            failure = _error_of(lost, connections, url, what, scrub)
            return Unreached(failure, elsewhere=False, reused=False)
        ended = _unseen(error)  # the same one: whoever cancelled knows it by identity or message
    except IefError as error:
        ended = error.with_traceback(None)
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


@lru_cache(maxsize=32)
def _client_timeout(
    timeouts: Timeouts, own: float | None, *, by_proxy: bool
) -> aiohttp.ClientTimeout:
    """Return aiohttp's time-outs of a request, which may have one of its `own`."""
    return aiohttp.ClientTimeout(
        total=own or timeouts.total,
        # a silent proxy is no connection; who waits for a place in a pool has its time
        connect=own or timeouts.connect if by_proxy else None,
        sock_connect=own or timeouts.connect,
        sock_read=own or timeouts.read,
    )


def _is_cancelled() -> bool:
    """Tell whether this task was cancelled, and not something that it waits for."""
    task = asyncio.current_task()
    return task is None or task.cancelling() > 0


def _frameless(error: Exception) -> Exception:
    """Return an error without the frames it came through: aiohttp's hold the request's headers."""
    frames = "".join(traceback.format_tb(error.__traceback__))
    error.add_note(f"Left out, since they hold secrets, are these frames:\n{frames}")
    error.__cause__ = error.__context__ = None
    return error.with_traceback(None)


def _unseen(error: asyncio.CancelledError) -> asyncio.CancelledError:
    """Return a cancellation and its chain, which anyio looks at, without their frames."""
    link: BaseException = error
    while True:
        link.__traceback__ = None
        before = link.__cause__ or link.__context__
        link.__cause__ = None
        link.__context__ = before if isinstance(before, asyncio.CancelledError) else None
        if link.__context__ is None:
            return error
        link = link.__context__


async def _body(
    response: aiohttp.ClientResponse, cap: int, *, wanted: bool, scrub: Callable[[str], str]
) -> tuple[bytes, str]:
    """Read and decompress a body up to its cap; say why it could not be read, or ""."""
    said = response.headers.get("Content-Encoding", "")
    encoding = said.strip().lower()
    pieces: list[bytes] = []
    fits = encoding in {"", "identity", *GZIPPED}
    if fits:
        problem = (
            f"the body is longer than {cap} bytes: ask for a smaller page_size, or raise "
            "Limits(max_body_bytes=)"
        )
        fits = (response.content_length or 0) <= cap
        if fits or not wanted:
            pieces, fits = await _read_up_to(cap, response, zipped=encoding in GZIPPED)
    else:
        problem = f"the body is encoded as {scrub(said)[:64]}, but only gzip was accepted"
    if not fits:
        response.close()
        if wanted:
            return b"", problem
    return b"".join(pieces), ""


def _error_of(
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
        return ConfigurationError(f"{what}: the session was closed while the request was running")
    failure = _failure_of(error, url)
    detail = scrub(_detail(error, quotable=quotable))[:SNIPPET_CHARACTERS]
    message = f"{what}: {failure.value} ({url.host}:{url.port}{': ' if detail else ''}{detail})"
    return TransportError(message, transient=is_retried(failure))


def _failure_of(error: BaseException, url: URL) -> Failure:
    """Say what an error of aiohttp or of the system means."""
    failure = next(failure for kinds, failure in FAILURES if isinstance(error, kinds))
    if _is_of_proxy(error, url):
        return Failure.PROXY_NAME
    if _is_passing(error):
        return Failure.LOOKUP
    if isinstance(error, aiohttp.ClientHttpProxyError):
        # a proxy that says no knows the user, and this host, no better the next time
        final = error.status in range(400, 500) and not is_retried(error.status)
        return Failure.PROXY_REFUSED if final else Failure.PROXY_FAILED
    return failure


def _proxy_headers(proxy: Proxy | None) -> dict[str, str] | None:
    if proxy is None or proxy.authorization is None:
        return None
    return {"Proxy-Authorization": proxy.authorization.reveal()}


def _is_of_proxy(error: BaseException, url: URL) -> bool:
    """Tell whether the host name that was not found is the proxy's."""
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return (error.host, error.port) != (url.raw_host, url.port)
    return False


def _is_passing(error: BaseException) -> bool:
    """Tell whether the resolver gave no answer, so that nothing is known of the name."""
    if not isinstance(error, aiohttp.ClientConnectorDNSError):
        return False
    said: BaseException = error.os_error
    if isinstance(said, socket.gaierror):
        return said.errno not in UNKNOWN_NAMES
    code = said.__cause__.args[0] if said.__cause__ is not None and said.__cause__.args else None
    return code not in UNKNOWN_NAMES_OF_ARES


def _detail(error: BaseException, *, quotable: bool) -> str:
    """Return what an error adds to its class; never the whole URL, which time-outs quote."""
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
        # only a proxy's status is one that somebody sent
        status = f"{error.status} " if isinstance(error, aiohttp.ClientHttpProxyError) else ""
        return " ".join(f"{status}{error.message}".split())
    return str(error)


class _Inflater:
    """Decompresses gzip in bounded steps, since a few bytes of it may stand for gigabytes."""

    def __init__(self) -> None:
        self._member = zlib.decompressobj(GZIP)
        self._members = 1

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield these bytes decompressed, in pieces."""
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
        """Return what is left, or raise `zlib.error` if the last member is not complete."""
        rest = self._member.flush()
        if not self._member.eof:
            message = "the gzip body ends early"
            raise zlib.error(message)
        return rest


async def _read_up_to(
    cap: int, response: aiohttp.ClientResponse, *, zipped: bool
) -> tuple[list[bytes], bool]:
    """Read a body, and tell whether all of it was read: what is beyond its cap is not."""
    inflater = _Inflater() if zipped else None
    pieces: list[bytes] = []
    async for piece in response.content.iter_any():
        for plain in inflater.feed(piece) if inflater else (piece,):
            pieces.append(plain)
            cap -= len(plain)
            if cap < 0:
                return pieces, False
            if len(plain) == INFLATED_BYTES:  # there is more of it, and others need the loop
                await asyncio.sleep(0)
    if inflater and pieces:
        pieces.append(inflater.end())
    return pieces, True
