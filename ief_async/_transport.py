"""One request from end to end: sign, pace, send, read, map errors. Only this file speaks aiohttp.

What is asked of aiohttp, each because its default was measured to harm: redirects off (it forwards
``X-Auth-Token`` to other origins), its silent second GET off (it hides failures from the budget),
bodies read piece by piece against a cap (a gzip bomb), no cookies, no proxy from the environment,
URLs sent as they were built. Its errors hold the request's headers, so ours are made inside an
``except`` and raised after it: no token in any cause, context or traceback.
"""

import asyncio
import math
import os
import ssl
import warnings
import zlib
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

import aiohttp
import attrs
from aiohttp.http_exceptions import HttpProcessingError
from multidict import CIMultiDictProxy
from yarl import URL

from ief_async._credentials import Token
from ief_async._errors import (
    ApiError,
    AuthenticationError,
    BadRequestError,
    ConfigurationError,
    IefError,
    NotFoundError,
    PayloadError,
    PermissionDeniedError,
    ServerError,
    ThrottledError,
    TransportError,
)
from ief_async._pacing import Clock, Limits, Pacer, RetryPolicy, Timeouts, retry_after_seconds
from ief_async._structure import SNIPPET_CHARACTERS, read_refusal

T = TypeVar("T")
Headers = CIMultiDictProxy[str]
HttpSession = aiohttp.ClientSession

OK = 200
USER_AGENT = "ief-async"
REQUEST_ID = "X-Request-Id"
ERROR_BODY_BYTES = 64 * 1024
GZIP = 16 + zlib.MAX_WBITS  # as zlib wants to be told
GZIP_MEMBERS = 64  # a body is one member; empty ones in their thousands cost time and say nothing
INFLATED_BYTES = 256 * 1024  # at a time: what a few bytes of gzip may grow to
MESSAGE_CHARACTERS = 512
CODE_CHARACTERS = 64
REDIRECTS = frozenset({301, 302, 303, 307, 308})
REDIRECTED = "Redirects are not followed, as they would carry the token away: check the endpoint."
TRANSIENT_STATUS = frozenset({408, 429, 500, 502, 503, 504})
# IEF says with status 400, too, that the token is missing, expired, or of another project
TOKEN_CODES = frozenset({"IEF.011005", "IEF.310001", "IEF.310002"})
ERRORS_BY_STATUS: dict[int, type[ApiError]] = {
    400: BadRequestError,
    401: AuthenticationError,
    403: PermissionDeniedError,
    404: NotFoundError,
    413: BadRequestError,
    414: BadRequestError,
    429: ThrottledError,
    494: BadRequestError,
}
# what the gateway's codes mean where an error body came with status 200
STATUS_BY_GATEWAY_CODE = {
    "0101": 404,
    "0103": 404,
    "0301": 401,
    "0302": 403,
    "0303": 401,
    "0304": 403,
    "0305": 401,
    "0306": 403,
    "0307": 401,
    "0308": 429,
    "0310": 403,
    "0401": 403,
    "0402": 403,
}

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


FINAL_ERRORS = (*CERTIFICATE_ERRORS, _HostileGzipError, aiohttp.InvalidURL, UnicodeError)
# aiohttp's errors and the system's, the most specific first, in words that a user can act on
WORDS: tuple[tuple[type[BaseException] | tuple[type[BaseException], ...], str], ...] = (
    (CERTIFICATE_ERRORS, "the server's certificate is not trusted; for a private CA give http="),
    (aiohttp.ClientConnectorDNSError, "the host name was not found; check region and endpoint"),
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


@attrs.frozen(kw_only=True)
class Answer(Generic[T]):
    """What came of a request: the value that was read from the body, and how it came."""

    value: T = attrs.field(repr=False)
    raw: bytes = attrs.field(repr=False)
    request_id: str | None
    elapsed: float = 0.0
    attempts: int = 0


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
                "http= has trust_env on: a proxy from the environment may see the token",
                UserWarning,
                stacklevel=3,
            )
        self._borrowed = http
        self._loop: asyncio.AbstractEventLoop | None = None
        self._process = 0
        self.closed = False

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

    async def close(self) -> None:
        """Close what is owned; what is borrowed stays open."""
        self.closed = True
        if self._owned is not None:
            await self._owned.close()

    def __del__(self) -> None:
        owned = self._owned
        if owned is None or owned.closed:
            return
        warnings.warn(
            "an IefSession was never closed: use `async with`, or await its aclose()",
            ResourceWarning,
            source=self,
            stacklevel=2,
        )
        connector = owned.connector
        owned.detach()  # one warning is enough: aiohttp would add its own, and a log line at exit
        if connector is not None:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # it can't be awaited here
                aiohttp.BaseConnector.close(connector)


