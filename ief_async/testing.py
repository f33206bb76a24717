"""The server in the box: a fake Huawei Cloud IEF on loopback, seeded, scripted and counted.

::

    async with FakeIef(pods=1_000, deployments=20) as fake:
        fake.script(Fault.throttle("2"), Fault.cut())
        ...  # send requests to fake.endpoint with fake.project_id and fake.token
        assert fake.statistics().in_flight_peak <= 8

The fleet stands still unless it is given a `Motion` or changed by hand (`FakeIef.insert`,
`FakeIef.delete`, `FakeIef.touch`); what a listing gets wrong (order, offsets, counts, stale or
empty pages) is an argument each. All of it follows from the seed.

It shares no code with the client, so that one misunderstanding can't be on both sides. Under
pytest this module is a plugin: the fixture ``fake_ief`` is a running `FakeIef`, its arguments come
from ``@pytest.mark.fake_ief(pods=7, token=None)``.
"""

import asyncio
import contextlib
import functools
import gzip
import hashlib
import json
import math
import random
import socket
import struct
import sys
import uuid
import zlib
from array import array
from collections import defaultdict, deque
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
    Mapping,
    MutableSequence,
    Sequence,
)
from datetime import date, timedelta
from email.utils import formatdate
from http import HTTPStatus
from itertools import chain, count, cycle
from typing import Any, Literal, Protocol, Self, TypeVar, get_args, overload
from urllib.parse import parse_qsl

import attrs
from aiohttp import web

__all__ = ["DEFAULT_MIX", "FakeIef", "FakeRequest", "FakeStatistics", "Fault", "Motion"]

Headers = Sequence[tuple[str, str]]
Shape = Literal["ief", "apigw", "iam", "iam_v30", "code_message", "message_only", "html", "empty"]

Place = Literal["anywhere", "head", "tail"]
Order = Literal["stable", "reversed", "shuffled", "ties"]
Offsets = Literal["rows", "ignored", "pages"]
Limits = Literal["kept", "ignored"]
Counts = Literal["true", "none", "page"] | int | Callable[[int, random.Random], int | str | None]

_JSON = "application/json"
_HTML = "text/html; charset=utf-8"
_REQUEST_ID = b"{request_id}"
_BODILESS = {*range(100, 200), 204, 304}
_HEADER_TOO_LARGE = 494  # known to nginx and this gateway, to no standard
_LOGIN_PAGE = (
    b"<!DOCTYPE html><html><head><title>Log in</title></head>"
    b'<body><form action="/login">Please log in</form></body></html>'
)

# --- answers and faults ---------------------------------------------------------------------------


@attrs.frozen
class _Answer:
    """What goes on the wire, before anything goes wrong with it."""

    body: bytes = b""
    status: int = 200
    content_type: str | None = _JSON
    headers: tuple[tuple[str, str], ...] = ()
    framed: bool = True

    def with_headers(self, *headers: tuple[str, str]) -> "_Answer":
        replaced = {name.lower() for name, _ in headers}
        kept = (pair for pair in self.headers if pair[0].lower() not in replaced)
        return attrs.evolve(self, headers=(*kept, *headers))

    def wire(self, request_id: str, *, keep_alive: bool) -> tuple[bytes, bytes]:
        """Head and body. Headers that were given win over the usual ones."""
        bodiless = self.status in _BODILESS
        body = b"" if bodiless else self.body
        if self.status != HTTPStatus.OK:
            body = body.replace(_REQUEST_ID, request_id.encode())
        usual = {
            "Date": formatdate(usegmt=True),
            "Server": "api-gateway",
            "X-Request-Id": request_id,
            "Content-Type": None if bodiless else self.content_type,
            "Content-Length": str(len(body)) if self.framed and not bodiless else None,
            "Connection": None if self.framed and keep_alive else "close",
        }
        given = {name.lower() for name, _ in self.headers}
        lines = [f"{k}: {v}" for k, v in usual.items() if v is not None and k.lower() not in given]
        lines += [f"{name}: {value}" for name, value in self.headers]
        head = "\r\n".join([f"HTTP/1.1 {self.status:03d} {_reason(self.status)}", *lines, "", ""])
        return head.encode(), body


def _reason(status: int) -> str:
    if status == _HEADER_TOO_LARGE:
        return "Request Header Too Large"
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Unknown"


_IEF_ERRORS = {
    400: ("IEF.100001", "Project id not found"),
    401: ("IEF.310002", "Token expired"),
    500: ("IEF.100158", "Failed to extract the GPU information"),
}
_GATEWAY_ERRORS = {
    401: ("APIGW.0301", "Incorrect IAM authentication information: decrypt token fail"),
    403: ("APIGW.0302", "The IAM user is not authorized to access the API"),
    404: ("APIGW.0101", "The API does not exist or has not been published in the environment"),
    429: (
        "APIGW.0308",
        "The throttling threshold has been reached: policy user over ratelimit,limit:200,time:1 s",
    ),
}


def _usual_error(status: int, shape: Shape) -> tuple[str, str]:
    if shape == "ief" and status in _IEF_ERRORS:
        return _IEF_ERRORS[status]
    if shape == "apigw" and status in _GATEWAY_ERRORS:
        return _GATEWAY_ERRORS[status]
    codes = {"ief": "IEF.310003", "apigw": "APIGW.0201", "iam_v30": "IAM.0011"}
    return codes.get(shape, "APIGW.0201"), _reason(status)


def _error_document(status: int, code: str, message: str, shape: Shape) -> dict[str, Any]:
    match shape:
        case "apigw":
            request_id = _REQUEST_ID.decode()
            return {"error_msg": message, "error_code": code, "request_id": request_id}
        case "iam":
            return {"error": {"code": status, "message": message, "title": _reason(status)}}
        case "iam_v30":
            return {"error_msg": message, "error_code": code}
        case "code_message":
            return {"code": code, "message": message}
        case "message_only":
            return {"error_msg": message}
        case _:
            return {"error_code": code, "error_msg": message}


