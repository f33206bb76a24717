"""From the bytes of an answer to its rows: the count, the ids, and each row as it came."""

import json
import math
import re
import types
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial
from hashlib import blake2b
from typing import (
    Annotated,
    Any,
    NoReturn,
    TypeVar,
)

import attrs
import msgspec

from ief_async._errors import PayloadError

T = TypeVar("T")

SNIPPET_CHARACTERS = 200
TIMES_THE_LIMIT = 10
USUAL_LIMIT = 1_000  # the largest page that any list is known to give
USUAL_BYTES = 2 * 1024 * 1024
GLANCE_BYTES = 4 * 1024
SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
ROW_MARK = b'"id"'  # every row has one, and some have more
LARGE_ROW_BYTES = 256 * 1024  # a hundred times what a pod takes: nothing to look through
LONGEST_NUMBER = 4_000  # digits; `int` itself takes 4,300
ADVICE = "Page.raw and list_pods show the body as it came; report it with the request id"

# What may stand for one row: a view into the body, or bytes made by the tolerant reader.
Row = msgspec.Raw | bytes


@attrs.frozen
class Rows:
    """One page as it came.

    Attributes:
        count: what the server says the whole list holds, or None if it does not say.
        ids: the id of every row, in the server's order.
        raw: every row as JSON bytes, in the same order; none if there are `items`.
        items: every row as an object, if all were made at once.
        bad: what is wrong with each row that is no object with an id, by its position. It has a
            stand-in for an id, as rows are told apart by ids.
    """

    count: int | None
    ids: list[str]
    raw: Sequence[Row]
    items: Sequence[Any] | None = None
    bad: Mapping[int, PayloadError] = types.MappingProxyType({})

    def ids_at(self, offset: int) -> list[str]:
        """Return the ids of a page at this offset.

        The position is part of a stand-in: two rows that hold the same and have no id are two rows.
        """
        if not self.bad:
            return self.ids
        return [
            f"{one}@{offset + at}" if at in self.bad else one for at, one in enumerate(self.ids)
        ]


# A Long that counts, or its digits as a text; read strictly, so that "null" is no null.
_Count = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
_Digits = Annotated[str, msgspec.Meta(pattern="^[0-9]{1,18}$")]
COUNT: msgspec.json.Decoder[int | str | None] = msgspec.json.Decoder(_Count | _Digits | None)


@lru_cache(maxsize=32)
def _envelope(key: str, row: Any) -> msgspec.json.Decoder[Any]:
    """Return a decoder of ``{"count": …, key: [row, …]}`` that skips everything else."""
    shape = msgspec.defstruct(
        "Envelope",
        [
            ("rows", list[row] | None, msgspec.field(name=key)),
            ("count", _Count | _Digits | None, None),
        ],
    )
    return msgspec.json.Decoder(shape)


@lru_cache(maxsize=128)
def flat_envelope(key: str, model: Any) -> msgspec.json.Decoder[Any]:
    """Return a decoder of the same that makes objects, leniently, and leaves the count as it is."""
    shape = msgspec.defstruct(
        "FlatEnvelope",
        [
            ("rows", list[model], msgspec.field(name=key)),
            ("count", msgspec.Raw, msgspec.Raw(b"null")),
        ],
    )
    return msgspec.json.Decoder(shape, strict=False)


def read_within(read: Callable[[bytes], Rows], body: bytes, *, key: str, limit: int | None) -> Rows:
    """`read` an answer of at most ten times as many rows as were asked for.

    More are refused before they are taken apart, so that they do not keep the event loop: a million
    rows of 15 bytes are counted in 0.05 s, where a scan took 9 s to read them. A server that does
    not heed `limit` is read within these bounds; without a limit they are ten times the largest
    page that is known. What remains: a body of 70 MiB that is all rows is counted in 0.3 s, and one
    row of a million keys takes 0.03 s, or 2 s if it is one that only cattrs takes.
    """
    most = TIMES_THE_LIMIT * (limit or USUAL_LIMIT)
    if _may_hold(body, most):
        _refuse_flood(_rows_in(body, key), most, key)
    rows = read(body)
    _refuse_flood(len(rows.ids), most, key)
    return rows


def _may_hold(body: bytes, most: int) -> bool:
    """Tell whether a body may hold so many rows: at a glance, if it is no larger than usual."""
    glance = body[:GLANCE_BYTES]
    if len(body) <= USUAL_BYTES and glance.count(ROW_MARK) * len(body) <= most * len(glance):
        return False
    return body.count(ROW_MARK) > most


def _rows_in(body: bytes, key: str) -> int:
    """Count the rows; 0 if it is no list, which is for others to say."""
    try:
        rows = _envelope(key, msgspec.Raw).decode(body.removeprefix(b"\xef\xbb\xbf")).rows
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        # what only the slow reader takes can't be counted: a tenth of the marks is a safe guess
        return body.count(ROW_MARK) // 10 if SURROGATE.search(body) else 0
    return len(rows or ())


def _refuse_flood(rows: int, most: int, key: str) -> None:
    if rows > most:
        message = (
            f"{key}: {rows} rows came, more than {TIMES_THE_LIMIT} times as many as were asked for "
            f"({most // TIMES_THE_LIMIT}); report it with the request id"
        )
        raise PayloadError(message, path=key)


class _Identified(msgspec.Struct, gc=False):
    """The one field of a row that a scan needs before the row is structured."""

    id: Annotated[str, msgspec.Meta(min_length=1)]


_IDENTIFIED = msgspec.json.Decoder(_Identified)


