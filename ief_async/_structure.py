"""From the bytes of an answer to attrs objects. Pure: no clock, no loop, no socket.

cattrs is the authority on how JSON becomes objects; msgspec's decoder is its fast path.

1. `split` reads a whole body once: its count, the id of every row, and each row as raw bytes.
   A body that is not the documented envelope ends here, as a typed error.
2. `Structure.items` turns some of those rows into objects, so that a caller decides how many at a
   time: msgspec decodes them in one call. If it refuses something, only the rows that it refuses
   go through the cattrs converter, whose hooks bring the known contradictions of the service
   together: numbers for strings and back, null for lists, "" for "no number", "false" for False.
3. What that refuses too is a `PayloadError` that names the field and never shows a value.
"""

import json
import re
import types
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Annotated, Any, Generic, NoReturn, TypeVar, Union, get_args, get_origin

import attrs
import cattrs
import msgspec
from cattrs.cols import list_structure_factory
from cattrs.gen import make_dict_structure_fn
from cattrs.v import transform_error

from ief_async._errors import ConfigurationError, PayloadError
from ief_async._models import ErrorBody, parse_timestamp

T = TypeVar("T")

SNIPPET_CHARACTERS = 200
ADVICE = "Page.raw and list_pods show the body as it came; report it with the request id"

# What may stand for one row: a view into the body, or bytes made by the tolerant reader.
Row = msgspec.Raw | bytes


@attrs.frozen
class Rows:
    """One page as it came.

    Attributes:
        count: what the server says the whole list holds, or None if it does not say.
        ids: the id of every row, in the server's order.
        raw: every row as JSON bytes, in the same order.
    """

    count: int | None
    ids: list[str]
    raw: Sequence[Row]


@lru_cache(maxsize=32)
def _envelope(key: str, row: Any) -> msgspec.json.Decoder[Any]:
    """Return a decoder of ``{"count": …, key: [row, …]}`` that skips everything else."""
    shape = msgspec.defstruct(
        "Envelope",
        [
            ("rows", list[row] | None, msgspec.field(name=key)),
            ("count", Annotated[int, msgspec.Meta(ge=0)] | None, None),
        ],
    )
    return msgspec.json.Decoder(shape, strict=False)


class _Identified(msgspec.Struct, gc=False):
    """The one field of a row that a scan needs before the row is structured."""

    id: Annotated[str, msgspec.Meta(min_length=1)]


def split(body: bytes, *, key: str) -> Rows:
    """Read the envelope of a list answer: count, ids, and the rows as raw bytes.

    Raises `PayloadError` if the body is not ``{"count": …, key: [{"id": …}, …]}``; it is transient
    if the body is no JSON at all (empty, cut, an HTML page), as the next answer may be whole.
    """
    if not body.strip():
        message = "the server answered 200 with an empty body; it is not read as an empty list"
        raise PayloadError(message, transient=True)
    failure: PayloadError
    try:
        return _split(body.removeprefix(b"\xef\xbb\xbf"), key)
    except msgspec.ValidationError as error:
        failure = _misshapen(str(error), key)
    except (msgspec.DecodeError, UnicodeDecodeError):
        loose = _split_loosely(body, key)
        if isinstance(loose, Rows):
            return loose
        failure = loose
    except RecursionError:
        failure = PayloadError("the body is nested too deeply to be read")
    raise failure


def _split(body: bytes, key: str) -> Rows:
    envelope = _envelope(key, msgspec.Raw).decode(body)
    if envelope.rows is None:
        if envelope.count != 0:
            _refuse_null(key, envelope.count)
        return Rows(0, [], ())
    rows = _envelope(key, _Identified).decode(body).rows
    return Rows(envelope.count, [row.id for row in rows], envelope.rows)


def _refuse_null(key: str, count: int | None) -> NoReturn:
    said = "no count" if count is None else f"count {count}"
    message = f"{key} is null beside {said}; only null beside count 0 is an empty list"
    raise PayloadError(message, path=key)


