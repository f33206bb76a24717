"""The tolerant path: a cattrs converter that also takes what servers send in place of a value.

Numbers as strings and strings as numbers, null for a list, "" for no number, "false" for False.
"""

import contextlib
import math
import re
import types
from collections.abc import Callable
from datetime import datetime
from typing import (
    Annotated,
    Any,
    NoReturn,
    cast,
    get_args,
    get_origin,
)

import attrs
import cattrs
import msgspec
from cattrs.cols import list_structure_factory
from cattrs.gen import make_dict_structure_fn

from ief_async._models import parse_timestamp
from ief_async._structure.kinds import ARRAYS, MAPPINGS, is_optional, is_union, key_of, override_of

EMPTY_MEANS_NULL = {int, float, bool, datetime}  # types for which "" is no value


def _structure_string(value: Any, kind: Any) -> str:
    if kind is not str:  # a StrEnum, which cattrs gives to the hook of its base
        return cast("str", kind(value))
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float) and math.isfinite(value):
        return str(value)
    raise TypeError


def _structure_scalar(value: Any, kind: Any) -> Any:
    """Read a number or a boolean, also from a string, as msgspec does: "false" is False.

    Leading zeros in strings are skipped; numbers that are infinite as a float are refused.
    """
    if isinstance(value, str):
        value = re.sub("^(-?)0+(?=[0-9])", r"\1", value)
    elif isinstance(value, float) and not math.isfinite(value):
        raise TypeError
    return msgspec.convert(value, kind, strict=False)


def _structure_datetime(value: Any, _: Any) -> datetime:
    time: datetime | None = parse_timestamp(_structure_string(value, str))
    if time is None:
        raise TypeError
    return time


def _optional_hook(annotation: Any, converter: cattrs.Converter) -> Callable[[Any, Any], Any]:
    """Take null; where the type is not a string, "" and "null" as well."""
    inner = next(member for member in get_args(annotation) if member is not types.NoneType)
    hook = converter.get_structure_hook(inner)
    nulls = ("", "null") if inner in EMPTY_MEANS_NULL else ()

    def structure(value: Any, _: Any) -> Any:
        if value is None or (isinstance(value, str) and value.lower() in nulls):
            return None
        return hook(value, inner)

    return structure


def _is_scalar_union(annotation: Any) -> bool:
    members = set(get_args(annotation))
    return is_union(annotation) and members <= {str, int, float, bool, types.NoneType}


def _scalar_union_hook(annotation: Any, converter: cattrs.Converter) -> Callable[[Any, Any], Any]:
    """Take a union of scalars: a value of one of them as it is, else as the first that fits."""
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


def _array_hook(annotation: Any, converter: cattrs.Converter) -> Callable[[Any, Any], Any]:
    """Take JSON arrays only: a string must not become a list of its characters."""
    container = ARRAYS[get_origin(annotation) or annotation]
    elements = get_args(annotation) or (Any,)
    if container is tuple and elements[1:] not in {(), (...,)}:
        problem = "a tuple must have one type for all items, as in tuple[str, ...]"
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


def _structure_mapping(value: Any, _: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise TypeError
    return value


def _refuse_bytes(_: Any, __: Any) -> NoReturn:
    raise TypeError  # JSON has no bytes, and bytes(5) are five zeros


def _attrs_hook(model: Any, converter: cattrs.Converter) -> Callable[[Any, Any], Any]:
    """Take JSON objects; a null that the field's type does not take counts as left out.

    So does "" for a required number, boolean or time.
    """
    fields = attrs.fields(get_origin(model) or model)
    # from version 26.1 on cattrs finds these by itself
    overrides: dict[str, Any] = {one.name: override_of(one) for one in fields if override_of(one)}
    inner = make_dict_structure_fn(model, converter, **overrides)
    empty_means_null = {
        key_of(field) for field in fields if _without_metadata(field.type) in EMPTY_MEANS_NULL
    }
    nullable = {key_of(field) for field in fields if _is_nullable(_without_metadata(field.type))}

    def structure(value: Any, _: Any) -> Any:
        if not isinstance(value, dict):
            raise TypeError
        given = {
            name: item
            for name, item in value.items()
            if not (item is None and name not in nullable)
            and not (item == "" and name in empty_means_null)
        }
        return inner(given, model)

    return structure


def _without_metadata(annotation: Any) -> Any:
    return get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation


def _is_nullable(annotation: Any) -> bool:
    """Tell whether a field takes null; one without a type takes anything."""
    members = get_args(annotation) if is_union(annotation) else (annotation,)
    return any(member in {Any, None, types.NoneType} for member in members)


def _make_converter() -> cattrs.Converter:
    converter = cattrs.Converter(detailed_validation=True)
    for kind, hook in (
        (str, _structure_string),
        (int, _structure_scalar),
        (float, _structure_scalar),
        (bool, _structure_scalar),
    ):
        converter.register_structure_hook(kind, hook)
    converter.register_structure_hook(datetime, _structure_datetime)
    converter.register_structure_hook(bytes, _refuse_bytes)
    converter.register_structure_hook_func(_is_bare_mapping, _structure_mapping)
    converter.register_structure_hook_factory(_is_array, _array_hook)
    converter.register_structure_hook_factory(_is_scalar_union, _scalar_union_hook)
    converter.register_structure_hook_factory(is_optional, _optional_hook)
    converter.register_structure_hook_factory(attrs.has, _attrs_hook)
    return converter


CONVERTER = _make_converter()
