"""From the bytes of an answer to attrs objects. Pure: no clock, no loop, no socket.

cattrs is the authority on how JSON becomes objects; msgspec's decoder is its fast path.

1. `split` reads a whole body once: its count, the id of every row, and each row as raw bytes.
   A body that is not the documented envelope ends here, as a typed error.
2. `Structure.items` turns some of those rows into objects, so that a caller decides how many at a
   time: msgspec decodes them in one call. If it refuses something, only the rows that it refuses
   go through the cattrs converter, whose hooks bring the known contradictions of the service
   together: numbers for strings and back, null for lists, "" for "no number", "false" for False.
3. What that refuses too is a `PayloadError` that names the field and never shows a value.

Both paths mean the same. A text that stands for a number is read by msgspec's rules on either: so
"null" is no number as "" is, "1e2" is 100, and "nan" and "inf" are floats. What no field takes is
skipped unread on the fast path, even if its text is no UTF-8 or its number is no float.
"""

import contextlib
import difflib
import inspect
import json
import math
import re
import types
from collections import Counter, abc, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from functools import lru_cache, partial
from hashlib import blake2b
from typing import (
    Annotated,
    Any,
    ForwardRef,
    Generic,
    Literal,
    NoReturn,
    Self,
    TypeVar,
    Union,
    cast,
    get_args,
    get_origin,
    get_type_hints,
)

import attrs
import cattrs
import msgspec
from cattrs.cols import list_structure_factory
from cattrs.gen import make_dict_structure_fn, override
from cattrs.v import transform_error

from ief_async._errors import ConfigurationError, PayloadError
from ief_async._models import ErrorBody, parse_timestamp

T = TypeVar("T")

SNIPPET_CHARACTERS = 200
WATCHED_NAMES = 100  # told apart by a schema watch
WATCHED_CHARACTERS = 64
TIMES_THE_LIMIT = 10
USUAL_LIMIT = 1_000  # the largest page that any list is known to give
USUAL_BYTES = 2 * 1024 * 1024
GLANCE_BYTES = 4 * 1024
SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
ROW_MARK = b'"id"'  # every row has one, and some have more
LARGE_ROW_BYTES = 256 * 1024  # a hundred times what a pod takes: nothing to look through
LONGEST_NUMBER = 4_000  # digits; `int` itself takes 4,300
ADVICE = "Page.raw and list_pods show the body as it came; report it with the request id"

ATTRS_FILE = attrs.fields.__code__.co_filename
HASH_CACHE = "_attrs_cached_hash"  # set by the ``__init__`` of a class that has one
HEAP_TYPE = 1 << 9  # of `type.__flags__`: a class that Python code made, and no builtin

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
_COUNT: msgspec.json.Decoder[int | str | None] = msgspec.json.Decoder(_Count | _Digits | None)


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
def _flat_envelope(key: str, model: Any) -> msgspec.json.Decoder[Any]:
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
        document = _loads(body)
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


def _loads(text: bytes) -> Any:
    return json.loads(text, parse_constant=_refuse_constant, parse_int=_whole)


def loads(row: Row) -> Any:
    """Return a row as `json.loads` does; as its text if that can't be."""
    text = bytes(row)
    try:
        return _loads(text)
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


def read_refusal(body: bytes) -> tuple[ErrorBody, str | None] | None:
    """Return what an error body says, and its request id, or None if it is no known error body.

    Known are the bodies of IEF, of the gateway, and of IAM in its three forms.
    """
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return None
    if isinstance(document, dict) and isinstance(document.get("error"), dict):
        document = document["error"]
    if not isinstance(document, dict):
        return None
    code = _first(document, "error_code", "errorCode", "code")
    message = _first(document, "error_msg", "errorMsg", "message")
    if not code and not message:
        return None
    return ErrorBody(error_code=code, error_msg=message), _first(document, "request_id") or None


def _first(document: Mapping[str, Any], *names: str) -> str:
    values = (document.get(name) for name in names)
    return next(
        (str(value) for value in values if isinstance(value, str | int) and value != ""), ""
    )


