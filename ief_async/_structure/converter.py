"""The tolerant path: a converter that takes what servers are known to send in place of a value."""

import contextlib
import math
import re
import types
from collections import abc, deque
from collections.abc import Callable
from datetime import datetime
from typing import (
    Annotated,
    Any,
    NoReturn,
    TypeVar,
    Union,
    cast,
    get_args,
    get_origin,
)

import attrs
import cattrs
import msgspec
from cattrs.cols import list_structure_factory
from cattrs.gen import make_dict_structure_fn, override

from ief_async._models import parse_timestamp

T = TypeVar("T")


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


def is_optional(annotation: Any) -> bool:
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
    converter.register_structure_hook_factory(is_optional, _optional)
    converter.register_structure_hook_factory(attrs.has, _object)
    return converter


CONVERTER = _make_converter()