def _error(
    status: int, code: str | None = None, message: str | None = None, shape: Shape = "ief"
) -> _Answer:
    if shape == "empty":
        return _Answer(status=status, content_type=None)
    if shape == "html":
        page = f"<html><body><h1>{status} {message or _reason(status)}</h1></body></html>"
        return _Answer(page.encode(), status, _HTML)
    usual_code, usual_message = _usual_error(status, shape)
    document = _error_document(status, code or usual_code, message or usual_message, shape)
    return _Answer(json.dumps(document, separators=(",", ":")).encode(), status)


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
    answer: _Answer | None = attrs.field(default=None, repr=False)
    change: Callable[[_Answer], _Answer] | None = attrs.field(default=None, repr=False)
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
        answer = _error(status, error_code, error_msg, shape)
        if body is not None:
            answer = attrs.evolve(answer, body=body)
        return cls("status", answer=answer.with_headers(*headers))

    @classmethod
    def throttle(cls, retry_after: str | Sequence[str] | None = None) -> Self:
        """Answer 429 APIGW.0308, with as many ``Retry-After`` headers as given, word for word."""
        values = [retry_after] if isinstance(retry_after, str) else retry_after or ()
        headers = [("Retry-After", value) for value in values]
        return attrs.evolve(cls.status(429, shape="apigw", headers=headers), name="throttle")

    @classmethod
    def redirect(cls, location: str | None, status: int = 302) -> Self:
        """Point elsewhere, or nowhere with None."""
        headers = () if location is None else (("Location", location),)
        return cls("redirect", answer=_Answer(b"", status, None, headers))

    @classmethod
    def body(
        cls,
        data: bytes,
        *,
        status: int = 200,
        content_type: str | None = _JSON,
        headers: Headers = (),
        framed: bool = True,
    ) -> Self:
        """Answer with another body; unframed: without a length, up to the end of the connection."""
        answer = _Answer(data, status, content_type, tuple(headers), framed)
        return cls("body", answer=answer, end="open" if framed else "close")

    @classmethod
    def html(cls) -> Self:
        """Answer 200 with a login page."""
        return cls("html", answer=_Answer(_LOGIN_PAGE, 200, _HTML))

    @classmethod
    def empty(cls) -> Self:
        """Answer 200 with no body at all."""
        return cls("empty", answer=_Answer(b""))

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
        return cls("gzip_bomb", answer=_says_gzip(_Answer(_compressed_blanks(size))))

    @classmethod
    def gzip_members(cls, n: int = 200_000) -> Self:
        """Answer with this many empty gzip members in a row."""
        return cls("gzip_members", answer=_says_gzip(_Answer(gzip.compress(b"", mtime=0) * n)))

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


def _unframed(answer: _Answer) -> _Answer:
    return attrs.evolve(answer, framed=False)


def _chunked(answer: _Answer, tail: bytes = b"0\r\n\r\n") -> _Answer:
    body = b"%x\r\n%b\r\n%b" % (len(answer.body), answer.body, tail)
    chunked = attrs.evolve(answer, body=body, framed=False)
    return chunked.with_headers(("Transfer-Encoding", "chunked"))


def _says_gzip(answer: _Answer) -> _Answer:
    return answer.with_headers(("Content-Encoding", "gzip"))


def _gzipped(answer: _Answer) -> _Answer:
    return _says_gzip(attrs.evolve(answer, body=gzip.compress(answer.body, mtime=0)))


