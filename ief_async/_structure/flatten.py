"""From rows of JSON to lines of JSON that have every field of a model, for files and tables.

The flat mirror of a model is a msgspec struct with the same fields, in types that lines of JSON and
Arrow can hold. A row is decoded into a mirror and encoded from it, without an object of the model
in between, which costs a third. A row that the mirror's decoder refuses goes by way of the model;
the line is the same.
"""

import types
from collections import Counter, deque
from collections.abc import Callable, Sequence
from datetime import datetime
from enum import Enum
from functools import lru_cache, partial
from typing import Annotated, Any, Final, Literal, Self, TypeVar, get_args, get_origin

import attrs
import msgspec

from ief_async._errors import ConfigurationError, PayloadError
from ief_async._structure.envelope import Row, Rows, RowsOfBody, split
from ief_async._structure.kinds import ARRAYS, MAPPINGS
from ief_async._structure.structure import Structure, resolve_names
from ief_async._texts import printable_line

SCALARS = {str, int, float, bool, datetime}
Int64 = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]


class JsonText(str):
    """The JSON text of a value whose type Arrow does not have."""

    __slots__ = ()


class KeyValues(list[dict[str, str]]):
    """A mapping of strings for Arrow, as a list of keys and values: not all readers know maps."""


class LineReader:
    """How rows become lines of JSON: takes the place of a `Structure` in a stream.

    Attributes:
        model: the attrs class whose fields a line has.
        mirror: the flat mirror of it.

    Args:
        structure: the `Structure` of the model.
        for_arrow: whether values of types that Arrow does not have become `JsonText`, and mappings
            `KeyValues`.
        keep: a function of an item; items for which it is false become None instead of a line.
    """

    def __init__(
        self,
        structure: Structure[Any],
        *,
        for_arrow: bool,
        keep: Callable[[Any], bool] | None = None,
    ) -> None:
        model: Any = structure.model
        self.model: type = model
        self.mirror: Any = flat_mirror(model, for_arrow=for_arrow)
        self._structure = structure
        self._for_arrow = for_arrow
        self._keep = keep
        self._page: msgspec.json.Decoder[list[Any]] | None = None
        if keep is None and structure.fast and _mirrors_rows(self.model, for_arrow=for_arrow):
            self._page = msgspec.json.Decoder(
                list[self.mirror],  # type: ignore[name-defined]  # a variable is a type here
                strict=False,
                dec_hook=_decode_hook,
            )
        self._encoder = msgspec.json.Encoder(enc_hook=_encode_hook)
        self._printable = not for_arrow  # lines may be shown on a terminal

    def read(self, body: bytes, *, key: str, tolerate: bool = False) -> Rows:
        """Read an answer as `split` does."""
        return split(body, key=key, tolerate=tolerate)

    def for_target(self, target: object) -> Self:
        """Return the reader for the rows of a target: `keep` gets the target and the item."""
        keep = self._keep
        if keep is None:
            return self
        return type(self)(
            self._structure, for_arrow=self._for_arrow, keep=lambda item: keep((target, item))
        )

    def first_items(
        self, rows: RowsOfBody, positions: Sequence[int], *, most_bytes: int
    ) -> list[bytes | None] | None:
        """Return the first of these rows as lines of JSON, as `Structure.first_items` does."""
        if self._page is None or not isinstance(positions, range):
            return None
        mirrors = rows.decode_some(self._page.decode, positions.start, most_bytes)
        return None if mirrors is None else self._lines(mirrors[: len(positions)])

    def items(
        self,
        rows: Sequence[Row],
        positions: Sequence[int],
        *,
        key: str,
        model_errors: Counter[str] | None = None,
    ) -> list[bytes | None]:
        """Return the rows at these positions as lines of JSON, as far as they can be read.

        Arguments and errors are those of `Structure.items`.
        """
        if self._page is not None:
            try:
                return self._lines(
                    self._page.decode(b"[%b]" % b",".join([rows[at] for at in positions]))
                )
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                pass  # the model's tolerant path takes the row, or names the field
        lines: list[bytes | None] = []
        for item in self._structure.items(rows, positions, key=key, model_errors=model_errors):
            try:
                lines.append(self.from_item(item, key=f"{key}[{positions[len(lines)]}]"))
            except PayloadError:
                if not lines:
                    raise
                break  # the next call begins with this row
        return lines

    def _lines(self, mirrors: Sequence[object]) -> list[bytes | None]:
        # each becomes a line at once: a page of mirrors is so many objects that the garbage
        # collector takes longer than the decoder
        encoded = map(self._encoder.encode, mirrors)
        return [*map(printable_line, encoded)] if self._printable else [*encoded]

    def from_item(self, item: object, *, key: str = "the result of on_bad_item") -> bytes | None:
        """Return an object of the model as a line of JSON, or None if it is not kept."""
        return self.line(item, key=key) if self._keep is None or self._keep(item) else None

    def line(self, item: object, *, key: str = "an item") -> bytes:
        """Return an object of the model as a line of JSON.

        Raises:
            PayloadError: a value fits into no column.
        """
        try:
            mirror = _convert(item, self.mirror)
        except msgspec.ValidationError as error:
            problem, _, where = str(error).partition(" - at `$")
            path = key + where.rstrip("`")
        else:
            try:
                made = self._encoder.encode(mirror)
            except UnicodeEncodeError:  # a lone surrogate, which UTF-8 can't encode
                whole = _replace_surrogates(msgspec.to_builtins(mirror, enc_hook=_encode_hook))
                made = self._encoder.encode(whole)
            return printable_line(made) if self._printable else made
        message = f"{path}: {problem}, so it fits into no column"
        raise PayloadError(message, path=path)