class Structure(Generic[T]):
    """How rows become objects of one attrs class. Made once per class: see `structure_of`."""

    def __init__(self, model: type[T]) -> None:
        self.model = model
        self._page, self._row = _fast_decoders(model)
        self._flat = self.fast and _is_flat(model)
        try:
            self._tolerant = _CONVERTER.get_structure_hook(model)
        except (cattrs.StructureHandlerNotFoundError, NameError, TypeError) as error:
            problem = f"model={model.__name__}: {error}; use fields of types that JSON can hold"
        else:
            return
        raise ConfigurationError(problem)

    @property
    def fast(self) -> bool:
        """Whether msgspec builds what cattrs would, so that cattrs has the odd rows alone."""
        return self._page is not None

    def read(self, body: bytes, *, key: str, tolerate: bool = False) -> Rows:
        """Read an answer as `split` does, but make objects that hold plain values alone at once.

        That costs less than taking the rows apart, and a millisecond for a thousand of them.
        """
        if self._flat:
            with contextlib.suppress(Exception):  # whatever it is, `split` says so, or the odd row
                envelope = _flat_envelope(key, cast("Any", self.model)).decode(body)
                count = _COUNT.decode(envelope.count)
                ids = [item.id for item in envelope.rows]
                if all(ids):
                    return Rows(None if count is None else int(count), ids, (), envelope.rows)
        return split(body, key=key, tolerate=tolerate)

    def items(self, rows: Sequence[Row], positions: Sequence[int], *, key: str) -> list[T]:
        """Structure the rows at these positions, as far as they can be.

        A row that can't be structured ends the list before it; the next call, which begins with
        that row, raises the `PayloadError` that names the field. So no row before it is lost.
        """
        if self._page is not None:
            try:
                return self._page.decode(b"[%b]" % b",".join([rows[at] for at in positions]))
            except Exception:  # noqa: BLE001, S110  a model's own validators may raise anything
                pass  # one of them needs the tolerant path; the others keep the fast one
        items: list[T] = []
        try:
            for at in positions:
                item = self._item(rows[at], f"{key}[{at}]")
                items.append(item)
        except PayloadError:
            if not items:
                raise
        return items

    def of(self, _: object) -> Self:
        """Return what makes the items of a target: nothing here depends on it."""
        return self

    def given(self, item: T) -> T:
        """Return what an item that was made elsewhere is here."""
        return item

    def _item(self, row: Row, path: str) -> T:
        if self._row is not None:
            try:
                return self._row.decode(row)
            except Exception:  # noqa: BLE001, S110  the tolerant path says what is wrong
                pass
        return self.item_tolerantly(bytes(row), path)

    def item_tolerantly(self, row: bytes, path: str) -> T:
        """Structure one row by cattrs alone: what it takes, and how, is what the library means."""
        failure: PayloadError
        try:
            document = _loads(row)
        except (ValueError, RecursionError):
            failure = PayloadError(f"{path} is no JSON. {ADVICE}", path=path)
        else:
            try:
                structured: T = self._tolerant(document, self.model)
            except Exception as error:  # noqa: BLE001  a model's own validators may raise anything
                failure = _unstructured(error, path, self.model)
                _forget_frames(error)
            else:
                return structured
        try:
            raise failure
        finally:
            del failure  # it holds this frame, which would hold it: a cycle


_cached = lru_cache(maxsize=128)(Structure)


def structure_of(model: type[T]) -> Structure[T]:
    """Return the `Structure` of an attrs class, made at most once."""
    if not isinstance(get_origin(model) or model, type) or not attrs.has(model):
        message = f"model takes an attrs class, but was given {model!r:.80}"
        raise ConfigurationError(message)
    return _cached(model)


def _forget_frames(error: BaseException) -> None:
    """Cut what was raised from the frames it came through: cattrs leaves cycles of both.

    Until they are collected they would hold whoever called, up to the iterator of a stream.
    """
    left: list[BaseException | None] = [error]
    while left:
        if (one := left.pop()) is not None and one.__traceback__ is not None:
            one.__traceback__ = None
            left += [one.__cause__, one.__context__, *getattr(one, "exceptions", ())]


def _unstructured(error: Exception, path: str, model: type) -> PayloadError:
    """Name the fields that cattrs refuses: three of them at most, and none of their values."""
    if not isinstance(error, cattrs.BaseValidationError):
        return PayloadError(f"{path} is not {_name(model)}. {ADVICE}", path=path)
    problems = [
        problem.split(" @ ", 1)
        for problem in transform_error(error, path=path, format_exception=_problem)
    ]
    shown = "; ".join(
        f"{where[:SNIPPET_CHARACTERS]} {what[:SNIPPET_CHARACTERS]}" for what, where in problems[:3]
    )
    rest = problems[3:]
    more = f"; and {len(rest)} more" if rest else ""
    return PayloadError(f"{shown}{more}. {ADVICE}", path=problems[0][1][:SNIPPET_CHARACTERS])


