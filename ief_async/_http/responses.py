"""What an answer means: what is asked for again, and what an answer that says no is turned into.

`RULES` is the one table of what is retried. An answer that says no goes through three pure
functions: `parse_refusal` (bytes and headers to what they say), `classify_refusal` (to the class of
the error, whether a repeat may help, and where the fault lies) and `word_refusal` (to the text).
"""

import json
import re
from collections.abc import Callable, Mapping
from enum import Enum
from types import MappingProxyType
from typing import Any, Literal

import attrs
from multidict import CIMultiDictProxy

from ief_async._auth import clock_skew, http_date
from ief_async._errors import (
    ApiError,
    AuthenticationError,
    BadRequestError,
    IefError,
    NotFoundError,
    PayloadError,
    PermissionDeniedError,
    ServerError,
    ThrottledError,
    TransportError,
)
from ief_async._structure import SNIPPET_CHARACTERS
from ief_async._texts import RUN, printable
from ief_async._values import Value

Headers = CIMultiDictProxy[str]
Scrub = Callable[[str], str]

OK = 200
REQUEST_ID = "X-Request-Id"
MESSAGE_CHARACTERS = 512
CODE_CHARACTERS = 64
SCRUBBED_CHARACTERS = 8 * 1024  # of a text of which far fewer are shown
REDIRECTS = frozenset({301, 302, 303, 307, 308})
REDIRECTED = "Redirects are not followed, as they would carry credentials away: check the endpoint."
THROTTLED_CODE = "0308"  # of the gateway, as APIG.0308 and APIGW.0308
# IEF says with status 400, too, that the token is missing, expired, or of another project
TOKEN_CODES = frozenset({"IEF.011005", "IEF.310001", "IEF.310002"})
# what the gateway's codes mean where an error body came with status 200
STATUS_BY_GATEWAY_CODE: Mapping[str, int] = MappingProxyType(
    {
        "0101": 404,
        "0103": 404,
        "0301": 401,
        "0302": 403,
        "0303": 401,
        "0304": 403,
        "0305": 401,
        "0306": 403,
        "0307": 401,
        THROTTLED_CODE: 429,
        "0310": 403,
        "0401": 403,
        "0402": 403,
    }
)


class Failure(Enum):
    """Why a request got no usable answer, where no status says it; in words a user can act on."""

    CERTIFICATE = "the server's certificate is not trusted; for a private CA give http="
    UNKNOWN_NAME = "the host name was not found; check region, endpoint and iam_endpoint"
    LOOKUP = "the host name could not be looked up at the moment"
    PROXY_NAME = "the proxy's host name was not found; check proxy= or HTTPS_PROXY"
    CONNECT_TIMEOUT = "no connection in time, see Timeouts(connect=)"
    READ_TIMEOUT = "the server went silent, see Timeouts(read=)"
    TOTAL_TIMEOUT = "no complete answer in time, see Timeouts(total=)"
    TLS = "the TLS handshake failed"
    PROXY_CONNECTION = "no connection to the proxy"
    CONNECTION = "no connection"
    DROPPED = "the connection ended before an answer came"
    HOSTILE_GZIP = "the compressed body was refused"
    DAMAGED = "the body is cut or damaged"
    PROXY_REFUSED = "the proxy refused the connection"
    PROXY_FAILED = "the proxy could not connect"
    NOT_HTTP = "the answer is not HTTP"
    BAD_URL = "the URL can't be sent"
    SYSTEM = "the operating system gave no connection"
    INCOMPLETE = "no complete answer came"
    NOT_JSON = "the body is not JSON"
    UNEXPECTED_OK = "200 was not expected; it may be a web page"
    WRONG_BODY = "the body is not the documented data"


@attrs.frozen(eq=False, repr=False)
class Rule(Value):
    """What becomes of a request that got this.

    Attributes:
        error: what it is raised as, once it is given up.
        retried: whether it is sent again, as `RetryPolicy` says how often and how patiently.
    """

    error: type[IefError]
    retried: bool


