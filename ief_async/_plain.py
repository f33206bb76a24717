"""A model's plain twin: its fields in the types that JSON lines and Arrow can hold. Pure.

Rows go from their bytes into twins without an object of the model in between, at a third of its
price; what the twin's decoder refuses goes by way of the model, which means the same. So a twin
holds what the object would, and a row ends as a line of JSON with every field, in their order.
"""

import types
from collections.abc import Sequence
from datetime import datetime
from enum import Enum
from functools import lru_cache
from typing import Annotated, Any, cast, get_args, get_origin

import attrs
import msgspec

from ief_async._errors import ConfigurationError, PayloadError
from ief_async._structure import ARRAYS, MAPPINGS, Row, Structure, structure_of

SCALARS = {str, int, float, bool, datetime}
Integer = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]


class Text(str):
    """A value that Arrow has no type for, as JSON."""

    __slots__ = ()


class Pairs(list[dict[str, Any]]):
    """A mapping for Arrow, whose readers do not all know maps: a key and a value in each row."""


class Plain:
    """How rows become lines of JSON by way of twins: used where a `Structure` is, in its stead.

    Args:
        structure: the model's own.
        for_arrow: whether values that Arrow has no type for become `Text`, mappings `Pairs`.
    """

    def __init__(self, structure: Structure[Any], *, for_arrow: bool) -> None:
        model: Any = structure.model
        self.model: type = model
        self.twin: Any = twin_of(model, for_arrow=for_arrow)
        self._structure = structure
        self._page: msgspec.json.Decoder[list[Any]] | None = None
        if structure.fast and _has_plain_fields(self.model):
            self._page = msgspec.json.Decoder(list[self.twin], strict=False, dec_hook=_made)  # type: ignore[name-defined]  # a variable is a type here
        self._encoder = msgspec.json.Encoder(enc_hook=_unmade)

    def items(self, rows: Sequence[Row], positions: Sequence[int], *, key: str) -> list[bytes]:
        """Return the rows at these positions as lines of JSON, as far as they can be read."""
        if self._page is not None:
            try:
                twins = self._page.decode(b"[%b]" % b",".join([rows[at] for at in positions]))
                # a line at once: kept as twins, a page is so many objects that collecting them
                # takes longer than making them
                return [self._encoder.encode(twin) for twin in twins]
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                pass  # by way of the model, whose tolerant path takes it or names the field
        lines: list[bytes] = []
        for item in self._structure.items(rows, positions, key=key):
            try:
                lines.append(self.line(item, key=f"{key}[{positions[len(lines)]}]"))
            except PayloadError:
                if not lines:
                    raise
                break  # the next call begins with it
        return lines

    def line(self, item: object, *, key: str = "an item") -> bytes:
        """Return an object of the model as a line of JSON."""
        try:
            twin = msgspec.convert(item, self.twin, from_attributes=True, dec_hook=_made)
        except msgspec.ValidationError as error:
            problem, _, where = str(error).partition(" - at `$")
            path = key + where.rstrip("`")
        else:
            try:
                return self._encoder.encode(twin)
            except UnicodeEncodeError:  # half of a surrogate pair, which UTF-8 has no bytes for
                whole = _whole(msgspec.to_builtins(twin, enc_hook=_unmade))
                return self._encoder.encode(whole)
        message = f"{path}: {problem}; it fits into no column"
        raise PayloadError(message, path=path)


def twin_of(model: Any, *, for_arrow: bool = True) -> type[Any]:
    """Return the twin of a model; with `for_arrow` the types of its fields tell the schema."""
    try:
        return _twin_of(model, for_arrow=for_arrow)
    except RecursionError:
        message = f"{model.__name__} contains itself: no table has columns for that"
    raise ConfigurationError(message)