def _problem(error: BaseException, expected: Any) -> str:
    if isinstance(error, KeyError) and expected is not None:
        return "is missing"
    return "is not what the model takes" if expected is None else f"is not {_name(expected)}"


def _name(expected: Any) -> str:
    return str(getattr(expected, "__name__", expected)) if not get_args(expected) else str(expected)


def _fast_decoders(
    model: type[T],
) -> tuple[msgspec.json.Decoder[list[T]] | None, msgspec.json.Decoder[T] | None]:
    """Return decoders of many rows and of one, or None twice where msgspec means something else."""
    try:
        if not _means_the_same(model, set()):
            return None, None
        many = msgspec.json.Decoder(list[model], strict=False)  # type: ignore[valid-type]  # a variable is a type here
        return many, msgspec.json.Decoder(model, strict=False)
    except (TypeError, NotImplementedError, NameError, KeyError):
        return None, None


def _means_the_same(annotation: Any, seen: set[Any]) -> bool:
    """Tell whether msgspec builds this type as cattrs does.

    It runs no converters of attrs and no ``__init__`` but attrs' own, fills in fields that are no
    arguments, takes what a class has by a field's name for the field's value in a row that lacks
    it, and reads a time without a zone as naive. Whatever holds such a thing, or any type
    but the plain ones of JSON, takes the cattrs path.
    """
    if annotation in seen or annotation in PLAIN:
        return True
    seen.add(annotation)
    if isinstance(annotation, type) and attrs.has(annotation):
        resolve_names(annotation)
        hints = get_type_hints(annotation, include_extras=True)  # what msgspec goes by
        return _has_plain_init(annotation) and all(
            field.init
            and field.converter is None
            and hints.get(field.name, field) == field.type
            and _has_own_default(annotation, field)
            and _means_the_same(field.type, seen)
            for field in attrs.fields(annotation)
        )
    origin, inner = get_origin(annotation), get_args(annotation)
    if _is_optional(annotation):
        inner = tuple(member for member in inner if member is not types.NoneType)
    elif origin is dict and inner[:1] == (str,):
        inner = inner[1:]
    elif not (origin is list or (origin is tuple and inner[1:] == (...,))):
        return False
    return _means_the_same(inner[0], seen)


def resolve_names(model: Any) -> None:
    """Put classes in the place of their names in annotations.

    Only where there are names: it also forgets what a ``field_transformer`` made of the types.
    """
    if any(_has_names(field.type) for field in attrs.fields(model)):
        attrs.resolve_types(model)


def _has_names(annotation: Any) -> bool:
    if isinstance(annotation, str | ForwardRef):
        return True
    return get_origin(annotation) is not Literal and any(map(_has_names, get_args(annotation)))


def _has_plain_init(model: Any) -> bool:
    """Tell whether to set the fields of an empty object is all that making one comes to.

    msgspec makes an empty object, sets fields past ``__setattr__``, asks for those that a row lacks
    by ``getattr``, and calls ``__attrs_post_init__``: nothing else of a class is run.
    """
    made_by = vars(model).get("__init__")
    if not _is_of_attrs(made_by) or HASH_CACHE in (
        *made_by.__code__.co_names,
        *made_by.__code__.co_consts,
    ):
        return False
    return (
        all(one is object or one.__flags__ & HEAP_TYPE for one in model.__mro__)
        and type(model).__call__ is type.__call__
        and model.__new__ is object.__new__
        and model.__getattribute__ is object.__getattribute__
        and (model.__setattr__ is object.__setattr__ or _is_of_attrs(model.__setattr__))
        and (not hasattr(model, "__getattr__") or _is_of_attrs(model.__getattr__))
        and not hasattr(model, "__attrs_pre_init__")
        and not inspect.isabstract(model)
    )


def _is_of_attrs(function: Any) -> bool:
    """Tell whether attrs made a method, or wrote it."""
    code = getattr(function, "__code__", None)
    return code is not None and (
        code.co_filename.startswith("<attrs generated") or code.co_filename == ATTRS_FILE
    )


