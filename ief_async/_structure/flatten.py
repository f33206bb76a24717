"""A model's plain twin: its fields in the types that JSON lines and Arrow can hold. Pure.

Rows go from their bytes into twins without an object of the model in between, at a third of its
price; what the twin's decoder refuses goes by way of the model, which means the same. So a twin
holds what the object would, and a row ends as a line of JSON with every field, in their order.
"""

import types
from collections import Counter, deque
from collections.abc import Callable, Sequence
from datetime import datetime
from enum import Enum
from functools import lru_cache, partial
from typing import Annotated, Any, Final, Literal, Self, TypeVar, cast, get_args, get_origin

import attrs
import msgspec

from ief_async._errors import ConfigurationError, PayloadError
from ief_async._structure.converter import ARRAYS, MAPPINGS
from ief_async._structure.envelope import Row, Rows, split
from ief_async._structure.structure import Structure, resolve_names, structure_of
from ief_async._texts import printable_line

SCALARS = {str, int, float, bool, datetime}
Integer = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]


class Text(str):
    """A value that Arrow has no type for, as JSON."""

    __slots__ = ()


class Pairs(list[dict[str, str]]):
    """A mapping of texts for Arrow, whose readers do not all know maps: a row of key and value."""


class Plain:
    """How rows become lines of JSON by way of twins: used where a `Structure` is, in its stead.

    Args:
        structure: the model's own.
        for_arrow: whether values that Arrow has no type for become `Text`, mappings `Pairs`.
        keep: which items become lines; all others become None, and need not fit into a line.
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
        self.twin: Any = twin_of(model, for_arrow=for_arrow)
        self._structure = structure
        self._for_arrow = for_arrow
        self._keep = keep
        self._page: msgspec.json.Decoder[list[Any]] | None = None
        if keep is None and structure.fast and _has_plain_fields(self.model, for_arrow=for_arrow):
            self._page = msgspec.json.Decoder(list[self.twin], strict=False, dec_hook=_made)  # type: ignore[name-defined]  # a variable is a type here
        self._encoder = msgspec.json.Encoder(enc_hook=_unmade)
        self._shown = not for_arrow  # lines may end on a terminal

    def read(self, body: bytes, *, key: str, tolerate: bool = False) -> Rows:
        """Take an answer apart."""
        return split(body, key=key, tolerate=tolerate)

    def of(self, target: object) -> Self:
        """Return the same for the items of a target: `keep` sees both, as a pair."""
        keep = self._keep
        if keep is None:
            return self
        return type(self)(
            self._structure, for_arrow=self._for_arrow, keep=lambda item: keep((target, item))
        )

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
                twins = self._page.decode(b"[%b]" % b",".join([rows[at] for at in positions]))
                # a line at once: kept as twins, a page is so many objects that collecting them
                # takes longer than making them
                encoded = map(self._encoder.encode, twins)
                return [*map(printable_line, encoded)] if self._shown else [*encoded]
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                pass  # by way of the model, whose tolerant path takes it or names the field
        lines: list[bytes | None] = []
        for item in self._structure.items(rows, positions, key=key, model_errors=model_errors):
            try:
                lines.append(self.given(item, key=f"{key}[{positions[len(lines)]}]"))
            except PayloadError:
                if not lines:
                    raise
                break  # the next call begins with it
        return lines

    def given(self, item: object, *, key: str = "what on_bad_item gave") -> bytes | None:
        """Return an object of the model as a line of JSON, or None if it is not kept."""
        return self.line(item, key=key) if self._keep is None or self._keep(item) else None

    def line(self, item: object, *, key: str = "an item") -> bytes:
        """Return an object of the model as a line of JSON."""
        try:
            twin = _convert(item, self.twin)
        except msgspec.ValidationError as error:
            problem, _, where = str(error).partition(" - at `$")
            path = key + where.rstrip("`")
        else:
            try:
                made = self._encoder.encode(twin)
            except UnicodeEncodeError:  # half of a surrogate pair, which UTF-8 has no bytes for
                whole = _whole(msgspec.to_builtins(twin, enc_hook=_unmade))
                made = self._encoder.encode(whole)
            return printable_line(made) if self._shown else made
        message = f"{path}: {problem}; it fits into no column"
        raise PayloadError(message, path=path)


def twin_of(model: Any, *, for_arrow: bool = True) -> type[Any]:
    """Return the twin of a model; with `for_arrow` the types of its fields tell the schema."""
    try:
        twin = _twin_of(model, for_arrow=for_arrow)
    except RecursionError:
        problem = "contains itself: no table has columns for that"
    else:
        if msgspec.structs.fields(twin):
            return twin
        problem = "has no fields, and so no rows"
    message = f"{model.__name__} {problem}"
    raise ConfigurationError(message)


@lru_cache(maxsize=256)
def _twin_of(model: Any, *, for_arrow: bool) -> type[Any]:
    own = get_origin(model) or model
    resolve_names(own)
    given = dict(zip(getattr(own, "__parameters__", ()), get_args(model), strict=False))
    fields: list[Any] = []
    for field in attrs.fields(own):
        kind = _plain_type(_filled(field.type, given), for_arrow=for_arrow)
        default: Any = field.default
        if default is attrs.NOTHING:
            fields.append((field.name, kind))
        elif default is None:  # whatever its type says
            fields.append((field.name, kind | None, None))
        else:
            fields.append((field.name, kind, _default(default, kind)))
    return msgspec.defstruct(model.__name__, fields, kw_only=True, gc=False)


def _filled(annotation: Any, given: dict[Any, Any]) -> Any:
    """Put what a generic class was given for its parameters."""
    if isinstance(annotation, TypeVar):
        return given.get(annotation, Any)
    wanted = getattr(annotation, "__parameters__", ())
    return annotation[tuple(given.get(one, Any) for one in wanted)] if wanted else annotation


def _default(default: Any, kind: Any) -> Any:
    """Return what a twin has where a row has nothing: what the object has, in the twin's type."""
    if type(default) is kind and kind in SCALARS:
        return default
    make = default.factory if isinstance(default, attrs.Factory) else lambda: default  # type: ignore[arg-type]  # a class, whatever its stub says
    empty = get_origin(kind) or kind
    if empty in {list, dict, Pairs} and (make in {list, dict} or default == ()):
        return msgspec.field(default_factory=empty)  # the usual ones, at a third of the price
    return msgspec.field(default_factory=lambda: _convert(make(), kind))


