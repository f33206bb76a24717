"""Checks of arguments. Every error has the form ``<name> must be <what>, got <value>``."""

import math
import re
import string
from collections.abc import Callable
from types import NoneType, UnionType
from typing import Any, NoReturn, TypeVar, get_args

from ief_async._errors import ConfigurationError

T = TypeVar("T")

ID = re.compile("[0-9A-Za-z_-]{1,64}")  # any id of the service
ID_BYTES = f"{string.digits}{string.ascii_letters}_-".encode()
ID_LENGTHS = {*range(1, 65)}
KINDS: dict[type, str] = {bool: "True or False", str: "a string", NoneType: "None"}


def refuse(name: str, wanted: str, got: str) -> NoReturn:
    """Raise the error for a wrong argument."""
    message = f"{name} must be {wanted}, got {got}"
    raise ConfigurationError(message)


def check_number(
    name: str,
    value: object,
    *,
    least: float = 0.0,
    most: float = math.inf,
    whole: bool = False,
    more: bool = False,
) -> None:
    """Raise an error unless the value is a finite number from `least` to `most`.

    Args:
        name: the argument.
        value: its value; a bool is not a number here.
        least: the smallest allowed number.
        most: the largest allowed number.
        whole: whether it must be an integer.
        more: whether it must be larger than `least`.
    """
    kinds = int if whole else int | float
    if isinstance(value, kinds) and not isinstance(value, bool) and math.isfinite(value):
        enough = value > least if more else value >= least
        if enough and value <= most:
            return
    kind = "an integer" if whole else "a finite number"
    bounds = f"{'>' if more else '>='} {least:g}"
    bounds = bounds if most == math.inf else f"from {least:g} to {most:g}"
    refuse(name, f"{kind} {bounds}", f"{value!r:.80}")


def check_kind(name: str, value: object, kind: type | UnionType) -> None:
    """Raise an error unless the value is an instance of a class, or of one of a union."""
    if not isinstance(value, kind):
        kinds = get_args(kind) or (kind,)
        refuse(name, " or ".join(map(_named, kinds)), type(value).__name__)


def _named(kind: type) -> str:
    article = "an" if kind.__name__[0] in "AEIOU" else "a"
    return KINDS.get(kind, f"{article} {kind.__name__}")


def check_choice(name: str, value: object, choices: Any) -> None:
    """Raise an error unless the value is one of the strings of a `Literal`."""
    if not isinstance(value, str) or value not in get_args(choices):
        refuse(name, f"one of {', '.join(map(repr, get_args(choices)))}", f"{value!r:.80}")


def is_number(
    *, least: float = 0.0, whole: bool = False, more: bool = False, optional: bool = False
) -> Callable[[Any, Any, Any], None]:
    """Return an attrs validator that calls `check_number`."""

    def validate(instance: Any, attribute: Any, value: Any) -> None:
        if value is not None or not optional:
            name = f"{type(instance).__name__}({attribute.name}=)"
            check_number(name, value, least=least, whole=whole, more=more)

    return validate