# What is retried, by status or failure. A status that is not here is a ServerError from 500 on,
# else an ApiError, and is not retried. No code has a row: one that says more than its status is in
# TOKEN_CODES or STATUS_BY_GATEWAY_CODE, which name the status whose row it takes. A request that is
# refused for a token or key that can be renewed is sent once more with the new one, whatever stands
# here.
RULES: Mapping[int | Failure, Rule] = MappingProxyType(
    {
        # the server said no
        400: Rule(BadRequestError, retried=False),
        401: Rule(AuthenticationError, retried=False),
        403: Rule(PermissionDeniedError, retried=False),
        404: Rule(NotFoundError, retried=False),
        408: Rule(ApiError, retried=True),
        413: Rule(BadRequestError, retried=False),
        414: Rule(BadRequestError, retried=False),
        429: Rule(ThrottledError, retried=True),
        494: Rule(BadRequestError, retried=False),
        500: Rule(ServerError, retried=True),
        502: Rule(ServerError, retried=True),
        503: Rule(ServerError, retried=True),
        504: Rule(ServerError, retried=True),
        # no complete answer came
        Failure.CERTIFICATE: Rule(TransportError, retried=False),
        Failure.UNKNOWN_NAME: Rule(TransportError, retried=True),
        Failure.LOOKUP: Rule(TransportError, retried=True),
        Failure.PROXY_NAME: Rule(TransportError, retried=True),
        Failure.CONNECT_TIMEOUT: Rule(TransportError, retried=True),
        Failure.READ_TIMEOUT: Rule(TransportError, retried=True),
        Failure.TOTAL_TIMEOUT: Rule(TransportError, retried=True),
        Failure.TLS: Rule(TransportError, retried=True),
        Failure.PROXY_CONNECTION: Rule(TransportError, retried=True),
        Failure.CONNECTION: Rule(TransportError, retried=True),
        Failure.DROPPED: Rule(TransportError, retried=True),
        Failure.HOSTILE_GZIP: Rule(TransportError, retried=False),
        Failure.DAMAGED: Rule(TransportError, retried=True),
        Failure.PROXY_REFUSED: Rule(TransportError, retried=False),
        Failure.PROXY_FAILED: Rule(TransportError, retried=True),
        Failure.NOT_HTTP: Rule(TransportError, retried=True),
        Failure.BAD_URL: Rule(TransportError, retried=False),
        Failure.SYSTEM: Rule(TransportError, retried=True),
        Failure.INCOMPLETE: Rule(TransportError, retried=True),
        # an answer came whose body is of no use
        Failure.NOT_JSON: Rule(PayloadError, retried=True),
        Failure.UNEXPECTED_OK: Rule(PayloadError, retried=True),
        Failure.WRONG_BODY: Rule(PayloadError, retried=False),
    }
)


def is_retried(reason: int | Failure) -> bool:
    """Tell whether a request that got this status, or failed so, is sent again."""
    return reason in RULES and RULES[reason].retried


# -- an answer that says no ------------------------------------------------------------------------


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Refusal(Value):
    """What an answer that says no says, as it may be shown: without the secrets that were sent.

    Attributes:
        status: the HTTP status.
        code: the service's code, or "".
        message: the service's words, or how the body begins if it is no known error body, or "".
        request_id: the service's name for the request, or None.
        retry_after: seconds that the server asks to wait, or None.
        window: the same, where only the text of a full quota says it; else None.
        skew: seconds that this machine's clock is ahead of the server's.
    """

    status: int
    code: str = ""
    message: str = ""
    request_id: str | None = None
    retry_after: float | None = None
    window: float | None = None
    skew: float = 0.0


def parse_refusal(
    status: int,
    headers: Headers,
    body: bytes,
    *,
    now: float,
    scrub: Scrub = str,
    quotable: bool = True,
) -> Refusal:
    """Read what an answer says that is not the wanted one.

    Known bodies are those of IEF, of the gateway, and of IAM in its three forms.

    Args:
        status: the HTTP status.
        headers: all of them.
        body: its beginning.
        now: the wall clock, in seconds since 1970.
        scrub: takes what was sent out of the server's words.
        quotable: whether the beginning of an unknown body may be shown: it may hold a new key.
    """
    known = _error_body(body)
    code, message, in_body = known or ("", "", "")
    code = shown(code, CODE_CHARACTERS, scrub)
    window = window_seconds(message) if _gateway_code(code) == THROTTLED_CODE else None
    if known is None and quotable:
        message = beginning(body, scrub)
    else:
        message = shown(message, MESSAGE_CHARACTERS, scrub)
    waits = [retry_after_seconds(text, now=now) for text in headers.getall("Retry-After", [])]
    asked = max((wait for wait in waits if wait is not None), default=None)
    return Refusal(
        status=status,
        code=code,
        message=message,
        request_id=request_id_of(headers, scrub) or shown(in_body, CODE_CHARACTERS, scrub) or None,
        retry_after=window if asked is None else asked,
        window=window if asked is None else None,
        skew=clock_skew(headers.get("Date"), now=now),
    )


AtFault = Literal["credentials", "endpoint", "request", "service"]


@attrs.frozen(eq=False, repr=False)
class Verdict(Value):
    """What an answer that says no means.

    Attributes:
        error: the class of the error.
        retried: whether a repeat may help.
        fault: what has to change before the request can succeed.
    """

    error: type[ApiError]
    retried: bool
    fault: AtFault


def classify_refusal(status: int, code: str, *, for_key: bool = False) -> Verdict:
    """Decide what a refusal means: by its status, and by its code where the status is misleading.

    Args:
        status: the HTTP status; 200 if an error body came with it.
        code: the service's code, or "".
        for_key: whether a token or key was asked for. What is final there is the fault of what was
            given to get one, and not of IEF.
    """
    effective_status = status
    if status in {OK, 400} and code in TOKEN_CODES:
        effective_status = 401
    elif status == OK:
        effective_status = STATUS_BY_GATEWAY_CODE.get(_gateway_code(code), OK)
    error: type[ApiError] = ApiError
    rule = RULES.get(effective_status)
    if rule is not None and issubclass(rule.error, ApiError):
        error = rule.error
    elif effective_status in range(500, 600):
        error = ServerError
    retried = is_retried(status)  # an error body that came with status 200 is never retried
    if status in REDIRECTS:
        return Verdict(error, retried, "endpoint")
    if error is AuthenticationError or (for_key and not retried):
        return Verdict(error, retried, "credentials")
    return Verdict(error, retried, "service" if retried or error is ServerError else "request")