def split(body: bytes, *, key: str, tolerate: bool = False) -> Rows:
    """Read the envelope of a list answer: count, ids, and the rows as raw bytes.

    With `tolerate` a row that is no object with an id is among `Rows.bad`.

    Raises `PayloadError` if the body is not ``{"count": …, key: [{"id": …}, …]}``; it is transient
    if the body is no JSON at all (empty, cut, an HTML page), as the next answer may be whole.
    """
    if not body.strip():
        message = "the server answered 200 with an empty body; it is not read as an empty list"
        raise PayloadError(message, transient=True)
    failure: PayloadError
    try:
        return _split(body.removeprefix(b"\xef\xbb\xbf"), key, tolerate=tolerate)
    except msgspec.ValidationError as error:
        failure = _misshapen(str(error), key)
    except (msgspec.DecodeError, UnicodeDecodeError):
        loose = _split_loosely(body, key, tolerate=tolerate)
        if isinstance(loose, Rows):
            return loose
        failure = loose
    except RecursionError:
        failure = PayloadError("the body is nested too deeply to be read")
    raise failure


def rows_in(body: bytes, *, key: str) -> Sequence[Row]:
    """Return the rows of a body that was read before, as bytes: in one pass, without their ids."""
    rows: Sequence[Row] = _envelope(key, msgspec.Raw).decode(body).rows or ()
    return rows


def _split(body: bytes, key: str, *, tolerate: bool) -> Rows:
    envelope = _envelope(key, msgspec.Raw).decode(body)
    raw = envelope.rows
    try:
        identified = _envelope(key, _Identified).decode(body)
    except msgspec.ValidationError:  # of a row, as the envelope is what it has to be
        if not tolerate:
            raise
        return _rows_with_bad_ones(envelope, raw, raw, key, _IDENTIFIED.decode)
    return _rows(identified, raw, key)


def _rows_with_bad_ones(
    envelope: Any,
    rows: Sequence[Any],
    raw: Sequence[Row],
    key: str,
    identify: Callable[[Any], _Identified],
) -> Rows:
    """Note what is wrong with each row that is no object with an id."""
    ids: list[str] = []
    bad: dict[int, PayloadError] = {}
    for at, row in enumerate(rows):
        try:
            ids.append(identify(row).id)
        except msgspec.ValidationError as error:
            problem, _, where = str(error).partition(" - at `$")
            path = f"{key}[{at}]{where.rstrip('`')}"
            bad[at] = PayloadError(f"{path}: {problem}. {ADVICE}", path=path)
            # no id begins like this; what a row holds is the best sign of which one it is
            ids.append(f"\0{blake2b(bytes(raw[at]), digest_size=12).hexdigest()}")
    return Rows(_count_of(envelope), ids, raw, bad=bad)


def _count_of(envelope: Any) -> int | None:
    return envelope.count if envelope.count is None else int(envelope.count)


def _rows(envelope: Any, raw: Sequence[Row] | None, key: str) -> Rows:
    count = _count_of(envelope)
    if raw is None:
        if count == 0:
            return Rows(0, [], ())
        said = "no count" if count is None else f"count {count}"
        message = f"{key} is null beside {said}; only null beside count 0 is an empty list"
        raise PayloadError(message, path=key)
    return Rows(count, [row.id for row in envelope.rows], raw)


def _split_loosely(body: bytes, key: str, *, tolerate: bool) -> Rows | PayloadError:
    """Read what only the standard library's reader takes: half of a surrogate pair in a text."""
    try:
        if SURROGATE.search(body) is None:
            raise ValueError  # noqa: TRY301  the ordinary end: the body is no JSON
        document = parse(body)
        rows = document.get(key) if isinstance(document, dict) else None
        # written again, with the halves escaped, the rows are plain JSON bytes
        raw = [json.dumps(row).encode() for row in rows] if isinstance(rows, list) else None
    except (ValueError, RecursionError):
        snippet = body[: 4 * SNIPPET_CHARACTERS].decode("utf-8", "replace")[:SNIPPET_CHARACTERS]
        message = f"the body of a 200 is no JSON ({len(body)} bytes); it may be cut, or a web page"
        return PayloadError(message, snippet=snippet, transient=True)
    if isinstance(document, dict):  # none of its other names, which may be halves as well
        document = {name: document[name] for name in ("count", key) if name in document}
    if isinstance(rows, list):
        document[key] = [
            {"id": row.get("id")} if isinstance(row, dict) else row  # as above
            for row in rows
        ]
    try:
        if tolerate and raw is not None:
            envelope = msgspec.convert(document, _envelope(key, Any).type)
            identify = partial(msgspec.convert, type=_Identified)
            return _rows_with_bad_ones(envelope, envelope.rows, raw, key, identify)
        return _rows(msgspec.convert(document, _envelope(key, _Identified).type), raw, key)
    except msgspec.ValidationError as error:
        return _misshapen(str(error), key)
    except PayloadError as error:
        return error


def parse(text: bytes) -> Any:
    return json.loads(text, parse_constant=_refuse_constant, parse_int=_whole)


def loads(row: Row) -> Any:
    """Return a row as `json.loads` does; as its text if that can't be."""
    text = bytes(row)
    try:
        return parse(text)
    except (ValueError, RecursionError):
        return text.decode("utf-8", "replace")


def _whole(digits: str) -> float:
    return int(digits) if len(digits) <= LONGEST_NUMBER else math.inf


def _refuse_constant(name: str) -> NoReturn:
    message = f"{name} is no JSON"
    raise ValueError(message)


def _misshapen(message: str, key: str) -> PayloadError:
    """Turn the decoder's words on the envelope into ours; they name types and a path, no values."""
    problem, _, where = message.partition(" - at `$")
    path = where.rstrip("`").removeprefix(".").replace("rows", key, 1)
    return PayloadError(
        f"{path or 'the body'}: {problem.replace('`rows`', f'`{key}`')}. {ADVICE}", path=path
    )
