"""Requests as the server saw them, and the answers that it gives."""

import json
from collections.abc import Mapping, Sequence
from email.utils import formatdate
from http import HTTPStatus
from typing import Any, Literal
from urllib.parse import parse_qsl

import attrs

Headers = Sequence[tuple[str, str]]
Shape = Literal["ief", "apigw", "iam", "iam_v30", "code_message", "message_only", "html", "empty"]

JSON = "application/json"
HTML = "text/html; charset=utf-8"
_REQUEST_ID = b"{request_id}"
_BODILESS = {*range(100, 200), 204, 304}
HEADER_TOO_LARGE = 494  # used by nginx and this gateway, in no standard


@attrs.frozen
class FakeRequest:
    """One request as the server saw it.

    Example:
        from ief_async.testing import FakeIef

        async with FakeIef() as fake:
            ...  # send requests
            offsets = [seen.query.get("offset") for seen in fake.requests]

    Attributes:
        method: As sent.
        path: As sent, escapes included.
        raw_query: What follows the ``?``, as sent.
        headers: Names are in lower case; the values of a repeated header are joined by commas.
        at: When it arrived, by the time of the event loop.
        connection: The number of its connection, counted from 1.
        body: As sent.
    """

    method: str
    path: str
    raw_query: str
    headers: Mapping[str, str] = attrs.field(repr=False)
    at: float
    connection: int
    body: bytes = attrs.field(default=b"", repr=False)

    @property
    def query(self) -> dict[str, str]:
        """The parameters of the query, decoded; of repeated ones the last."""
        return dict(parse_qsl(self.raw_query, keep_blank_values=True))


@attrs.frozen
class Answer:
    """An answer before anything goes wrong with it; ``framed`` means that its length is stated."""

    body: bytes = b""
    status: int = 200
    content_type: str | None = JSON
    headers: tuple[tuple[str, str], ...] = ()
    framed: bool = True

    def with_headers(self, *headers: tuple[str, str]) -> "Answer":
        """Return the answer with these headers in place of any of the same names."""
        replaced = {name.lower() for name, _ in headers}
        kept = (pair for pair in self.headers if pair[0].lower() not in replaced)
        return attrs.evolve(self, headers=(*kept, *headers))

    def encode(self, request_id: str, now: float, *, keep_alive: bool) -> tuple[bytes, bytes]:
        """Return head and body as bytes. Given headers replace the usual ones."""
        bodiless = self.status in _BODILESS
        body = b"" if bodiless else self.body
        if self.status != HTTPStatus.OK:
            body = body.replace(_REQUEST_ID, request_id.encode())
        usual = {
            "Date": formatdate(now, usegmt=True),
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
    if status == HEADER_TOO_LARGE:
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
        "The throttling threshold has been reached: policy user over ratelimit",
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


def error_answer(
    status: int, code: str | None = None, message: str | None = None, shape: Shape = "ief"
) -> Answer:
    """Return an error in one of the known shapes; code and message default to the usual ones."""
    if shape == "empty":
        return Answer(status=status, content_type=None)
    if shape == "html":
        page = f"<html><body><h1>{status} {message or _reason(status)}</h1></body></html>"
        return Answer(page.encode(), status, HTML)
    usual_code, usual_message = _usual_error(status, shape)
    document = _error_document(status, code or usual_code, message or usual_message, shape)
    return Answer(json.dumps(document, separators=(",", ":")).encode(), status)


class RefusedError(Exception):
    """The request gets an error as its answer."""

    def __init__(
        self, status: int, code: str | None = None, message: str | None = None, shape: Shape = "ief"
    ) -> None:
        super().__init__(message)
        self.answer = error_answer(status, code, message, shape)
