"""What the annotations of a model say, read without cattrs: most scans never need it."""

import types
from collections import abc, deque
from collections.abc import Callable
from typing import Annotated, Any, Union, get_args, get_origin

import attrs

SCALARS_AND_ANY = {str, int, float, bool, Any, types.NoneType}
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


def key_of(field: "attrs.Attribute[Any]") -> str | None:
    """Return the JSON key that a field is read from, or None if it is read from no key."""
    given = override_of(field)
    if given is None:
        return field.name if field.init else None
    if given.omit or (given.omit is None and not field.init):
        return None
    return given.rename or field.name


def override_of(field: "attrs.Attribute[Any]") -> Any:
    """Return the override for cattrs in a field's annotation, or None."""
    if get_origin(field.type) is not Annotated:
        return None
    from cattrs.gen import override  # few models have one

    kind = type(override())
    return next((one for one in get_args(field.type) if isinstance(one, kind)), None)


def is_optional(annotation: Any) -> bool:
    """Tell whether an annotation is ``X | None`` of one type X."""
    members = get_args(annotation)
    others = [member for member in members if member is not types.NoneType]
    return is_union(annotation) and len(others) == 1 < len(members)


def is_union(annotation: Any) -> bool:
    return get_origin(annotation) in {Union, types.UnionType}