def flat_mirror(model: Any, *, for_arrow: bool = True) -> type[Any]:
    """Return the flat mirror of a model.

    Args:
        model: an attrs class.
        for_arrow: whether its fields have types that Arrow has, too.

    Raises:
        ConfigurationError: the model contains itself, or has no fields.
    """
    try:
        mirror = _flat_mirror(model, for_arrow=for_arrow)
    except RecursionError:
        problem = "contains itself, which no table has columns for: use another model"
    else:
        if msgspec.structs.fields(mirror):
            return mirror
        problem = "has no fields, and so no columns: use another model"
    message = f"the model {model.__name__} {problem}"
    raise ConfigurationError(message)


@lru_cache(maxsize=256)
def _flat_mirror(model: Any, *, for_arrow: bool) -> type[Any]:
    own = get_origin(model) or model
    resolve_names(own)
    given = dict(zip(getattr(own, "__parameters__", ()), get_args(model), strict=False))
    fields: list[Any] = []
    for field in attrs.fields(own):
        kind = _flat_type(_specialized(field.type, given), for_arrow=for_arrow)
        default: Any = field.default
        if default is attrs.NOTHING:
            fields.append((field.name, kind))
        elif default is None:  # whatever its type says
            fields.append((field.name, kind | None, None))
        else:
            fields.append((field.name, kind, _mirror_default(default, kind)))
    return msgspec.defstruct(model.__name__, fields, kw_only=True, gc=False)


def _specialized(annotation: Any, given: dict[Any, Any]) -> Any:
    """Replace the type variables of a generic class by what it was given for them."""
    if isinstance(annotation, TypeVar):
        return given.get(annotation, Any)
    wanted = getattr(annotation, "__parameters__", ())
    return annotation[tuple(given.get(one, Any) for one in wanted)] if wanted else annotation


def _mirror_default(default: Any, kind: Any) -> Any:
    """Return the default of a mirror's field: that of the model, in the mirror's type."""
    if type(default) is kind and kind in SCALARS:
        return default
    make = default.factory if isinstance(default, attrs.Factory) else lambda: default  # type: ignore[arg-type]  # a class, whatever its stub says
    empty = get_origin(kind) or kind
    if empty in {list, dict, KeyValues} and (make in {list, dict} or default == ()):
        return msgspec.field(default_factory=empty)  # the usual ones, at a third of the cost
    return msgspec.field(default_factory=lambda: _convert(make(), kind))


def _convert(value: object, kind: Any) -> Any:
    return msgspec.convert(value, kind, from_attributes=True, dec_hook=_decode_hook)