def word_refusal(refusal: Refusal, verdict: Verdict, *, request: str, credentials: str) -> str:
    """Say what was answered, to which request, and what to do about it.

    Args:
        refusal: what the answer says.
        verdict: what it means.
        request: such as ``"GET /v3/…"``.
        credentials: what to do if the credentials are at fault.
    """
    advice = verdict.error.advice
    if verdict.fault == "endpoint":
        advice = REDIRECTED
    elif verdict.fault == "credentials":
        advice = credentials
    code = f" {refusal.code}" if refusal.code != str(refusal.status) else ""  # IAM's is the status
    said = f"{refusal.status}{code}".strip() + (f": {refusal.message}" if refusal.message else "")
    return f"{request} was answered {said}{named(refusal.request_id)}. {advice}"


# -- how much of an answer is shown ----------------------------------------------------------------


def shown(text: str, most: int, scrub: Scrub) -> str:
    """Return the beginning of a server's words as they may be shown, in one line.

    They are scrubbed before they are cut, lest half a token stays.
    """
    cut = len(text) > SCRUBBED_CHARACTERS
    text = scrub(text[:SCRUBBED_CHARACTERS])
    text = text[:-RUN] if cut else text  # what is left of a secret there is not recognised
    return printable(" ".join(text.split()))[:most]


def beginning(body: bytes, scrub: Scrub) -> str:
    """Return how a body begins, as it may be shown."""
    text = body[: 4 * SCRUBBED_CHARACTERS].decode("utf-8", "replace")
    return shown(text, SNIPPET_CHARACTERS, scrub)


def request_id_of(headers: Headers, scrub: Scrub) -> str | None:
    """Return the server's name for a request, as it may be shown, or None."""
    request_id = headers.get(REQUEST_ID)
    return None if request_id is None else shown(request_id, CODE_CHARACTERS, scrub)


def named(request_id: str | None) -> str:
    """Return how a text names a request, or "" if it has no id."""
    return f" (request id {request_id})" if request_id else ""


# -- what a body and its headers say ---------------------------------------------------------------


def _error_body(body: bytes) -> tuple[str, str, str] | None:
    """Return code, message and request id of an error body, or None if it is no known one."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return None
    if isinstance(document, dict) and isinstance(document.get("error"), dict):
        document = document["error"]
    if not isinstance(document, dict):
        return None
    code = _first_text(document, "error_code", "errorCode", "code")
    message = _first_text(document, "error_msg", "errorMsg", "message")
    return (code, message, _first_text(document, "request_id")) if code or message else None


def has_error_code(body: bytes) -> bool:
    """Tell whether a body is an error body with a code, whatever status it came with."""
    code, _, _ = _error_body(body) or ("", "", "")
    return bool(code)


def _first_text(document: Mapping[str, Any], *names: str) -> str:
    values = (document.get(name) for name in names)
    return next(
        (str(value) for value in values if isinstance(value, str | int) and value != ""), ""
    )


def _gateway_code(code: str) -> str:
    """Return the number of a gateway's code, whichever gateway it is of."""
    return code.rpartition(".")[2]


# "limit:60,time:1 minute": what the gateway says of a full window, in place of a Retry-After
WINDOW = re.compile(
    r"\btime\s{0,9}[:=]\s{0,9}([0-9]{1,9})\s{0,9}([a-z]{1,9})\b", re.IGNORECASE | re.ASCII
)
WINDOW_UNITS: Mapping[str, float] = MappingProxyType(
    {
        **dict.fromkeys(["s", "sec", "secs", "second", "seconds"], 1.0),
        **dict.fromkeys(["m", "min", "mins", "minute", "minutes"], 60.0),
        **dict.fromkeys(["h", "hr", "hrs", "hour", "hours"], 3_600.0),
        **dict.fromkeys(["d", "day", "days"], 86_400.0),
    }
)


def retry_after_seconds(header: str | None, *, now: float) -> float | None:
    """Read a ``Retry-After`` header: seconds or an HTTP date; None if it is neither.

    `now` is the wall clock in seconds since 1970. A date that has passed is 0 seconds.
    """
    text = (header or "").strip()
    if text.isascii() and text.isdigit():
        return float(text[:18])
    moment = http_date(text)
    return None if moment is None else max(0.0, moment.timestamp() - now)


def window_seconds(text: str) -> float | None:
    """Read the throttling window in the text of a 429; the longest of several, None without one."""
    windows = [
        float(number) * WINDOW_UNITS[unit.lower()]
        for number, unit in WINDOW.findall(text)
        if unit.lower() in WINDOW_UNITS
    ]
    return max(windows, default=0.0) or None