def _convert(value: object, kind: Any) -> Any:
    return msgspec.convert(value, kind, from_attributes=True, dec_hook=_made)


def _plain_type(annotation: Any, *, for_arrow: bool) -> Any:
    """Return the type of a twin's field."""
    plain = partial(_plain_type, for_arrow=for_arrow)
    annotation = _bare(annotation)
    origin, inner = get_origin(annotation), get_args(annotation)
    kind = origin or annotation
    some = [one for one in inner if one not in {types.NoneType, ...}]
    found: Any = Text | None if for_arrow else Any
    if annotation is int and for_arrow:
        found = Integer
    elif annotation in SCALARS or _is_word(kind):
        found = annotation
    elif attrs.has(kind):
        found = _twin_of(annotation, for_arrow=for_arrow)
    elif kind in MAPPINGS and for_arrow:
        found = Pairs if inner == (str, str) else found
    elif kind in MAPPINGS and inner[:1] == (str,):
        found = types.GenericAlias(dict, (str, plain(inner[1])))
    elif kind in ARRAYS and kind is not deque and len(some) == 1:
        found = types.GenericAlias(list, plain(some[0]))
    elif types.NoneType in inner and len(some) == 1:
        found = plain(some[0]) | None
    return found


def _bare(annotation: Any) -> Any:
    """Return the type that an annotation is another name of."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if hasattr(annotation, "__supertype__"):
        return _bare(annotation.__supertype__)
    if origin in {Annotated, Final}:
        return _bare(inner[0])
    if origin is Literal and {type(one) for one in inner} <= {str, types.NoneType}:
        return str | None if None in inner else str
    return annotation


def _is_word(kind: Any) -> bool:
    """Tell whether it is an enum whose members both msgspec and a column can hold."""
    if not (isinstance(kind, type) and issubclass(kind, Enum)):
        return False
    return issubclass(kind, int) or all(isinstance(member.value, str) for member in kind)


def _has_plain_fields(model: type, *, for_arrow: bool) -> bool:
    """Tell whether a twin can be made of a row itself: nothing of the model looks at its values."""
    resolve_names(model)
    return not hasattr(model, "__attrs_post_init__") and all(
        field.validator is None
        and (not isinstance(field.default, attrs.Factory) or not field.default.takes_self)  # type: ignore[arg-type]  # a class, whatever its stub says
        and _is_plain(field.type, for_arrow=for_arrow)
        for field in attrs.fields(model)
    )


def _is_plain(annotation: Any, *, for_arrow: bool) -> bool:
    """Tell whether what a row has there becomes what the object would, without the object."""
    if isinstance(annotation, type) and attrs.has(annotation):
        return _has_plain_fields(annotation, for_arrow=for_arrow)
    if annotation is Any or annotation in SCALARS:
        return True
    twin = _plain_type(annotation, for_arrow=for_arrow)
    return twin not in {Any, Text | None} and all(
        one in {types.NoneType, ...} or _is_plain(one, for_arrow=for_arrow)
        for one in get_args(annotation)
    )


def _made(kind: type, value: Any) -> Any:
    """Make a `Text` or `Pairs` of what JSON or an object of the model has there."""
    if kind is Text:
        try:
            return Text(msgspec.json.encode(value, enc_hook=_unmade).decode())
        except UnicodeEncodeError:
            return Text(msgspec.json.encode(_whole(msgspec.to_builtins(value))).decode())
    if not isinstance(value, dict) or not all(type(item) is str for item in value.values()):
        message = "Expected texts"
        raise TypeError(message)
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
    resolve_names(model)
    fields = attrs.fields_dict(model)
    made = attrs.make_class(
        model.__name__,
        {
            name: attrs.field(
                default=fields[name].default,
                type=fields[name].type,
                repr=fields[name].repr,
                hash=fields[name].hash,
                validator=fields[name].validator,
                converter=fields[name].converter,
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