def _is_flat(model: type) -> bool:
    """Tell whether objects hold plain values alone, one of them the row's id."""
    kinds = {field.name: field.type for field in attrs.fields(model)}
    plain = PLAIN - {Any}
    return kinds.get("id") is str and all(
        kind in plain or (_is_optional(kind) and {*get_args(kind)} <= plain)
        for kind in kinds.values()
    )


def _has_own_default(model: type, field: "attrs.Attribute[Any]") -> bool:
    """Tell whether the class has no more by that name than a slot, or the default itself."""
    found = getattr(model, field.name, field.default)
    return found is field.default or isinstance(found, types.MemberDescriptorType)


# ---- what the models do not know ----------------------------------------------------------------


class SchemaWatch:
    """Counts what the server says and a model has no name for: the first sign that an API moved.

    Attributes:
        unknown_fields: how often a key came that no class has, by its path.
        unknown_values: how often a word came that is not among those known, as ``path=word``.
    """

    def __init__(self, model: type) -> None:
        self._shape = _shape(model)
        self.unknown_fields: Counter[str] = Counter()
        self.unknown_values: Counter[str] = Counter()

    def look(self, rows: Sequence[Row]) -> None:
        """Look through some rows; what can't be read is left to the structuring, which says so."""
        for row in rows:
            if len(row if isinstance(row, bytes) else memoryview(row)) > LARGE_ROW_BYTES:
                continue  # a million keys would keep the event loop for a second
            with contextlib.suppress(msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                self._walk(msgspec.json.decode(row), self._shape, "")

    def _walk(self, value: Any, shape: "_Shape", path: str) -> None:
        if not isinstance(value, dict):
            return
        for key, item in value.items():
            field = shape.get(key)
            if field is None:
                _count(self.unknown_fields, path + key[:WATCHED_CHARACTERS])
                continue
            inner, known = field
            if inner is not None and isinstance(item, list):
                for one in item:
                    self._walk(one, inner, f"{path}{key}[].")
            elif inner is not None:
                self._walk(item, inner, f"{path}{key}.")
            elif known and isinstance(item, str) and item and item not in known:
                _count(self.unknown_values, f"{path}{key}={item[:WATCHED_CHARACTERS]}")


_Shape = Mapping[str, tuple["_Shape | None", frozenset[str] | None]]


def _count(counter: Counter[str], name: str) -> None:
    """Count a name, or all that are too many to be told apart as one."""
    counter[name if name in counter or len(counter) < WATCHED_NAMES else "…"] += 1


@lru_cache(maxsize=32)
def _shape(model: type) -> _Shape:
    """Return for each key of a model the shape below it and the words known for it."""
    resolve_names(model)
    return {
        field.name: (_inner_shape(field.type), field.metadata.get("known"))
        for field in attrs.fields(model)
    }


def _inner_shape(annotation: Any) -> _Shape | None:
    """Return the shape of the attrs class in an annotation; a mapping's keys are its own."""
    if isinstance(annotation, type) and attrs.has(annotation):
        return _shape(annotation)
    inner = () if get_origin(annotation) in MAPPINGS else get_args(annotation)
    return next((shape for one in inner if (shape := _inner_shape(one)) is not None), None)


class ModelWatch:
    """Looks for fields of a model that no row has: one that is misspelt is always its default.

    What the documented model has is not looked for, as many rows lack many fields.

    Attributes:
        unknown: the fields that no row seen so far has, by their path.
    """

    def __init__(self, model: type, documented: type) -> None:
        self.unknown = {
            ".".join(parts).removesuffix("[]"): (parts, hint)
            for parts, hint in _all_undocumented(model, documented)
        }

    @property
    def names(self) -> tuple[str, ...]:
        """The paths of these fields, without those within others."""
        return tuple(
            name
            for name, (parts, _) in self.unknown.items()
            if not any(parts[:-1] == other for other, _ in self.unknown.values())
        )

    def look(self, rows: Sequence[Row]) -> None:
        """Look through some rows; what can't be read is left to the structuring, which says so."""
        for row in rows if self.unknown else ():
            with contextlib.suppress(msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                document = msgspec.json.decode(row)
                for name, (parts, _) in [*self.unknown.items()]:
                    if _has(document, parts):
                        del self.unknown[name]

    def __str__(self) -> str:
        return ", ".join(f"{name}{self.unknown[name][1]}" for name in self.names)


@lru_cache(maxsize=128)
def _all_undocumented(model: type, documented: type) -> list[tuple[tuple[str, ...], str]]:
    return list(_undocumented(model, _shape(documented), (), (model,)))


def _undocumented(
    model: Any, shape: "_Shape", path: tuple[str, ...], within: tuple[type, ...]
) -> Iterator[tuple[tuple[str, ...], str]]:
    """Give the fields of a model that are not in a shape, and those of the models in it."""
    own = get_origin(model) or model
    resolve_names(own)
    for field in attrs.fields(own):
        key, inner = key_of(field), _model_in(field.type)
        if key is None:
            continue
        parts = (*path, f"{key}[]" if inner is not None and _holds_several(field.type) else key)
        below: _Shape | None = {}
        if key in shape:
            below, _ = shape[key]  # None where the document has other things than objects
        else:
            near = difflib.get_close_matches(key, shape, n=1)
            yield parts, f" (is {near[0]} meant?)" if near else ""
        if inner is not None and below is not None and inner not in within:
            yield from _undocumented(inner, below, parts, (*within, inner))


_OVERRIDE = type(override())


def key_of(field: "attrs.Attribute[Any]") -> str | None:
    """Return the key that a field is read from: its name, or what cattrs is told; None: no key."""
    told = _override_of(field)
    if told is None:
        return field.name if field.init else None
    if told.omit or (told.omit is None and not field.init):
        return None
    return told.rename or field.name


def _override_of(field: "attrs.Attribute[Any]") -> Any:
    """Return what an annotation tells cattrs of a field, or None."""
    given = get_args(field.type) if get_origin(field.type) is Annotated else ()
    return next((one for one in given if isinstance(one, _OVERRIDE)), None)


def _is_model(annotation: Any) -> bool:
    own = get_origin(annotation) or annotation
    return isinstance(own, type) and attrs.has(own)


def _model_in(annotation: Any) -> Any:
    """Return the attrs class in an annotation; a mapping's keys are its own."""
    if _is_model(annotation):
        return annotation
    inner = () if get_origin(annotation) in MAPPINGS else get_args(annotation)
    return next((found for one in inner if (found := _model_in(one)) is not None), None)


def _holds_several(annotation: Any) -> bool:
    if _is_model(annotation):
        return False
    return get_origin(annotation) in ARRAYS or any(map(_holds_several, get_args(annotation)))


def _has(value: Any, path: Sequence[str]) -> bool:
    """Tell whether some object has a key, at the end of a path."""
    if not path:
        return True
    key = path[0].removesuffix("[]")
    if not isinstance(value, dict) or key not in value:
        return False
    inner = value[key]
    several = inner if path[0].endswith("[]") and isinstance(inner, list) else [inner]
    return any(_has(one, path[1:]) for one in several)


# ---- the tolerant path -------------------------------------------------------------------------

PLAIN = {str, int, float, bool, Any, types.NoneType}
WORDLESS = {int, float, bool, datetime}  # of which "" is none
ARRAYS: dict[Any, Callable[[list[Any]], Any]] = {
    list: list,
    tuple: tuple,
    set: set,
    frozenset: frozenset,
    deque: deque,
    abc.Sequence: tuple,
    abc.MutableSequence: list,
    abc.Set: frozenset,
    abc.MutableSet: set,
}
MAPPINGS = {dict, abc.Mapping, abc.MutableMapping}


def _text(value: Any, kind: Any) -> str:
    if kind is not str:  # a StrEnum, which cattrs gives to the hook of its base
        return cast("str", kind(value))
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float) and math.isfinite(value):
        return str(value)
    raise TypeError


def _scalar(value: Any, kind: Any) -> Any:
    """Read a number or a truth, from a text too, as msgspec does: "false" is False.

    Texts may have zeros in front; numbers that no float can hold are refused.
    """
    if isinstance(value, str):
        value = re.sub("^(-?)0+(?=[0-9])", r"\1", value)
    elif isinstance(value, float) and not math.isfinite(value):
        raise TypeError
    return msgspec.convert(value, kind, strict=False)


def _moment(value: Any, _: Any) -> datetime:
    moment: datetime | None = parse_timestamp(_text(value, str))
    if moment is None:
        raise TypeError
    return moment


def _is_optional(annotation: Any) -> bool:
    members = get_args(annotation)
    others = [member for member in members if member is not types.NoneType]
    return _is_union(annotation) and len(others) == 1 < len(members)


def _optional(annotation: Any, converter: cattrs.Converter) -> Callable[[Any, Any], Any]:
    """Take null, and where a text can't be meant "" and "null" as well."""
    inner = next(member for member in get_args(annotation) if member is not types.NoneType)
    hook = converter.get_structure_hook(inner)
    nothing = ("", "null") if inner in WORDLESS else ()

    def structure(value: Any, _: Any) -> Any:
        said = value is not None and not (isinstance(value, str) and value.lower() in nothing)
        return hook(value, inner) if said else None

    return structure


def _is_choice(annotation: Any) -> bool:
    members = set(get_args(annotation))
    return _is_union(annotation) and members <= {str, int, float, bool, types.NoneType}


def _choice(annotation: Any, converter: cattrs.Converter) -> Callable[[Any, Any], Any]:
    """Take a union of plain types: a value of one of them as it is, else as the first it can be."""
    members = get_args(annotation)
    hooks = [
        (member, converter.get_structure_hook(member))
        for member in members
        if member is not types.NoneType
    ]

    def structure(value: Any, _: Any) -> Any:
        if type(value) in members:
            return value
        for member, hook in hooks:
            with contextlib.suppress(Exception):
                return hook(value, member)
        raise TypeError

    return structure


def _is_array(annotation: Any) -> bool:
    return (get_origin(annotation) or annotation) in ARRAYS


def _array(annotation: Any, converter: cattrs.Converter) -> Callable[[Any, Any], Any]:
    """Take JSON arrays only: a text must not be spelt out into its letters."""
    container = ARRAYS[get_origin(annotation) or annotation]
    elements = get_args(annotation) or (Any,)
    if container is tuple and elements[1:] not in {(), (...,)}:
        problem = "a tuple of JSON values is of one type, as in tuple[str, ...]"
        raise cattrs.StructureHandlerNotFoundError(problem, annotation)
    element = elements[0]
    inner = list_structure_factory(list[element], converter)  # type: ignore[valid-type]  # a variable is a type here

    def structure(value: Any, _: Any) -> Any:
        if not isinstance(value, list):
            raise TypeError
        return container(inner(value, list))

    return structure


def _is_bare_mapping(annotation: Any) -> bool:
    return (get_origin(annotation) or annotation) in MAPPINGS and not get_args(annotation)


def _mapping(value: Any, _: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise TypeError
    return value


def _no_json(_: Any, __: Any) -> NoReturn:
    raise TypeError  # JSON has no bytes, and bytes(5) are five zeros


def _object(model: Any, converter: cattrs.Converter) -> Callable[[Any, Any], Any]:
    """Take JSON objects; null counts as left out where the type has no None, "" where it counts."""
    fields = attrs.fields(get_origin(model) or model)
    # cattrs heeds these by itself from 26.1 on
    told: dict[str, Any] = {one.name: _override_of(one) for one in fields if _override_of(one)}
    inner = make_dict_structure_fn(model, converter, **told)
    wordless = {key_of(field) for field in fields if _bare(field.type) in WORDLESS}
    nullable = {key_of(field) for field in fields if _is_nullable(_bare(field.type))}

    def structure(value: Any, _: Any) -> Any:
        if not isinstance(value, dict):
            raise TypeError
        said = {
            name: item
            for name, item in value.items()
            if not (item is None and name not in nullable) and not (item == "" and name in wordless)
        }
        return inner(said, model)

    return structure


def _bare(annotation: Any) -> Any:
    return get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation


def _is_union(annotation: Any) -> bool:
    return get_origin(annotation) in {Union, types.UnionType}


def _is_nullable(annotation: Any) -> bool:
    """Tell whether a field takes null; one without a type takes anything."""
    members = get_args(annotation) if _is_union(annotation) else (annotation,)
    return any(member in {Any, None, types.NoneType} for member in members)


def _make_converter() -> cattrs.Converter:
    converter = cattrs.Converter(detailed_validation=True)
    for kind, hook in ((str, _text), (int, _scalar), (float, _scalar), (bool, _scalar)):
        converter.register_structure_hook(kind, hook)
    converter.register_structure_hook(datetime, _moment)
    converter.register_structure_hook(bytes, _no_json)
    converter.register_structure_hook_func(_is_bare_mapping, _mapping)
    converter.register_structure_hook_factory(_is_array, _array)
    converter.register_structure_hook_factory(_is_choice, _choice)
    converter.register_structure_hook_factory(_is_optional, _optional)
    converter.register_structure_hook_factory(attrs.has, _object)
    return converter


_CONVERTER = _make_converter()
