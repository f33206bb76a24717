"""From the bytes of an answer to its rows: the count, the ids, and each row as raw bytes."""

import json
import math
import re
import types
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial
from hashlib import blake2b
from typing import Annotated, Any, NoReturn, overload

import attrs
import msgspec

from ief_async._errors import PayloadError
from ief_async._values import Value

SNIPPET_CHARACTERS = 200
MOST_TIMES_LIMIT = 10  # as many rows as were asked for are read at most
LARGEST_LIMIT = 1_000  # the largest page that any list is known to give
USUAL_BYTES = 2 * 1024 * 1024
SAMPLE_BYTES = 4 * 1024
SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
ROW_MARK = b'"id"'  # each row has at least one
LARGE_ROW_BYTES = 256 * 1024  # a hundred times a pod: a schema watch skips such a row
MOST_DIGITS = 4_000  # of a number; `int` itself takes 4,300
ADVICE = "Page.raw and list_pods show the body as it came; report it with the request id"

# one row: a view into the body, or bytes that the tolerant reader made
Row = msgspec.Raw | bytes


class RowsOfBody(Sequence[Row]):
    """The rows of a body as raw bytes, which are taken apart when one of them is asked for.

    That takes as long as to find their ids, and is not needed to read them in their order: see
    `decode_some`.

    Args:
        body: what was read as an envelope before.
        key: the name of the list in it.
        length: how many rows it has.
    """

    def __init__(self, body: bytes, key: str, length: int) -> None:
        self._body = body
        self._key = key
        self._length = length
        self._apart: Sequence[Row] | None = None
        begin = _beginning(key).match(body)
        self._mark = begin[1] if begin else b""  # what a row begins with; "" if that is not known
        self._row, self._at = 0, begin.start(1) if begin else 0  # a row, and where it begins

    def __len__(self) -> int:
        return self._length

    @overload
    def __getitem__(self, at: int) -> Row: ...

    @overload
    def __getitem__(self, at: slice) -> Sequence[Row]: ...

    def __getitem__(self, at: int | slice) -> Row | Sequence[Row]:
        if self._apart is None:
            self._apart = rows_in(self._body, key=self._key)
        return self._apart[at]

    def decode_some(
        self, decode: Callable[[bytes], list[Any]], first: int, most_bytes: int
    ) -> list[Any] | None:
        """Decode some rows from `first` on, about so many bytes of the body.

        Where they end is a guess: before bytes that the first row of all begins with. The guess was
        right if an array of whole values lies before them, and a comma between: they begin at a
        row, so those are rows, and so is what comes next. If it was wrong, or a row is refused,
        None is returned, now and from then on.
        """
        if not self._mark or first < self._row:
            return None
        try:
            if first > self._row:
                self._pass(_RAW_ROWS.decode, first - self._row)
            return self._pass(decode, None, most_bytes)
        except Exception:  # noqa: BLE001  a model's own validators may raise anything
            self._mark = b""
            return None

    def _pass(
        self, decode: Callable[[bytes], list[Any]], wanted: int | None, most_bytes: int = 1
    ) -> list[Any]:
        """Decode rows, `wanted` ones or about so many bytes, and go behind them."""
        body, mark, at = self._body, self._mark, self._at
        behind = body.find(mark, at + most_bytes)
        for _ in range(1, wanted or 1):
            behind = body.find(mark, behind + 1)
        end = body.rfind(b"]") if behind < 0 else body.rfind(b",", at, behind)
        rows = decode(b"[%b]" % body[at:end])
        if (behind >= 0 and body[end + 1 : behind].strip()) or wanted not in {None, len(rows)}:
            raise ValueError
        self._row, self._at = self._row + len(rows), behind
        return rows


@lru_cache(maxsize=32)
def _beginning(key: str) -> re.Pattern[bytes]:
    """Return a pattern of the usual beginning of a body, up to the first row's id."""
    return re.compile(
        rb'\s*\{\s*(?:"count"\s*:\s*"?\d+"?\s*,\s*)?"%b"\s*:\s*\[\s*(\{\s*"id"\s*:\s*")'
        % re.escape(key.encode())
    )


@attrs.frozen(eq=False, repr=False)
class Rows(Value):
    """One page of a list.

    Attributes:
        count: how many rows the whole list has, as the server says, or None if it does not say.
        ids: the id of each row, in the server's order.
        raw: each row as JSON bytes, in the same order, or a `RowsOfBody`; empty if there are
            `items`.
        items: each row as an object, if they were made in the same pass, else None.
        bad: by position, what is wrong with each row that is not an object with an id. Such a row
            has a made-up id, as rows are told apart by their ids.
    """

    count: int | None
    ids: list[str]
    raw: Sequence[Row]
    items: Sequence[Any] | None = None
    bad: Mapping[int, PayloadError] = types.MappingProxyType({})

    def ids_at(self, offset: int) -> list[str]:
        """Return the ids of a page at this offset.

        A made-up id contains the position, so that two equal rows without an id are two rows.
        """
        if not self.bad:
            return self.ids
        return [
            f"{one}@{offset + at}" if at in self.bad else one for at, one in enumerate(self.ids)
        ]