def _gzip_half(answer: _Answer) -> _Answer:
    whole = _gzipped(answer)
    return attrs.evolve(whole, body=whole.body[: len(whole.body) // 2])


def _gzip_wrong(answer: _Answer) -> _Answer:
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


_NORMAL = Fault("none")

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


class _RefusedError(Exception):
    """The request is answered with an error."""

    def __init__(
        self, status: int, code: str | None = None, message: str | None = None, shape: Shape = "ief"
    ) -> None:
        super().__init__(message)
        self.answer = _error(status, code, message, shape)


# --- the fleet ------------------------------------------------------------------------------------

Kind = Literal["deployment", "node", "group"]

_KINDS: tuple[Kind, ...] = get_args(Kind)  # in the order of `_Pods.belongs`
_T = TypeVar("_T")

_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"  # what Kubernetes makes its suffixes of
_PAIRS = [first + second for first in _ALPHABET for second in _ALPHABET]
_DAYS = [str(date(2023, 1, 1) + timedelta(days)) for days in range(366)]
_TIMES = [f"{n % 24:02d}:{n * 7 % 60:02d}:{n % 60:02d}.{n:03d}Z" for n in range(997)]
# Odd, hence without a common factor with a power of two: no two pods get the same id.
_STRIDE = 0x9E3779B97F4A7C15F39CC0605CEDC835
_ID_MASK = (1 << 128) - 1
# Likewise for the suffixes of five letters.
_SUFFIXES = len(_ALPHABET) ** 5
_SUFFIX_STRIDE = 7_368_787
_RARE_STATES = (
    "PENDING SUCCEEDED FAILED CREATE_FAIL TERMINATING PENDING_DELETE DELETE_FAILED FREEZE UNKNOWN"
)
# Prime lengths, so that no number of deployments or nodes falls into step with them.
_STATES = [state for rare in _RARE_STATES.split() for state in (rare, *["RUNNING"] * 10)][:97]
_FULL_EVERY, _FULL_FIRST = 19, 7

# The documented example, then everything that the tables and the SDKs know besides.
_CONTAINER: dict[str, Any] = json.loads("""{
    "args": ["-c", "sleep 1000"], "command": ["/bin/bash"], "name": "container-0",
    "envs": [{"name": "CERT_PATH", "value": "/opt/cert"}], "image_url": "", "npu_type": "",
    "liveness_probe": {"http_get": {"path": "/", "port": 80, "scheme": "http"},
        "initial_delay_seconds": 10, "timeout_seconds": 10},
    "readiness_probe": {"http_get": {"path": "/", "port": 80, "scheme": "http"},
        "initial_delay_seconds": 10, "timeout_seconds": 10},
    "ports": [{"container_port": 80, "host_port": 80}],
    "resources": {"limits": {"cpu": 0.25, "memory": 500, "gpu": 500},
        "requests": {"cpu": 0.25, "memory": 500, "gpu": 500}},
    "volumes": [{"name": "log-volume", "type": "hostPath", "read_only": false,
        "source": "/var/IEF", "destination": "/var/IEF"}],
    "restarts": 0, "message": "", "reason": ""
}""")
_FULL_CONTAINER: dict[str, Any] = _CONTAINER | json.loads("""{
    "name": "container-1", "image_url": "swr.example.com/edge/app", "version": "1.4.2",
    "npu_type": "D310B", "restarts": 3, "reason": "Error", "message": "exit code 1",
    "is_ready": "true", "privileged": false, "container_id": "0f1e2d3c", "state": "running",
    "envs": [{"name": "PLAIN", "value": "1"},
        {"name": "USER", "value_from": {"secret": {"name": "login", "key": "user"}}},
        {"name": "LEVEL", "value_from": {"configmap": {"name": "settings", "key": "level"}}},
        {"name": "HOST_IP", "field_path": "status.hostIP"}],
    "liveness_probe": {"http_get":
            {"path": "/live", "port": 8080, "host": "127.0.0.1", "scheme": "HTTPS"},
        "initial_delay_seconds": 1, "timeout_seconds": 3600},
    "readiness_probe": {"exec": {"command": "test -f /ready"},
        "initial_delay_seconds": 10, "timeout_seconds": 1},
    "ports": [{"container_port": 8080, "host_port": 18080, "host_ip": "192.0.2.7"},
        {"container_port": 9090, "host_port_range": {"min_port": 20000, "max_port": 20100}}],
    "resources": {
        "limits": {"cpu": "0.25", "memory": "500", "npu": "1", "D310": "1", "D310B": 1},
        "requests": {"cpu": "0.25", "memory": "500", "gpu": "500", "npu": "1", "D910": "1"}},
    "volumes": [
        {"name": "settings", "type": "configMap", "read_only": true, "source": "settings",
            "destination": "/etc/app", "default_mode": 420},
        {"name": "login", "type": "secret", "read_only": true, "source": "login",
            "destination": "/etc/login", "default_mode": 256},
        {"name": "cache", "type": "emptyDir", "read_only": false, "source": "memory",
            "destination": "/cache"}]
}""")
_EXPRESSIONS = {"matchExpressions": [{"key": "zone", "operator": "In", "values": ["a", "b"]}]}
_TERM = {
    "labelSelector": _EXPRESSIONS | {"matchLabels": {"app": "test"}},
    "namespaces": ["default"],
    "topologyKey": "kubernetes.io/hostname",
}
_WISHED, _NEEDED = (
    f"{word}DuringSchedulingIgnoredDuringExecution" for word in ("preferred", "required")
)
_POD_AFFINITY = {_WISHED: [{"weight": 50, "podAffinityTerm": _TERM}], _NEEDED: [_TERM]}
_CONFIGS = {
    "host_network": True,
    "host_pid": True,
    "migration": True,
    "restart_policy": "Always",
    "toleration_seconds": 300,
}
_PLAIN = {
    "description": "this is a test pod",
    "configs": _CONFIGS,
    "containers": [_CONTAINER],
}
_FULL = {
    "description": "边缘应用",
    "configs": _CONFIGS | {"dns_policy": "ClusterFirstWithHostNet"},
    "affinity": {
        "nodeAffinity": {
            _WISHED: [{"weight": 1, "preference": _EXPRESSIONS}],
            _NEEDED: {"nodeSelectorTerms": [_EXPRESSIONS]},
        },
        "podAffinity": _POD_AFFINITY,
        "podAntiAffinity": _POD_AFFINITY,
    },
    "init_containers": [_FULL_CONTAINER | {"name": "init-0", "state": "terminated"}],
    "containers": [_CONTAINER, _FULL_CONTAINER],
}


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def _uuid(*parts: object) -> str:
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=16).digest()
    return str(uuid.UUID(bytes=digest, version=4))


class _Pods(Protocol):
    """Where pods come from, by number."""

    def __len__(self) -> int: ...

    def pieces(self, number: int) -> Iterable[bytes]:
        """Give the pod's JSON, in as few new bytes objects as can be."""

    def belongs(self, number: int) -> tuple[str | None, str | None, str | None]:
        """Name the pod's deployment, node and group; None stands for any."""

    def identity(self, number: int) -> str:
        """Give the pod's id."""

    def another(self, deployment: str | None, chance: random.Random) -> int:
        """Give the number of a pod that never was, of this deployment or a drawn one."""


class _SeededPods:
    """Pods made up on demand from a seed: a fleet of any size costs nothing until it is read."""

    def __init__(
        self, size: int, seed: int, project_id: str, ids: Mapping[Kind, Sequence[str]]
    ) -> None:
        self._size = size
        self._rounds = count(-(-size // len(ids["deployment"])))
        self._salt = int(_uuid(seed, "pod").replace("-", ""), 16)
        self._turn = self._salt % len(_STATES)
        self._ids = ids
        self._names = [
            f"app-{n}-{_uuid(seed, 'set', n).replace('-', '')[:10]}"
            for n in range(len(ids["deployment"]))
        ]
        self._middles = [b"," + _json(shape)[1:-1] + b',"node_id":"' for shape in (_PLAIN, _FULL)]
        self._nodes = [identity.encode() for identity in ids["node"]]
        rest = f'"project_id":{json.dumps(project_id)},"reason":"","message":"","created_at":"'
        self._deployments = [f'","deployment_id":"{n}",{rest}'.encode() for n in ids["deployment"]]

    def __len__(self) -> int:
        return self._size

    def pieces(self, number: int) -> tuple[bytes, ...]:
        # What pods have in common is shared, so a page is little more than one join.
        key = f"{number * _STRIDE + self._salt & _ID_MASK:032x}"
        suffix = (number * _SUFFIX_STRIDE + self._salt) % _SUFFIXES
        which, node = number % len(self._deployments), number % len(self._nodes)
        day, time = number % 365, _TIMES[number % len(_TIMES)]
        state = _STATES[(number + self._turn) % len(_STATES)]
        return (
            f'{{"id":"{key[:8]}-{key[8:12]}-4{key[13:16]}-8{key[17:20]}-{key[20:]}",'
            f'"name":"{self._names[which]}-{_PAIRS[suffix % 729]}{_PAIRS[suffix // 729 % 729]}'
            f'{_ALPHABET[suffix // 531_441]}"'.encode(),
            self._middles[number % _FULL_EVERY == _FULL_FIRST],
            b"" if state == "PENDING" else self._nodes[node],
            self._deployments[which],
            f'{_DAYS[day]}T{time}","updated_at":"{_DAYS[day + 1]}T{time}",'
            f'"state":"{state}"}}'.encode(),
        )

    def belongs(self, number: int) -> tuple[str, str, str]:
        deployments, nodes, groups = self._ids.values()
        node = number % len(nodes)
        pending = _STATES[(number + self._turn) % len(_STATES)] == "PENDING"
        return (
            deployments[number % len(deployments)],
            "" if pending else nodes[node],
            groups[node % len(groups)],
        )

    def identity(self, number: int) -> str:
        return self.pieces(number)[0][7:43].decode()  # behind `{"id":"`

    def another(self, deployment: str | None, chance: random.Random) -> int:
        # The remainder decides on the deployment, a new round each time on everything else.
        known = self._ids["deployment"]
        which = chance.randrange(len(known)) if deployment is None else known.index(deployment)
        return next(self._rounds) * len(known) + which


class _GivenPods:
    """Pods that a test wrote down, served as they are, however odd."""

    def __init__(self, pods: Sequence[Mapping[str, Any]], groups: Mapping[str, str]) -> None:
        self._bodies = [self._body(pod) for pod in pods]
        self._pods = [pod if isinstance(pod, Mapping) else {} for pod in pods]
        self._groups = groups

    @staticmethod
    def _body(pod: object) -> bytes:
        # Plain ASCII, so that even half a surrogate can be served.
        return json.dumps(pod, separators=(",", ":"), default=dict).encode()

    def __len__(self) -> int:
        return len(self._bodies)

    def pieces(self, number: int) -> Iterable[bytes]:
        return (self._bodies[number],)

    def belongs(self, number: int) -> tuple[str | None, str | None, str | None]:
        pod = self._pods[number]
        node = pod.get("node_id")
        return pod.get("deployment_id"), node, self._groups.get(str(node))

    def identity(self, number: int) -> str:
        return str(self._pods[number].get("id"))

    def another(self, deployment: str | None, chance: random.Random) -> int:
        number = len(self._bodies)
        given = chance.choice(self._pods) if self._pods else {}
        home = {} if deployment is None else {"deployment_id": deployment}
        self._pods.append({**given, "id": _uuid("another", number), **home})
        self._bodies.append(self._body(self._pods[number]))
        return number


_is_rate = attrs.validators.ge(0.0)
_is_share = attrs.validators.and_(_is_rate, attrs.validators.le(1.0))
_is_place = attrs.validators.in_(get_args(Place))


@attrs.frozen(kw_only=True)
class Motion:
    """What happens to the server's pods before each list request is answered.

    Made by the class methods. All rates are expected numbers per request: of 2.5 inserts there
    are two, and half the time a third.

    Attributes:
        inserts: pods that come, one at a time.
        deletes: pods that go, one at a time.
        touches: pods that jump to the head.
        at: where single inserts go and single deletes hit.
        chance: how likely a request meets an upheaval.
        least: the fewest pods that go in one.
        most: the most pods that go in one.
        new: None: those that go are neighbours. Else they stand anywhere, and as many of the same
            deployments come here.
    """

    inserts: float = attrs.field(default=0.0, validator=_is_rate)
    deletes: float = attrs.field(default=0.0, validator=_is_rate)
    touches: float = attrs.field(default=0.0, validator=_is_rate)
    at: Place = attrs.field(default="anywhere", validator=_is_place)
    chance: float = attrs.field(default=0.0, validator=_is_share)
    least: int = attrs.field(default=1, validator=attrs.validators.ge(1))
    most: int = attrs.field(default=1)
    new: Place | None = attrs.field(default=None, validator=attrs.validators.optional(_is_place))

    @most.validator
    def _reaches_least(self, _: object, most: int) -> None:
        if most < self.least:
            msg = f"at most {most} pods can't be at least {self.least}"
            raise ValueError(msg)

    @classmethod
    def uniform(cls, inserts: float = 0.5, deletes: float = 0.5, *, at: Place = "anywhere") -> Self:
        """Let single pods come and go."""
        return cls(inserts=inserts, deletes=deletes, at=at)

    @classmethod
    def bursts(cls, chance: float = 0.1, least: int = 50, most: int = 300) -> Self:
        """Let neighbours vanish at once."""
        return cls(chance=chance, least=least, most=most)

    @classmethod
    def rolling(
        cls,
        chance: float = 0.1,
        least: int = 50,
        most: int = 300,
        *,
        new: Place = "tail",
        churn: float = 0.5,
    ) -> Self:
        """Replace pods that stand anywhere; besides, single ones come and go, ``churn`` in all."""
        half = churn / 2
        return cls(chance=chance, least=least, most=most, new=new, inserts=half, deletes=half)

    @classmethod
    def touch(cls, rate: float) -> Self:
        """Let pods jump to the head, as in a list that is ordered by the time of update."""
        return cls(touches=rate)


class _Memo(dict[int, _T]):
    """What a function says of each number, which is asked once."""

    def __init__(self, function: Callable[[int], _T]) -> None:
        super().__init__()
        self._function = function

    def __missing__(self, number: int) -> _T:
        value = self[number] = self._function(number)
        return value


class _Fleet(Sequence[dict[str, Any]]):
    """Pods in the server's order, and which of them a query matches."""

    def __init__(self, source: _Pods, *, backwards: bool, lag: int, chance: random.Random) -> None:
        self._source = source
        self._chance = chance
        numbers = range(len(source))
        self._still = numbers[::-1] if backwards else numbers
        self._order: Sequence[int] = self._still  # a list once something moves
        # What the last requests found. The newest may be the present order, not yet changed.
        self._states: deque[Sequence[int]] = deque([self._order], lag + 1)
        self._born: set[int] = set()  # since the mark
        self._homes = _Memo(source.belongs)
        self.identities = _Memo(source.identity)
        self._found: dict[tuple[Kind, tuple[str, ...]], Sequence[int]] = {}

    def __len__(self) -> int:
        return len(self._order)

    @overload
    def __getitem__(self, at: int) -> dict[str, Any]: ...

    @overload
    def __getitem__(self, at: slice) -> list[dict[str, Any]]: ...

    def __getitem__(self, at: int | slice) -> dict[str, Any] | list[dict[str, Any]]:
        if isinstance(at, slice):
            return [self._pod(number) for number in self._order[at]]
        return self._pod(self._order[at])

    def _pod(self, number: int) -> dict[str, Any]:
        pod: dict[str, Any] = json.loads(b"".join(self._source.pieces(number)))
        return pod

    @property
    def numbers(self) -> Sequence[int]:
        """The pods' numbers, in the server's order."""
        return self._order

    def survivors(self) -> Iterable[int]:
        """Give the numbers of the pods that are older than the mark."""
        return (number for number in self._order if number not in self._born)

    def mark(self) -> None:
        """Let no pod be new."""
        self._born.clear()

    def insert(self, at: int, number: int = 1, deployment: str | None = None) -> list[int]:
        """Put new pods at a place; give their numbers."""
        new = [self._source.another(deployment, self._chance) for _ in range(number)]
        self._changing()[at:at] = new
        self._born.update(new)
        return new

    def delete(self, places: Iterable[int]) -> list[int]:
        """Take the pods at these places away; give their numbers."""
        order = self._changing()
        return [order.pop(place) for place in sorted(places, reverse=True)][::-1]

    def touch(self, at: int) -> None:
        """Bring the pod at a place to the head."""
        order = self._changing()
        order.insert(0, order.pop(at))

    def _changing(self) -> list[int]:
        self._found.clear()
        order = self._order
        if not isinstance(order, list) or self._states[-1] is order:
            order = self._order = list(order)
        return order

    def move(self, motion: Motion) -> None:
        """Do what happens ahead of one request."""
        chance = self._chance
        if chance.random() < motion.chance:
            self._upheave(chance.randint(motion.least, motion.most), motion.new)
        for _ in range(min(self._times(motion.deletes), len(self._order))):
            self.delete([self._spot(motion.at, len(self._order))])
        for _ in range(self._times(motion.inserts)):
            self.insert(self._spot(motion.at, len(self._order) + 1))
        for _ in range(min(self._times(motion.touches), len(self._order))):
            self.touch(chance.randrange(len(self._order)))

    def _upheave(self, number: int, new: Place | None) -> None:
        number = min(number, len(self._order))
        if new is None:
            first = self._chance.randrange(len(self._order) - number + 1)
            self.delete(range(first, first + number))
            return
        for gone in self.delete(self._chance.sample(range(len(self._order)), number)):
            deployment, _, _ = self._homes[gone]
            self.insert(self._spot(new, len(self._order) + 1), deployment=deployment)

    def _times(self, rate: float) -> int:
        return int(rate) + (self._chance.random() < rate % 1)

    def _spot(self, where: Place, places: int) -> int:
        match where:
            case "head":
                return 0
            case "tail":
                return places - 1
            case "anywhere":
                return self._chance.randrange(places)

    def recall(self, chance: random.Random) -> Sequence[int]:
        """Give the order as one of the last requests found it, this one among them."""
        if self._states.maxlen == 1:
            return self._order
        self._states.append(self._order)
        return chance.choice(self._states)

    def matching(self, kind: Kind, ids: tuple[str, ...], order: Sequence[int]) -> Sequence[int]:
        """Give the numbers of these ids' pods, in the present order or a past one."""
        if order is not self._order:
            return self._select(kind, {None, *ids}, order)
        found = self._found.get((kind, ids))
        if found is None:
            if len(self._found) >= _REMEMBERED_QUERIES:
                self._found.clear()
            found = self._found[kind, ids] = self._select(kind, {None, *ids}, order)
        return found

    def _select(self, kind: Kind, ids: set[str | None], order: Sequence[int]) -> Sequence[int]:
        if order is not self._still:
            homes, which = self._homes, _KINDS.index(kind)
            return [number for number in order if homes[number][which] in ids]
        rows = [self._index[kind, one] for one in ids if (kind, one) in self._index]
        places = rows[0] if len(rows) == 1 else sorted(chain(*rows))
        return array("l", [order[place] for place in places])

    @functools.cached_property
    def _index(self) -> dict[tuple[Kind, str | None], MutableSequence[int]]:
        index: dict[tuple[Kind, str | None], MutableSequence[int]] = defaultdict(lambda: array("l"))
        for place, number in enumerate(self._still):
            deployment, node, group = self._source.belongs(number)
            index["deployment", deployment].append(place)
            index["node", node].append(place)
            index["group", group].append(place)
        return dict(index)

    def page(self, numbers: Iterable[int], total: int | str | None) -> bytes:
        head = b"" if total is None else b'"count":%b,' % json.dumps(total).encode()
        pieces = [piece for number in numbers for piece in (*self._source.pieces(number), b",")]
        return b'{%b"pods":[%b]}' % (head, b"".join(pieces[:-1]))


# --- the server -----------------------------------------------------------------------------------

_IDS: dict[str, Kind] = {
    "deployment_ids": "deployment",
    "deployment_id": "deployment",
    "node_id": "node",
    "group_id": "group",
}
_REMEMBERED_QUERIES = 4096
_REMEMBERED_REQUESTS = 100_000
_LINE_LIMIT = 32 << 10
_HEAD_LIMIT = 128 << 10
_LONGEST_NUMBER = 18
_DELIVERY = 0.02
_TURNS_TO_ACCEPT = 3
_TURNS_TO_CLOSE = 1000  # of the loop; it takes five


@attrs.frozen
class FakeRequest:
    """One request as the server saw it.

    Attributes:
        method: as sent.
        path: as sent, escapes and all.
        raw_query: what followed the ``?``, as sent.
        headers: names in lower case; a repeated header's values joined by commas.
        at: the loop's time of its arrival.
        connection: which connection brought it, counted from 1.
    """

    method: str
    path: str
    raw_query: str
    headers: Mapping[str, str] = attrs.field(repr=False)
    at: float
    connection: int

    @property
    def query(self) -> dict[str, str]:
        """The query's parameters, decoded; the last one wins."""
        return dict(parse_qsl(self.raw_query, keep_blank_values=True))


@attrs.frozen
class FakeStatistics:
    """What the server counted since it was made.

    Attributes:
        requests: all that arrived.
        in_flight: requests that wait for the end of their answer.
        in_flight_peak: the most there ever were at a time.
        connections: all that were ever opened.
        connections_open: those that are open now.
        faults: how many requests were answered with a fault.
    """

    requests: int
    in_flight: int
    in_flight_peak: int
    connections: int
    connections_open: int
    faults: int


class _Gate(web.Server):
    """aiohttp's server, which also keeps count of its connections."""

    def __init__(
        self, handler: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]], opened: int
    ) -> None:
        super().__init__(
            handler,
            handler_cancellation=True,  # a request ends when its client leaves
            access_log=None,
            # Far above the gateway's own limits, so that these are what a long line meets.
            max_line_size=_HEAD_LIMIT,
            max_field_size=_HEAD_LIMIT,
        )
        self.opened = opened
        self.open: dict[object, tuple[int, asyncio.Transport]] = {}

    def connection_made(self, handler: web.RequestHandler, transport: asyncio.Transport) -> None:
        self.opened += 1
        self.open[handler] = (self.opened, transport)
        super().connection_made(handler, transport)

    def connection_lost(
        self, handler: web.RequestHandler, exc: BaseException | None = None
    ) -> None:
        self.open.pop(handler, None)
        super().connection_lost(handler, exc)

    async def close(self) -> None:
        for _, transport in self.open.values():
            transport.abort()
        for _ in range(_TURNS_TO_CLOSE):
            if not self.connections:  # each goes with its task, and that has been cancelled
                break
            await asyncio.sleep(0)


class _Written(web.StreamResponse):
    """Tells aiohttp that the answer is on the wire already."""

    def __init__(self, *, reusable: bool) -> None:
        super().__init__()
        self._reusable = reusable

    @property
    def keep_alive(self) -> bool:
        return self._reusable

    async def prepare(self, request: web.BaseRequest) -> None:
        """Leave the wire alone."""

    async def write_eof(self, data: bytes = b"") -> None:
        """Leave the wire alone."""


def _is_count(_: object, __: object, counts: object) -> None:
    if not (callable(counts) or isinstance(counts, int) or counts in ("true", "none", "page")):
        msg = f"no way to count: {counts!r}"
        raise ValueError(msg)


@attrs.frozen(kw_only=True)
class _Oddities:
    """What a listing gets wrong; `FakeIef` says what each means."""

    order: Order = attrs.field(validator=attrs.validators.in_(get_args(Order)))
    offsets: Offsets = attrs.field(validator=attrs.validators.in_(get_args(Offsets)))
    limits: Limits = attrs.field(validator=attrs.validators.in_(get_args(Limits)))
    counts: Counts = attrs.field(validator=_is_count)
    lag: int = attrs.field(validator=attrs.validators.ge(0))
    empty_rate: float = attrs.field(validator=_is_share)
    cached_rate: float = attrs.field(validator=_is_share)
    hidden_rate: float = attrs.field(validator=_is_share)
    repeated_rate: float = attrs.field(validator=_is_share)


class FakeIef:
    """A Huawei Cloud IEF on ``127.0.0.1``. ``async with`` starts and stops it.

    What the documentation leaves open is an argument. Requests that find a scripted fault get it;
    else the `intercept` hook decides, if there is one; else ``fault_rate`` does.

    Args:
        pods: how many the fleet has, or the pods themselves, served as they are: one without a
            ``deployment_id`` (``node_id``) belongs to every deployment (node, group). One that is
            inserted is a copy of one of them, with an id of its own.
        deployments: pod *i* belongs to deployment *i* modulo this.
        nodes: pod *i* runs on node *i* modulo this.
        groups: node *i* belongs to group *i* modulo this.
        seed: every id, name and drawn fault follows from it.
        project_id: the only project there is.
        token: what ``X-Auth-Token`` must be; None: nobody asks.
        latency: seconds from a request to its answer, at least.
        default_limit: the page size when a request names none.
        page_cap: the largest page there is.
        over_cap: a larger ``limit`` is cut down, or refused.
        order: the fleet as it was made, or the other way round; shuffled anew for each request,
            or only every three neighbours ("ties").
        offsets: counted in rows, ignored, or taken as the number of a page.
        limits: kept, or ignored: an answer has all rows from the offset on.
        counts: how ``count`` comes about: the true number of rows, left out, the length of the
            page, always this number, or what a function makes of the true one and a source of
            chance; None leaves it out.
        lag: each request is answered from the list as it, or one of this many requests before it,
            found it.
        empty_rate: the share of requests that get an empty page, under the usual count.
        cached_rate: the share of requests that get the rows of offset 0.
        hidden_rate: the share of pods that are counted, but cut out of each page.
        repeated_rate: the share of pods that stand in the list twice, as two neighbouring rows.
        motion: what happens to the fleet before each list request is answered.
        unknown_ids: an unknown id has no pods, or is a 404.
        fault_rate: the share of requests that get a fault; never more than that.
        faults: what these faults are drawn from.

    Attributes:
        pods: the present fleet in the server's order; each pod is made when it is looked at.
        page_cap: as the argument; may be changed at any time.
        requests: those seen; of very many, at least the last 50,000.
    """

    def __init__(
        self,
        pods: int | Sequence[Mapping[str, Any]] = 100,
        *,
        deployments: int = 10,
        nodes: int = 5,
        groups: int = 2,
        seed: int = 0,
        project_id: str = "bcd83056c918480f8f190844bd425b23",
        token: str | None = "fake-token",  # noqa: S107 - opens nothing but this fake
        latency: float = 0.0,
        default_limit: int = 10,
        page_cap: int | None = None,
        over_cap: Literal["clamp", "refuse"] = "clamp",
        order: Order = "stable",
        offsets: Offsets = "rows",
        limits: Limits = "kept",
        counts: Counts = "true",
        lag: int = 0,
        empty_rate: float = 0.0,
        cached_rate: float = 0.0,
        hidden_rate: float = 0.0,
        repeated_rate: float = 0.0,
        motion: Motion | Sequence[Motion] = (),
        unknown_ids: Literal["empty", "refuse"] = "empty",
        fault_rate: float = 0.0,
        faults: Sequence[Fault] = DEFAULT_MIX,
    ) -> None:
        if min(deployments, nodes, groups) < 1:
            msg = "a fleet has at least one deployment, node and group"
            raise ValueError(msg)
        self.project_id = project_id
        self.token = token
        self.deployment_ids = tuple(_uuid(seed, "deployment", n) for n in range(deployments))
        self.node_ids = tuple(_uuid(seed, "node", n) for n in range(nodes))
        self.group_ids = tuple(_uuid(seed, "group", n) for n in range(groups))
        self._odd = _Oddities(
            order=order,
            offsets=offsets,
            limits=limits,
            counts=counts,
            lag=lag,
            empty_rate=empty_rate,
            cached_rate=cached_rate,
            hidden_rate=hidden_rate,
            repeated_rate=repeated_rate,
        )
        self._motions = (motion,) if isinstance(motion, Motion) else tuple(motion)
        fleet = self._fleet = _Fleet(
            self._source(pods, seed),
            backwards=order == "reversed",
            lag=lag,
            chance=random.Random(f"motion {seed}"),  # noqa: S311 - repeatable, and no secret
        )
        self.pods: Sequence[dict[str, Any]] = fleet
        self._chance = random.Random(f"answers {seed}")  # noqa: S311 - as above
        lot, ids = functools.partial(_lot, seed), fleet.identities
        self._hidden = _Memo(lambda pod: lot("hidden", ids[pod]) < hidden_rate)
        self._repeated = _Memo(lambda pod: lot("repeated", ids[pod]) < repeated_rate)
        self.requests: list[FakeRequest] = []
        self._latency = latency
        self._default_limit = default_limit
        self.page_cap = page_cap
        self._over_cap = over_cap
        self._unknown_ids = unknown_ids
        self._script: deque[Fault] = deque()
        self._hook: Callable[[FakeRequest], Fault | None] | None = None
        self._lottery = _Lottery(fault_rate, faults, seed)
        self._answers = count(1)
        self._gate: _Gate | None = None
        self._listener: asyncio.Server | None = None
        self._seen = self._in_flight = self._peak = self._faulty = 0

    def _source(self, pods: int | Sequence[Mapping[str, Any]], seed: int) -> _Pods:
        if isinstance(pods, int):
            ids: dict[Kind, Sequence[str]] = {
                "deployment": self.deployment_ids,
                "node": self.node_ids,
                "group": self.group_ids,
            }
            return _SeededPods(pods, seed, self.project_id, ids)
        given = [pod for pod in pods if isinstance(pod, Mapping)]
        self.deployment_ids = _ids_of(given, "deployment_id") or self.deployment_ids
        self.node_ids = _ids_of(given, "node_id") or self.node_ids
        return _GivenPods(pods, dict(zip(self.node_ids, cycle(self.group_ids), strict=False)))

    @property
    def endpoint(self) -> str:
        """Where to send requests, without a slash at the end."""
        if self._listener is None:
            msg = "the FakeIef isn't running: use `async with fake:` or `await fake.start()`"
            raise RuntimeError(msg)
        return "http://127.0.0.1:{1}".format(*self._listener.sockets[0].getsockname())

    async def start(self) -> None:
        """Listen on a free port."""
        if self._listener is not None:
            msg = f"the FakeIef is running already, at {self.endpoint}"
            raise RuntimeError(msg)
        self._gate = _Gate(self._handle, self._gate.opened if self._gate else 0)
        loop = asyncio.get_running_loop()
        self._listener = await loop.create_server(self._gate, "127.0.0.1", 0, backlog=1024)

    async def stop(self) -> None:
        """Close every connection, whatever it is doing; a stopped server may be started again."""
        listener, self._listener = self._listener, None
        if listener is not None and self._gate is not None:
            await _end(listener)
            await self._gate.close()
            await listener.wait_closed()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    def script(self, *faults: Fault) -> None:
        """Answer the next requests with these, one each, in the order in which they arrive."""
        self._script.extend(faults)

    def intercept(self, hook: Callable[[FakeRequest], Fault | None] | None) -> None:
        """Let a function decide on each request: a fault, or None for the normal answer.

        What it raises is logged by aiohttp and answered with a 500.
        """
        self._hook = hook

    # --- the fleet's changes ---

    def insert(
        self, number: int = 1, *, at: int | None = 0, deployment_id: str | None = None
    ) -> list[str]:
        """Put new pods, of one deployment or of drawn ones, at a place of the whole list.

        None, a negative place and one beyond the end mean the end. Gives their ids.
        """
        if deployment_id is not None and deployment_id not in self.deployment_ids:
            msg = f"the fleet has no deployment {deployment_id!r}"
            raise ValueError(msg)
        place = len(self._fleet) if at is None or at < 0 else at
        return self._named(self._fleet.insert(place, number, deployment_id))

    def delete(self, at: int, number: int = 1) -> list[str]:
        """Take neighbours away, as far as there are any; a negative place counts from the end.

        Gives their ids.
        """
        first = max(at + len(self._fleet), 0) if at < 0 else at
        return self._named(self._fleet.delete(range(len(self._fleet))[first : first + number]))

    def touch(self, identity: str) -> None:
        """Bring a pod to the head of the list; a ValueError says that there is no such pod."""
        self._fleet.touch(self.pod_ids().index(identity))

    def mark(self) -> None:
        """Let `survivors` start anew, from the present fleet."""
        self._fleet.mark()

    def pod_ids(self) -> tuple[str, ...]:
        """Give the ids of the present pods, in the server's order."""
        return tuple(self._named(self._fleet.numbers))

    def survivors(self) -> frozenset[str]:
        """Give the ids of the pods that have been there since the start, or the last `mark`.

        What ``hidden_rate`` hides is there, too.
        """
        return frozenset(self._named(self._fleet.survivors()))

    def hidden_ids(self) -> frozenset[str]:
        """Give the ids of the present pods that ``hidden_rate`` keeps out of every page."""
        return frozenset(self._named(filter(self._hidden.__getitem__, self._fleet.numbers)))

    def _named(self, numbers: Iterable[int]) -> list[str]:
        return [self._fleet.identities[number] for number in numbers]

    def statistics(self) -> FakeStatistics:
        """Say what has happened so far."""
        gate = self._gate
        return FakeStatistics(
            requests=self._seen,
            in_flight=self._in_flight,
            in_flight_peak=self._peak,
            connections=gate.opened if gate else 0,
            connections_open=len(gate.open) if gate else 0,
            faults=self._faulty,
        )

    # --- one request ---

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        seen = self._note(request)
        fault = self._draw(seen)
        self._in_flight += 1
        self._peak = max(self._peak, self._in_flight)
        try:
            return await self._deliver(request, seen, fault)
        finally:
            self._in_flight -= 1

    def _note(self, request: web.BaseRequest) -> FakeRequest:
        path, _, raw_query = request.raw_path.partition("?")
        headers: dict[str, str] = {}
        for name, value in request.headers.items():
            key = name.lower()
            headers[key] = f"{headers[key]}, {value}" if key in headers else value
        at = asyncio.get_running_loop().time()
        connection, _ = self._connection(request)
        seen = FakeRequest(request.method, path, raw_query, headers, at, connection)
        self._seen += 1
        if len(self.requests) >= _REMEMBERED_REQUESTS:
            del self.requests[: _REMEMBERED_REQUESTS // 2]
        self.requests.append(seen)
        return seen

    def _connection(self, request: web.BaseRequest) -> tuple[int, asyncio.Transport]:
        if self._gate is None or request.protocol not in self._gate.open:
            raise asyncio.CancelledError  # the client has left; nobody is there to answer
        return self._gate.open[request.protocol]

    def _draw(self, seen: FakeRequest) -> Fault:
        if self._script:
            fault: Fault | None = self._script.popleft()
        elif self._hook is not None:
            fault = self._hook(seen)
        else:
            fault = self._lottery.draw()
        self._faulty += fault is not None
        return fault or _NORMAL

    async def _deliver(
        self, request: web.BaseRequest, seen: FakeRequest, fault: Fault
    ) -> web.StreamResponse:
        if fault.delay:
            await _pause(fault.delay)
        _, transport = self._connection(request)
        head, body = self._wire(seen, fault, keep_alive=request.keep_alive)
        if self._latency:  # a wire's, not a server's: what was done meanwhile is no part of it
            await asyncio.sleep(seen.at + self._latency - asyncio.get_running_loop().time())
        if fault.trickle == "head":
            await _trickle(transport, head + body, fault.interval)
        elif fault.trickle == "body":
            transport.write(head)
            await _trickle(transport, body, fault.interval)
        elif head or body:
            # Joined only where needed; an empty part would never leave the buffer (Python 3.12).
            transport.writelines([part for part in (head, body) if part])
        if fault.end == "reset":
            await _reset(transport, answered=bool(head or body))
        return _Written(reusable=request.keep_alive and fault.end == "open")

    def _wire(self, seen: FakeRequest, fault: Fault, *, keep_alive: bool) -> tuple[bytes, bytes]:
        if fault.literal is not None:
            return b"", fault.literal
        answer = fault.answer or self._respond(seen)
        if fault.change is not None:
            answer = fault.change(answer)
        request_id = f"{next(self._answers) * _STRIDE & _ID_MASK:032x}"
        head, body = answer.wire(request_id, keep_alive=keep_alive)
        kept = body if fault.keep >= 1 else body[: int(len(body) * fault.keep)]
        return fault.before + head, kept + fault.after

    def _respond(self, seen: FakeRequest) -> _Answer:
        try:
            self._pass_gateway(seen)
            return _Answer(self._list_pods(seen))
        except _RefusedError as refusal:
            return refusal.answer

    def _pass_gateway(self, seen: FakeRequest) -> None:
        sizes = [len(name) + len(value) for name, value in seen.headers.items()]
        if len(seen.path) + len(seen.raw_query) > _LINE_LIMIT:
            raise _RefusedError(414, shape="apigw")
        if max(sizes, default=0) > _LINE_LIMIT or sum(sizes) > _HEAD_LIMIT:
            raise _RefusedError(_HEADER_TOO_LARGE, shape="apigw")
        _, *parts = seen.path.split("/")
        match parts:
            case ["v3", project_id, "edgemgr", "pods"] if seen.method == "GET":
                self._authenticate(seen)
            case _:
                raise _RefusedError(404, shape="apigw")
        if project_id != self.project_id:
            raise _RefusedError(400)

    def _authenticate(self, seen: FakeRequest) -> None:
        token = seen.headers.get("x-auth-token")
        if self.token is None or token == self.token:
            return
        reason = "decrypt token fail" if token else "x-auth-token not found"
        message = f"Incorrect IAM authentication information: {reason}"
        raise _RefusedError(401, "APIGW.0301", message, "apigw")

    def _list_pods(self, seen: FakeRequest) -> bytes:
        pairs = parse_qsl(seen.raw_query, keep_blank_values=True)
        asked = [(name, value) for name, value in pairs if name in _IDS]
        if len(asked) != 1 or not asked[0][1]:
            message = "Exactly one of deployment_ids, deployment_id, node_id, group_id is needed"
            raise _RefusedError(400, "IEF.100001", message)
        (name, value), query = asked[0], dict(pairs)
        kind, ids = _IDS[name], tuple(value.split(",") if name == "deployment_ids" else [value])
        self._check_known(kind, ids)
        offset = _whole(query.get("offset", "0"), 0, "IEF.100004", "offset")
        limit = _whole(query.get("limit", str(self._default_limit)), 1, "IEF.100005", "limit")
        size = self._capped(limit)
        for motion in self._motions:
            self._fleet.move(motion)
        rows = self._rows(kind, ids)
        page = self._page(rows, offset, size)
        return self._fleet.page(page, self._counted(len(rows), len(page)))

    def _rows(self, kind: Kind, ids: tuple[str, ...]) -> Sequence[int]:
        odd = self._odd
        rows = self._fleet.matching(kind, ids, self._fleet.recall(self._chance))
        if odd.repeated_rate:
            rows = [row for row in rows for _ in range(1 + self._repeated[row])]
        if odd.order in {"shuffled", "ties"}:
            drawn = self._chance.random
            tied = 3 if odd.order == "ties" else max(len(rows), 1)
            places = sorted(range(len(rows)), key=lambda place: place // tied + drawn())
            rows = [rows[place] for place in places]
        return rows

    def _page(self, rows: Sequence[int], offset: int, size: int) -> Sequence[int]:
        odd = self._odd
        first = {"rows": offset, "pages": offset * size, "ignored": 0}[odd.offsets]
        if self._chance.random() < odd.cached_rate:
            first = 0
        page = rows[first:] if odd.limits == "ignored" else rows[first : first + size]
        if self._chance.random() < odd.empty_rate:
            page = ()
        return [row for row in page if not self._hidden[row]] if odd.hidden_rate else page

    def _counted(self, total: int, shown: int) -> int | str | None:
        match self._odd.counts:
            case "true":
                return total
            case "none":
                return None
            case "page":
                return shown
            case int(number):
                return number
            case count_of:
                return count_of(total, self._chance)

    def _capped(self, limit: int) -> int:
        if self.page_cap is None or limit <= self.page_cap:
            return limit
        if self._over_cap == "refuse":
            raise _RefusedError(400, "IEF.100005", "The limit is out of specification")
        return self.page_cap

    def _check_known(self, kind: Kind, ids: tuple[str, ...]) -> None:
        known = {"deployment": self.deployment_ids, "node": self.node_ids, "group": self.group_ids}
        if self._unknown_ids == "refuse" and not {*ids} <= {*known[kind]}:
            raise _RefusedError(404, "IEF.100001", f"The {kind} doesn't exist")


class _Lottery:
    """Draws faults at random, but never more of them than their share of what was drawn."""

    def __init__(self, rate: float, faults: Sequence[Fault], seed: int) -> None:
        self._rate = rate
        self._faults = faults
        self._random = random.Random(seed)  # noqa: S311 - repeatable, and no secret
        self._credit = 0.0

    def draw(self) -> Fault | None:
        self._credit += self._rate
        # Half a chance once there is credit: the share is kept, the moment stays open.
        if self._credit < 1 or self._random.random() >= max(0.5, self._rate):
            return None
        self._credit -= 1
        return self._random.choice(self._faults)


def _lot(*parts: object) -> float:
    return int(_uuid(*parts)[:8], 16) / (1 << 32)


def _ids_of(pods: Iterable[Mapping[str, Any]], key: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(pod[key] for pod in pods if pod.get(key)))


def _whole(text: str, least: int, code: str, name: str) -> int:
    if not (
        text.isascii() and text.isdecimal() and len(text) <= _LONGEST_NUMBER and int(text) >= least
    ):
        raise _RefusedError(400, code, f"The {name} is out of specification")
    return int(text)


async def _end(listener: asyncio.Server) -> None:
    loop = asyncio.get_running_loop()
    # A connection that has been accepted but not yet made when its listener closes would leak.
    with contextlib.suppress(NotImplementedError):
        for listening in listener.sockets:
            loop.remove_reader(listening.fileno())
    for _ in range(_TURNS_TO_ACCEPT):
        await asyncio.sleep(0)
    listener.close()


async def _pause(seconds: float) -> None:
    if math.isinf(seconds):
        await asyncio.Event().wait()  # ends with the connection
    await asyncio.sleep(seconds)


async def _trickle(transport: asyncio.Transport, data: bytes, interval: float) -> None:
    for at in range(len(data)):
        transport.write(data[at : at + 1])
        await asyncio.sleep(interval)


async def _reset(transport: asyncio.Transport, *, answered: bool) -> None:
    while transport.get_write_buffer_size():  # noqa: ASYNC110 - nobody is told when it is empty
        await asyncio.sleep(0.001)
    if answered:  # a reset discards what the kernel hasn't delivered yet
        await asyncio.sleep(_DELIVERY)
    transport.get_extra_info("socket").setsockopt(
        socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
    )
    transport.abort()


# --- pytest ---------------------------------------------------------------------------------------

# As a plugin this is imported by pytest; whoever imports it without pytest has no use for the rest.
if "pytest" in sys.modules:
    import pytest

    try:
        from pytest_asyncio import fixture as _fixture
    except ImportError:

        @pytest.fixture
        def fake_ief() -> None:
            """Say what is missing."""
            msg = "the fixture fake_ief needs pytest-asyncio; FakeIef itself doesn't"
            raise pytest.UsageError(msg)

    else:

        @_fixture(name="fake_ief")
        async def _running(request: pytest.FixtureRequest) -> AsyncIterator[FakeIef]:
            """Run a `FakeIef` with the arguments of the test's ``fake_ief`` marker, if any."""
            marker = request.node.get_closest_marker("fake_ief")
            args, kwargs = (marker.args, marker.kwargs) if marker else ((), {})
            async with FakeIef(*args, **kwargs) as fake:
                yield fake

    def pytest_configure(config: pytest.Config) -> None:
        """Make the marker known."""
        line = "fake_ief(pods=100, **options): the arguments of the FakeIef that `fake_ief` runs"
        config.addinivalue_line("markers", line)