def _split_loosely(body: bytes, key: str) -> Rows | PayloadError:
    """Read what only the standard library's reader takes: half of a surrogate pair in a text."""
    try:
        if re.search(rb"\\u[dD][89a-fA-F]", body) is None:
            raise ValueError  # noqa: TRY301  the ordinary end: the body is no JSON
        document = json.loads(body, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        snippet = body[: 4 * SNIPPET_CHARACTERS].decode("utf-8", "replace")[:SNIPPET_CHARACTERS]
        message = f"the body of a 200 is no JSON ({len(body)} bytes); it may be cut, or a web page"
        return PayloadError(message, snippet=snippet, transient=True)
    # Once written again without the half pairs' text being touched, the rows are plain JSON bytes.
    rows = document.get(key) if isinstance(document, dict) else None
    if not isinstance(rows, list):
        return PayloadError(f"{key} is not a list. {ADVICE}", path=key)
    ids: list[str] = []
    for index, row in enumerate(rows):
        identity = row.get("id") if isinstance(row, dict) else None
        if isinstance(identity, str) and identity:
            ids.append(identity)
        else:
            return PayloadError(
                f"{key}[{index}].id is not a text. {ADVICE}", path=f"{key}[{index}].id"
            )
    count = document.get("count")
    if count is not None and (type(count) is not int or count < 0):
        return PayloadError(f"count is not a number of rows. {ADVICE}", path="count")
    return Rows(count, ids, [json.dumps(row).encode() for row in rows])


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
        try:
            self._tolerant = _CONVERTER.get_structure_hook(model)
        except cattrs.StructureHandlerNotFoundError as error:
            problem = f"model={model.__name__}: {error}; use fields of types that JSON can hold"
        else:
            return
        raise ConfigurationError(problem)

    def items(self, rows: Sequence[Row], positions: Sequence[int], *, key: str) -> list[T]:
        """Structure the rows at these positions, as far as they can be.

        A row that can't be structured ends the list before it; the next call, which begins with
        that row, raises the `PayloadError` that names the field. So no row before it is lost.
        """
        if self._page is not None:
            try:
                return self._page.decode(b"[%b]" % b",".join([rows[at] for at in positions]))
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
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

    def _item(self, row: Row, path: str) -> T:
        if self._row is not None:
            try:
                return self._row.decode(row)
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
                pass
        return self.item_tolerantly(bytes(row), path)

    def item_tolerantly(self, row: bytes, path: str) -> T:
        """Structure one row by cattrs alone: what it takes, and how, is what the library means."""
        failure: PayloadError
        try:
            document = json.loads(row, parse_constant=_refuse_constant)
            structured: T = self._tolerant(document, self.model)
        except (ValueError, RecursionError):
            failure = PayloadError(f"{path} is no JSON. {ADVICE}", path=path)
        except Exception as error:  # noqa: BLE001  a model's own validators may raise anything
            failure = _unstructured(error, path)
        else:
            return structured
        raise failure


_cached = lru_cache(maxsize=128)(Structure)


def structure_of(model: type[T]) -> Structure[T]:
    """Return the `Structure` of an attrs class, made at most once."""
    if not isinstance(model, type) or not attrs.has(model):
        message = f"model takes an attrs class, but was given {model!r:.80}"
        raise ConfigurationError(message)
    return _cached(model)


def _unstructured(error: Exception, path: str) -> PayloadError:
    """Name the fields that cattrs refuses: three of them at most, and none of their values."""
    problems = transform_error(error, path=path, format_exception=_problem)
    shown = "; ".join(" ".join(reversed(problem.split(" @ ", 1))) for problem in problems[:3])
    more = f"; and {len(problems) - 3} more" if len(problems) > 3 else ""  # noqa: PLR2004  as above
    first = problems[0].split(" @ ", 1)[1]
    return PayloadError(f"{shown}{more}. {ADVICE}", path=first)


def _problem(error: BaseException, expected: Any) -> str:
    if isinstance(error, KeyError):
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

    It runs no converters of attrs, fills in fields that are no arguments, and reads a time without
    a zone as naive. Whatever holds such a thing takes the cattrs path.
    """
    if annotation in seen:
        return True
    seen.add(annotation)
    if annotation is datetime:
        return False
    if isinstance(annotation, type) and attrs.has(annotation):
        attrs.resolve_types(annotation)
        return all(
            field.init
            and field.converter is None
            and field.alias == field.name
            and _means_the_same(field.type, seen)
            for field in attrs.fields(annotation)
        )
    return all(_means_the_same(inner, seen) for inner in get_args(annotation) if inner is not ...)


# ---- the tolerant path -------------------------------------------------------------------------

NUMBERS = (int, float, bool)


def _text(value: Any, _: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return str(value)
    raise TypeError


def _integer(value: Any, _: Any) -> int:
    if isinstance(value, str) and re.fullmatch(r"-?[0-9]{1,19}(\.0+)?", value):
        return int(value.partition(".")[0])
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise TypeError


def _number(value: Any, _: Any) -> float:
    if isinstance(value, str) and re.fullmatch(r"-?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?", value):
        return float(value)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    raise TypeError


def _truth(value: Any, _: Any) -> bool:
    """Read "false" as False; `bool` itself would read it as True."""
    said = str(value).lower() if isinstance(value, str | bool | int) else ""
    if said in {"true", "1"}:
        return True
    if said in {"false", "0"}:
        return False
    raise TypeError


def _moment(value: Any, _: Any) -> datetime:
    moment: datetime | None = parse_timestamp(_text(value, str))
    if moment is None:
        raise TypeError
    return moment


def _array(annotation: Any, converter: cattrs.Converter) -> Callable[[Any, Any], Any]:
    """Take JSON arrays only: a text must not be spelt out into its letters."""
    container = get_origin(annotation)
    element = (get_args(annotation) or (Any,))[0]
    inner = list_structure_factory(list[element], converter)  # type: ignore[valid-type]  # a variable is a type here

    def structure(value: Any, _: Any) -> Any:
        if not isinstance(value, list):
            raise TypeError
        return container(inner(value, list))

    return structure


def _is_array(annotation: Any) -> bool:
    arguments = get_args(annotation)
    homogeneous = get_origin(annotation) is tuple and arguments[1:] == (...,)
    return homogeneous or get_origin(annotation) is list


def _object(model: Any, converter: cattrs.Converter) -> Callable[[Any, Any], Any]:
    """Take JSON objects; null counts as left out where the type has no None, "" where it counts."""
    inner = make_dict_structure_fn(model, converter)
    attrs.resolve_types(model)
    numbers = {field.name for field in attrs.fields(model) if _takes(field.type) & set(NUMBERS)}
    nullable = {field.name for field in attrs.fields(model) if type(None) in _takes(field.type)}

    def structure(value: Any, _: Any) -> Any:
        if not isinstance(value, dict):
            raise TypeError
        said = {
            name: item
            for name, item in value.items()
            if not (item is None and name not in nullable) and not (item == "" and name in numbers)
        }
        return inner(said, model)

    return structure


def _takes(annotation: Any) -> set[Any]:
    """Return the types that a field takes: the members of a union, or the one type."""
    if annotation in {Any, None, object}:
        return {type(None)}
    union = get_origin(annotation) in {Union, types.UnionType}
    return set(get_args(annotation)) if union else {annotation}


def _make_converter() -> cattrs.Converter:
    converter = cattrs.Converter(detailed_validation=True)
    converter.register_structure_hook(str, _text)
    converter.register_structure_hook(int, _integer)
    converter.register_structure_hook(float, _number)
    converter.register_structure_hook(bool, _truth)
    converter.register_structure_hook(datetime, _moment)
    converter.register_structure_hook_factory(_is_array, _array)
    converter.register_structure_hook_factory(attrs.has, _object)
    return converter


_CONVERTER = _make_converter()