# a count: a Long, or its digits as a string. Read strictly, so that the string "null" is refused.
_Count = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
_Digits = Annotated[str, msgspec.Meta(pattern="^[0-9]{1,18}$")]
COUNT: msgspec.json.Decoder[int | str | None] = msgspec.json.Decoder(_Count | _Digits | None)


@lru_cache(maxsize=32)
def _envelope(key: str, row: Any) -> msgspec.json.Decoder[Any]:
    """Return a decoder of ``{"count": …, key: [row, …]}`` that skips all other keys."""
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
    """Return a decoder of the same that makes objects, leniently, and leaves the count raw."""
    shape = msgspec.defstruct(
        "FlatEnvelope",
        [
            ("rows", list[model], msgspec.field(name=key)),
            ("count", msgspec.Raw, msgspec.Raw(b"null")),
        ],
    )
    return msgspec.json.Decoder(shape, strict=False)


def read_within(read: Callable[[bytes], Rows], body: bytes, *, key: str, limit: int | None) -> Rows:
    """Read an answer, which may have at most ten times as many rows as were asked for.

    More are refused before they are decoded, so that they do not block the event loop: a million
    rows of 15 bytes are counted in 0.05 s, and a scan took 9 s to read them. A server that ignores
    `limit` is read within this bound; without a limit it is ten times the largest known page. What
    remains: a body of 70 MiB that is all rows is counted in 0.3 s, and one row of a million keys
    takes 0.03 s, or 2 s if only cattrs takes it.

    Args:
        read: reads the body, such as `split`.
        body: the body of the answer.
        key: the name of the list in the body.
        limit: how many rows were asked for; None if the request did not say.

    Raises:
        PayloadError: there are too many rows, or `read` refuses the body.
    """
    most = MOST_TIMES_LIMIT * (limit or LARGEST_LIMIT)
    if _may_hold(body, most):
        _refuse_flood(_rows_in(body, key), most, key)
    rows = read(body)
    _refuse_flood(len(rows.ids), most, key)
    return rows


def _may_hold(body: bytes, most: int) -> bool:
    """Tell whether a body may hold so many rows; of a usual size, only its beginning is read."""
    sample = body[:SAMPLE_BYTES]
    if len(body) <= USUAL_BYTES and sample.count(ROW_MARK) * len(body) <= most * len(sample):
        return False
    return body.count(ROW_MARK) > most


def _rows_in(body: bytes, key: str) -> int:
    """Count the rows; 0 if the body is not a list, which `split` reports."""
    try:
        rows = _envelope(key, msgspec.Raw).decode(body.removeprefix(b"\xef\xbb\xbf")).rows
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        # only the slow reader takes lone surrogates: a tenth of the marks is a safe guess
        return body.count(ROW_MARK) // 10 if SURROGATE.search(body) else 0
    return len(rows or ())


def _refuse_flood(rows: int, most: int, key: str) -> None:
    if rows > most:
        message = (
            f"{key}: got {rows} rows, more than {MOST_TIMES_LIMIT} times as many as were asked for "
            f"({most // MOST_TIMES_LIMIT}); report it with the request id"
        )
        raise PayloadError(message, path=key)


class _WithId(msgspec.Struct, gc=False):
    """The one field of a row that a scan needs before the row is structured."""

    id: Annotated[str, msgspec.Meta(min_length=1)]


_WITH_ID = msgspec.json.Decoder(_WithId)
_RAW_ROWS = msgspec.json.Decoder(list[msgspec.Raw])


def split(body: bytes, *, key: str, tolerate: bool = False) -> Rows:
    """Read the envelope of a list answer: count, ids, and the rows as raw bytes.

    Args:
        body: the body of the answer.
        key: the name of the list in it.
        tolerate: whether a row that is not an object with an id goes to `Rows.bad`.

    Raises:
        PayloadError: the body is not ``{"count": …, key: [{"id": …}, …]}``. It is transient if the
            body is not JSON at all (empty, cut, an HTML page), as the next answer may be whole.
    """
    if not body.strip():
        message = "the server answered 200 with an empty body, which is not an empty list"
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
        failure = PayloadError(
            "the body is nested too deeply to be read; report it with the request id"
        )
    raise failure


def rows_in(body: bytes, *, key: str) -> Sequence[Row]:
    """Return the rows of a body that was read before, as bytes: in one pass, without their ids."""
    rows: Sequence[Row] = _envelope(key, msgspec.Raw).decode(body).rows or ()
    return rows


