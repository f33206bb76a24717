"""Checks of values that a user gives; each raises a ValueError in the same words."""

from collections.abc import Callable
from typing import Any, get_args

import attrs

Validator = Callable[[Any, "attrs.Attribute[Any]", Any], None]


def is_one_of(choices: Any) -> Validator:
    """Accept the values of a `Literal`."""
    known = get_args(choices)

    def check(_: object, field: "attrs.Attribute[Any]", value: object) -> None:
        if value not in known:
            names = ", ".join(map(repr, known))
            msg = f"{field.name} must be one of {names}, got {value!r}"
            raise ValueError(msg)

    return check


def is_at_least(least: float) -> Validator:
    """Accept numbers from this one on."""

    def check(_: object, field: "attrs.Attribute[Any]", value: float) -> None:
        if not value >= least:
            msg = f"{field.name} must be at least {least}, got {value!r}"
            raise ValueError(msg)

    return check


def is_above(bound: float) -> Validator:
    """Accept numbers above this one."""

    def check(_: object, field: "attrs.Attribute[Any]", value: float) -> None:
        if not value > bound:
            msg = f"{field.name} must be above {bound}, got {value!r}"
            raise ValueError(msg)

    return check


def is_share(_: object, field: "attrs.Attribute[Any]", value: float) -> None:
    """Accept numbers from 0 to 1."""
    if not 0 <= value <= 1:
        msg = f"{field.name} must be from 0 to 1, got {value!r}"
        raise ValueError(msg)