@attrs.frozen(kw_only=True)
class Transport:
    """Sends requests of one project at one endpoint. All that it holds may be shared."""

    endpoint: str
    credentials: Token
    instance_id: str | None
    connections: Connections
    pacer: Pacer
    clock: Clock
    retry: RetryPolicy
    limits: Limits
    timeouts: Timeouts

    async def get(
        self,
        target: str,
        read: Callable[[bytes], T],
        *,
        deadline: float = math.inf,
        lane: object = None,
    ) -> Answer[T]:
        """Fetch a target (path and query, already encoded) and `read` its body, with retries.

        `deadline` is a moment of the clock, `lane` whose share of the pace it is. Raises what
        `IefError` names, never aiohttp's errors.
        """
        self.connections.session()  # what can't be sent at all is no attempt
        started = self.clock.now()
        sent = 0
        url = URL(self.endpoint + target, encoded=True)
        what = f"GET {url.raw_path}"
        remaining = None if deadline == math.inf else max(0.0, deadline - started)
        scope = asyncio.timeout(remaining)

        async def attempt(number: int) -> Answer[T]:
            nonlocal sent
            sent = number
            outcome = await self._exchange(url, what, read)
            if isinstance(outcome, IefError):
                raise outcome
            return attrs.evolve(outcome, elapsed=self.clock.now() - started, attempts=number)

        try:
            async with scope:
                return await self.pacer.run(attempt, retry=self.retry, deadline=deadline, lane=lane)
        except TimeoutError:
            if not scope.expired():
                raise
        elapsed = self.clock.now() - started
        late = TransportError(f"{what}: the deadline passed after {elapsed:.3g} s")
        late.attempts, late.elapsed = sent, elapsed
        raise late

    async def _exchange(
        self, url: URL, what: str, read: Callable[[bytes], T]
    ) -> Answer[T] | IefError:
        """Send one request and read its answer.

        An error is returned, not raised: the frames of this and all below it hold what the server
        sent, which may echo the token, and a traceback would carry them.
        """
        http = self.connections.session()
        self.pacer.tally.requests += 1
        cancelled: tuple[object, ...]
        try:
            # the headers are made within the call, so that no frame of ours holds a token
            async with http.get(
                url,
                headers=self._headers(),
                timeout=aiohttp.ClientTimeout(
                    total=self.timeouts.total,
                    sock_connect=self.timeouts.connect,
                    sock_read=self.timeouts.read,
                ),
                allow_redirects=False,
                raise_for_status=False,
                auto_decompress=False,
                middlewares=(*getattr(http, "_middlewares", ()), _once),
            ) as response:
                body = await self._body(response, what)
                if isinstance(body, PayloadError):
                    return body
        except FOREIGN_ERRORS as error:
            if isinstance(error, RuntimeError) and not self.connections.closed:
                raise  # a bug, not the weather
            return self._failure(error, what, url)
        except asyncio.CancelledError as error:
            cancelled = error.args  # its traceback holds aiohttp's frames, and they the headers
        else:
            if response.status != OK:
                return self._refusal(what, response.status, response.headers, body)
            return self._read(what, response.headers, body, read)
        raise asyncio.CancelledError(*cancelled)

    def _headers(self) -> dict[str, str]:
        headers = {
            "Accept-Encoding": "gzip",
            "Content-Type": "application/json",
            "User-Agent": USER_AGENT,
            **self.credentials.headers(),
        }
        if self.instance_id:
            headers["ief-instance-id"] = self.instance_id
        return headers

    async def _body(self, response: aiohttp.ClientResponse, what: str) -> bytes | PayloadError:
        """Read a body up to its cap, decompressed: all of a 200, the beginning of any other."""
        wanted = response.status == OK
        cap = self.limits.max_body_bytes if wanted else ERROR_BODY_BYTES
        said = response.headers.get("Content-Encoding", "")
        encoding = said.lower()
        shown = self.credentials.scrub(said)[:CODE_CHARACTERS]
        refused = f"the body is encoded as {shown}, though gzip was asked for"
        pieces: list[bytes] = []
        fits = encoding in {"", "identity", "gzip"}
        if fits:
            refused = (
                f"the body is longer than {cap} bytes; ask for a smaller page_size, or raise "
                "Limits(max_body_bytes=)"
            )
            fits = (response.content_length or 0) <= cap
            if fits or not wanted:
                pieces, fits = await _read_up_to(cap, response, zipped=encoding == "gzip")
        if not fits:
            response.close()
            if wanted:
                return self._payload_error(what, response.headers, refused)
        return b"".join(pieces)

    def _payload_error(
        self,
        what: str,
        headers: Headers,
        words: str,
        *,
        path: str = "",
        snippet: str = "",
        transient: bool = False,
    ) -> PayloadError:
        """Say in an error of the body which answer it was."""
        request_id = self._request_id(headers)
        named = f" (request id {request_id})" if request_id else ""
        text = f"{what}{named}: {self.credentials.scrub(words)}"
        error = PayloadError(text, path=path, snippet=snippet, transient=transient)
        error.request_id = request_id
        return error

    def _request_id(self, headers: Headers) -> str | None:
        request_id = headers.get(REQUEST_ID)
        return None if request_id is None else self.credentials.scrub(request_id)[:CODE_CHARACTERS]

    def _read(
        self, what: str, headers: Headers, body: bytes, read: Callable[[bytes], T]
    ) -> Answer[T] | IefError:
        """Read the body of a 200; one that carries an error is that error."""
        try:
            value = read(body)
        except PayloadError as error:
            problem = error
        else:
            return Answer(value=value, raw=body, request_id=self._request_id(headers))
        refusal = None if problem.transient else read_refusal(body)
        if refusal is not None and refusal[0].error_code:
            return self._refusal(what, OK, headers, body)
        return self._payload_error(
            what,
            headers,
            problem.message,
            path=problem.path,
            snippet=self._snippet(body) if problem.snippet else "",
            transient=problem.transient,
        )

    def _refusal(self, what: str, status: int, headers: Headers, body: bytes) -> ApiError:
        """Turn an answer that says no into the error that says what to do about it."""
        said, request_id = read_refusal(body) or (None, None)
        scrub = self.credentials.scrub
        request_id = self._request_id(headers) or scrub(request_id or "")[:CODE_CHARACTERS] or None
        code = scrub((said.error_code if said else "") or "")[:CODE_CHARACTERS]
        words = (said.error_msg or "") if said else self._snippet(body)
        words = scrub(" ".join(words.split()))[:MESSAGE_CHARACTERS]
        kind = _kind(status, code)
        now = self.clock.wall()
        waits = [retry_after_seconds(text, now=now) for text in headers.getall("Retry-After", [])]
        named = f" (request id {request_id})" if request_id else ""
        shown = f"{status} {code}".strip() + (f": {words}" if words else "")
        advice = REDIRECTED if status in REDIRECTS else kind.advice
        error = kind(
            f"{what} was answered {shown}{named}. {advice}",
            status=status,
            error_code=code,
            error_msg=words,
            retry_after=max((wait for wait in waits if wait is not None), default=None),
            transient=status in TRANSIENT_STATUS,
        )
        error.request_id = request_id
        return error

    def _snippet(self, body: bytes) -> str:
        """Return how a body begins; scrubbed before it is cut, lest half a token stays."""
        text = body[:ERROR_BODY_BYTES].decode("utf-8", "replace")
        return self.credentials.scrub(text)[:SNIPPET_CHARACTERS]

    def _failure(self, error: BaseException, what: str, url: URL) -> IefError:
        """Map an error of aiohttp or of the system to ours."""
        if self.connections.closed:
            return ConfigurationError(f"{what}: the session was closed while the request ran")
        words = next(words for kinds, words in WORDS if isinstance(error, kinds))
        detail = self.credentials.scrub(_detail(error))[:SNIPPET_CHARACTERS]
        message = f"{what}: {words} ({url.host}:{url.port}{': ' if detail else ''}{detail})"
        return TransportError(message, transient=not isinstance(error, FINAL_ERRORS))


def _detail(error: BaseException) -> str:
    """Return what an error adds to its class; never the whole URL, which time-outs print."""
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


def _kind(status: int, code: str) -> type[ApiError]:
    """Choose the class of an answer that says no: by its status, by its code where that lies."""
    if status in {OK, 400} and code in TOKEN_CODES:
        return AuthenticationError
    if status == OK:
        status = STATUS_BY_GATEWAY_CODE.get(code.rpartition(".")[2], OK)
    default = ServerError if status in range(500, 600) else ApiError
    return ERRORS_BY_STATUS.get(status, default)