@lru_cache(maxsize=256)
def _twin_of(model: Any, *, for_arrow: bool) -> type[Any]:
    attrs.resolve_types(get_origin(model) or model)
    fields = []
    for field in attrs.fields(get_origin(model) or model):
        kind = _plain_type(field.type, for_arrow=for_arrow)
        default: Any = field.default
        if isinstance(default, attrs.Factory):  # type: ignore[arg-type]  # a class, whatever its stub says
            pairs = for_arrow and default.factory is dict
            default = msgspec.field(default_factory=Pairs if pairs else default.factory)
        elif default == ():
            default = msgspec.field(default_factory=list)
        fields.append(
            (field.name, kind) if default is attrs.NOTHING else (field.name, kind, default)
        )
    return msgspec.defstruct(model.__name__, fields, kw_only=True, gc=False)


def _plain_type(annotation: Any, *, for_arrow: bool) -> Any:
    """Return the type of a twin's field."""
    origin, inner = get_origin(annotation), get_args(annotation)
    kind = origin or annotation
    some = [one for one in inner if one not in {types.NoneType, ...}]
    plain: Any = Text | None if for_arrow else Any
    if annotation is int and for_arrow:
        plain = Integer
    elif annotation in SCALARS or (isinstance(kind, type) and issubclass(kind, Enum)):
        plain = annotation
    elif attrs.has(kind):
        plain = _twin_of(annotation, for_arrow=for_arrow)
    elif kind in MAPPINGS and for_arrow:
        plain = Pairs
    elif len(some) == 1 and (kind in ARRAYS or origin is Annotated or types.NoneType in inner):
        plain = _plain_type(some[0], for_arrow=for_arrow)
        if kind in ARRAYS:
            plain = list[plain]
        elif types.NoneType in inner:
            plain |= None
    return plain


def _has_plain_fields(model: type) -> bool:
    """Tell whether the twin's own defaults do, and nothing of the model looks at its values."""
    attrs.resolve_types(model)
    return not hasattr(model, "__attrs_post_init__") and all(
        field.validator is None
        and (not isinstance(field.default, attrs.Factory) or not field.default.takes_self)  # type: ignore[arg-type]  # a class, whatever its stub says
        and all(_has_plain_fields(inner) for inner in _classes_in(field.type))
        for field in attrs.fields(model)
    )


def _classes_in(annotation: Any) -> list[type]:
    if isinstance(annotation, type) and attrs.has(annotation):
        return [annotation]
    return [found for inner in get_args(annotation) for found in _classes_in(inner)]


def _made(kind: type, value: Any) -> Any:
    """Make a `Text` or `Pairs` of what JSON or an object of the model has there."""
    if kind is Text:
        return Text(msgspec.json.encode(value).decode())
    if not isinstance(value, dict):
        raise TypeError
    return Pairs({"key": key, "value": item} for key, item in value.items())


def _unmade(value: Any) -> Any:
    return str.__str__(value) if isinstance(value, str) else list(value)


def _whole(value: Any) -> Any:
    """Put U+FFFD for halves of surrogate pairs."""
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, dict):
        return {key: _whole(item) for key, item in value.items()}
    return [_whole(item) for item in value] if isinstance(value, list) else value


@lru_cache(maxsize=128)
def _narrowed(model: type, names: tuple[str, ...]) -> type[Any]:
    attrs.resolve_types(model)
    fields = attrs.fields_dict(model)
    made = attrs.make_class(
        model.__name__,
        {
            name: attrs.field(
                default=fields[name].default,
                type=fields[name].type,
                repr=fields[name].repr,
                hash=fields[name].hash,
                metadata=fields[name].metadata,
            )
            for name in names
        },
        frozen=True,
        kw_only=True,
    )
    return cast("type[Any]", made)


def narrowed(model: type, fields: Sequence[str]) -> type[Any]:
    """Return an attrs class with some of a model's fields, in the order given.

    Give it to ``model=``: only these are then decoded. The same fields give the same class.

    Raises:
        ConfigurationError: no field is given, one twice, or one that the model does not have.
    """
    structure_of(model)
    known = attrs.fields_dict(model)
    given = [fields] if isinstance(fields, str) else list(fields)
    wrong = [name for name in given if name not in known]
    if wrong or not given or len(set(given)) < len(given):
        problem = f"has no {', '.join(map(str, wrong))}" if wrong else "takes each field once"
        message = f"{model.__name__} {problem}; its fields are {', '.join(known)}"
        raise ConfigurationError(message)
    return _narrowed(model, tuple(given))
