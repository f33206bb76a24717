"""SDK-HMAC-SHA256: making a signature, and checking one."""

import hashlib
import hmac
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote, unquote_to_bytes

from ief_async.testing._answers import FakeRequest

Query = str | Mapping[str, Any] | Iterable[tuple[str, Any]]

ALGORITHM = "SDK-HMAC-SHA256"
AUTHORIZATION = re.compile(
    rf"{ALGORITHM} Access=([^,\s]+), SignedHeaders=([^,\s]+), Signature=([0-9a-f]{{64}})"
)
_SDK_DATE = "%Y%m%dT%H%M%SZ"


def sign(
    access_key: str,
    secret_key: str,
    *,
    method: str,
    host: str,
    path: str,
    query: Query = "",
    headers: Mapping[str, str] | None = None,
    body: str | bytes | None = None,
    now: datetime | float | str,
) -> str:
    """Sign a request with ``SDK-HMAC-SHA256``, independently of the client's own code.

    Example:
        from ief_async.testing import sign

        value = sign("AK", "SK", method="GET", host="127.0.0.1", path="/v3/projects", now=0)
        assert value.startswith("SDK-HMAC-SHA256 Access=AK, SignedHeaders=host;x-sdk-date, ")

    Args:
        access_key: The id of the key.
        secret_key: The secret of the key.
        method: As it will be sent.
        host: As it will be sent, with the port if there is one.
        path: As it will be sent, escapes included.
        query: As it will be sent, or its parameters: strings, numbers and booleans.
        headers: All headers to be signed, in any case. ``Host`` and ``X-Sdk-Date`` are added if
            they are missing; a header with an underscore in its name is left out.
        body: As it will be sent.
        now: An aware datetime, seconds since 1970, or the value of ``X-Sdk-Date``.

    Returns:
        The value of the header ``Authorization``.

    Raises:
        ValueError: ``now`` is a datetime without a time zone.
    """
    sent = {"host": host, "x-sdk-date": _sdk_date(now)}
    sent |= {name.lower(): value for name, value in (headers or {}).items()}
    names = sorted(name for name in sent if "_" not in name and name != "authorization")
    content = body.encode() if isinstance(body, str) else body or b""
    request = _canonical(method, path, _pairs(query), headers=sent, names=names, body=content)
    signature = _signature(secret_key, sent["x-sdk-date"], request)
    return (
        f"{ALGORITHM} Access={access_key}, SignedHeaders={';'.join(names)}, Signature={signature}"
    )


def _sdk_date(now: datetime | float | str) -> str:
    if isinstance(now, str):
        return now
    if not isinstance(now, datetime):
        now = datetime.fromtimestamp(now, UTC)
    if now.tzinfo is None:
        msg = f"now must be a datetime with a time zone, got {now!r}"
        raise ValueError(msg)
    return now.astimezone(UTC).strftime(_SDK_DATE)


def _pairs(query: Query) -> Iterator[tuple[bytes, bytes]]:
    """Split a query into its parameters. A plus is a plus: it means a blank only in forms."""
    if isinstance(query, str):
        for part in filter(None, query.split("&")):
            name, _, value = part.partition("=")
            yield unquote_to_bytes(name), unquote_to_bytes(value)
        return
    for name, given in query.items() if isinstance(query, Mapping) else query:
        for value in given if isinstance(given, (list, tuple)) else (given,):
            text = str(value).lower() if isinstance(value, bool) else str(value)
            yield name.encode(), text.encode()


def _canonical(
    method: str,
    path: str,
    pairs: Iterable[tuple[bytes, bytes]],
    *,
    headers: Mapping[str, str],
    names: Iterable[str],
    body: bytes,
) -> str:
    """Return the canonical request, which is signed; names of headers are in lower case."""
    names = list(names)
    escaped = quote(unquote_to_bytes(path), safe="/")
    payload = hashlib.sha256(body).hexdigest()
    if body:
        payload = headers.get("x-sdk-content-sha256", payload).strip()
    return "\n".join(
        [
            method,
            escaped if escaped.endswith("/") else f"{escaped}/",
            # Sorted before it is escaped. Bytes of UTF-8 sort as the characters do.
            "&".join(
                f"{quote(name, safe='')}={quote(value, safe='')}" for name, value in sorted(pairs)
            ),
            *(f"{name}:{headers.get(name, '').strip()}" for name in names),
            "",
            ";".join(names),
            payload,
        ]
    )


def _signature(secret_key: str, sdk_date: str, request: str) -> str:
    digest = hashlib.sha256(request.encode(errors="surrogateescape")).hexdigest()
    text = f"{ALGORITHM}\n{sdk_date.strip()}\n{digest}"
    key, message = secret_key.encode(), text.encode(errors="surrogateescape")
    return hmac.new(key, message, hashlib.sha256).hexdigest()


def is_right(seen: FakeRequest, secret_key: str, names: list[str], signature: str) -> bool:
    """Check a signature, and that it covers every required header, each once and in order."""
    needed = {"host", "x-sdk-date"}
    needed |= {"x-security-token"} & {*seen.headers}
    request = canonical_of(seen, names)
    expected = _signature(secret_key, seen.headers.get("x-sdk-date", ""), request)
    equal = hmac.compare_digest(expected, signature)
    return equal and needed <= {*names} <= {*seen.headers} and names == sorted({*names})


def canonical_of(seen: FakeRequest, names: Iterable[str]) -> str:
    """Return the canonical request of a request that signs these headers."""
    return _canonical(
        seen.method,
        seen.path,
        _pairs(seen.raw_query),
        headers=seen.headers,
        names=names,
        body=seen.body,
    )


def age(seen: FakeRequest, now: float) -> float:
    """Return how many seconds lie between now and the request's ``X-Sdk-Date``."""
    try:
        sent = datetime.strptime(f"{seen.headers['x-sdk-date'].strip()}+0000", f"{_SDK_DATE}%z")
    except ValueError:
        return math.inf
    return abs(now - sent.timestamp())