def _split(body: bytes, key: str, *, tolerate: bool) -> Rows:
    try:
        identified = _envelope(key, _WithId).decode(body)
    except msgspec.ValidationError:
        if not tolerate:
            raise
        envelope = _envelope(key, msgspec.Raw).decode(body)
        if envelope.rows is None:  # then the count is what is wrong
            raise
        return _rows_with_bad_ones(envelope, envelope.rows, envelope.rows, key, _WITH_ID.decode)
    return _rows(identified, key, partial(RowsOfBody, body, key))


def _rows_with_bad_ones(
    envelope: Any,
    rows: Sequence[Any],
    raw: Sequence[Row],
    key: str,
    identify: Callable[[Any], _WithId],
) -> Rows:
    """Return rows, with what is wrong with each that is not an object with an id."""
    ids: list[str] = []
    bad: dict[int, PayloadError] = {}
    for at, row in enumerate(rows):
        try:
            ids.append(identify(row).id)
        except msgspec.ValidationError as error:
            problem, _, where = str(error).partition(" - at `$")
            path = f"{key}[{at}]{where.rstrip('`')}"
            bad[at] = PayloadError(f"{path}: {problem}. {ADVICE}", path=path)
            # no real id begins with NUL; a row without an id is recognised by its content
            ids.append(f"\0{blake2b(bytes(raw[at]), digest_size=12).hexdigest()}")
    return Rows(_count_of(envelope), ids, raw, bad=bad)


def _count_of(envelope: Any) -> int | None:
    return envelope.count if envelope.count is None else int(envelope.count)


def _rows(envelope: Any, key: str, raw_rows: Callable[[int], Sequence[Row]]) -> Rows:
    """Return the rows of an envelope; `raw_rows` makes so many raw ones."""
    count = _count_of(envelope)
    if envelope.rows is None:
        if count == 0:
            return Rows(0, [], ())
        beside = "without a count" if count is None else f"with count {count}"
        message = f"{key} is null {beside}; only null with count 0 is an empty list. {ADVICE}"
        raise PayloadError(message, path=key)
    ids = [row.id for row in envelope.rows]
    return Rows(count, ids, raw_rows(len(ids)))


def _split_loosely(body: bytes, key: str, *, tolerate: bool) -> Rows | PayloadError:
    """Read a body with lone surrogates, which only the standard library's decoder takes."""
    try:
        if SURROGATE.search(body) is None:
            raise ValueError  # noqa: TRY301  the usual case: the body is not JSON
        document = parse(body)
        rows = document.get(key) if isinstance(document, dict) else None
        # encoded again, with the surrogates escaped, the rows are bytes that msgspec takes
        raw = [json.dumps(row).encode() for row in rows] if isinstance(rows, list) else None
    except (ValueError, RecursionError):
        snippet = body[: 4 * SNIPPET_CHARACTERS].decode("utf-8", "replace")[:SNIPPET_CHARACTERS]
        message = f"the body of a 200 is not JSON ({len(body)} bytes): it may be cut, or a web page"
        return PayloadError(message, snippet=snippet, transient=True)
    if isinstance(document, dict):  # other keys may have lone surrogates, too
        document = {name: document[name] for name in ("count", key) if name in document}
    if isinstance(rows, list):
        document[key] = [
            {"id": row.get("id")} if isinstance(row, dict) else row  # as above
            for row in rows
        ]
    try:
        if tolerate and raw is not None:
            envelope = msgspec.convert(document, _envelope(key, Any).type)
            identify = partial(msgspec.convert, type=_WithId)
            return _rows_with_bad_ones(envelope, envelope.rows, raw, key, identify)
        identified = msgspec.convert(document, _envelope(key, _WithId).type)
        return _rows(identified, key, lambda _: raw or ())
    except msgspec.ValidationError as error:
        return _misshapen(str(error), key)
    except PayloadError as error:
        return error


def parse(text: bytes) -> Any:
    """Return a JSON document; NaN and Infinity are refused, endless integers are infinite.

    Raises:
        ValueError: it is not JSON.
        RecursionError: it is nested too deeply.
    """
    return json.loads(text, parse_constant=_refuse_constant, parse_int=_bounded_int)


def loads(row: Row) -> Any:
    """Return a row as `json.loads` does, or as a string if it is not JSON."""
    text = bytes(row)
    try:
        return parse(text)
    except (ValueError, RecursionError):
        return text.decode("utf-8", "replace")


def _bounded_int(digits: str) -> float:
    return int(digits) if len(digits) <= MOST_DIGITS else math.inf


def _refuse_constant(name: str) -> NoReturn:
    message = f"{name} is not JSON"
    raise ValueError(message)


def _misshapen(message: str, key: str) -> PayloadError:
    """Return an error from the decoder's message, which names types and a path, and no values."""
    problem, _, where = message.partition(" - at `$")
    path = where.rstrip("`").removeprefix(".").replace("rows", key, 1)
    return PayloadError(
        f"{path or 'the body'}: {problem.replace('`rows`', f'`{key}`')}. {ADVICE}", path=path
    )