def _flat_type(annotation: Any, *, for_arrow: bool) -> Any:
    """Return the type of a mirror's field."""
    flat = partial(_flat_type, for_arrow=for_arrow)
    annotation = _without_alias(annotation)
    origin, inner = get_origin(annotation), get_args(annotation)
    kind = origin or annotation
    some = [one for one in inner if one not in {types.NoneType, ...}]
    found: Any = JsonText | None if for_arrow else Any
    if annotation is int and for_arrow:
        found = Int64
    elif annotation in SCALARS or _is_enum_of_scalars(kind):
        found = annotation
    elif attrs.has(kind):
        found = _flat_mirror(annotation, for_arrow=for_arrow)
    elif kind in MAPPINGS and for_arrow:
        found = KeyValues if inner == (str, str) else found
    elif kind in MAPPINGS and inner[:1] == (str,):
        found = types.GenericAlias(dict, (str, flat(inner[1])))
    elif kind in ARRAYS and kind is not deque and len(some) == 1:
        found = types.GenericAlias(list, flat(some[0]))
    elif types.NoneType in inner and len(some) == 1:
        found = flat(some[0]) | None
    return found


def _without_alias(annotation: Any) -> Any:
    """Return the type behind ``NewType``, ``Annotated``, ``Final`` and a ``Literal`` of strings."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if hasattr(annotation, "__supertype__"):
        return _without_alias(annotation.__supertype__)
    if origin in {Annotated, Final}:
        return _without_alias(inner[0])
    if origin is Literal and {type(one) for one in inner} <= {str, types.NoneType}:
        return str | None if None in inner else str
    return annotation


def _is_enum_of_scalars(kind: Any) -> bool:
    """Tell whether a type is an enum whose values are all integers or all strings."""
    if not (isinstance(kind, type) and issubclass(kind, Enum)):
        return False
    return issubclass(kind, int) or all(isinstance(member.value, str) for member in kind)


def _mirrors_rows(model: type, *, for_arrow: bool) -> bool:
    """Tell whether mirrors can be decoded from rows: the model changes and checks no value."""
    resolve_names(model)
    return not hasattr(model, "__attrs_post_init__") and all(
        field.validator is None
        and (not isinstance(field.default, attrs.Factory) or not field.default.takes_self)  # type: ignore[arg-type]  # a class, whatever its stub says
        and _mirrors_values(field.type, for_arrow=for_arrow)
        for field in attrs.fields(model)
    )


def _mirrors_values(annotation: Any, *, for_arrow: bool) -> bool:
    """Tell whether a mirror's field can be decoded from a row, without an object of the model."""
    if isinstance(annotation, type) and attrs.has(annotation):
        return _mirrors_rows(annotation, for_arrow=for_arrow)
    if annotation is Any or annotation in SCALARS:
        return True
    mirror = _flat_type(annotation, for_arrow=for_arrow)
    return mirror not in {Any, JsonText | None} and all(
        one in {types.NoneType, ...} or _mirrors_values(one, for_arrow=for_arrow)
        for one in get_args(annotation)
    )


def _decode_hook(kind: type, value: Any) -> Any:
    """Make a `JsonText` or `KeyValues` of a value in JSON or in an object of the model."""
    if kind is JsonText:
        try:
            return JsonText(msgspec.json.encode(value, enc_hook=_encode_hook).decode())
        except UnicodeEncodeError:
            return JsonText(
                msgspec.json.encode(_replace_surrogates(msgspec.to_builtins(value))).decode()
            )
    if not isinstance(value, dict) or not all(type(item) is str for item in value.values()):
        message = "Expected a mapping of strings"
        raise TypeError(message)
    return KeyValues({"key": key, "value": item} for key, item in value.items())


def _encode_hook(value: Any) -> Any:
    return str.__str__(value) if isinstance(value, str) else list(value)


def _replace_surrogates(value: Any) -> Any:
    """Replace lone surrogates by U+FFFD."""
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, dict):
        return {key: _replace_surrogates(item) for key, item in value.items()}
    return [_replace_surrogates(item) for item in value] if isinstance(value, list) else value
