"""What a bad argument is told."""

import math
from collections.abc import Callable
from types import UnionType
from typing import Any, TypeVar, get_args

from ief_async._errors import ConfigurationError

T = TypeVar("T")


def check_number(
    name: str,
    value: object,
    *,
    least: float = 0.0,
    most: float = math.inf,
    whole: bool = False,
    more: bool = False,
) -> None:
    """Refuse what is no finite number from `least` (above it if `more`) to `most`; True is none."""
    kinds = int if whole else int | float
    if isinstance(value, kinds) and not isinstance(value, bool) and math.isfinite(value):
        enough = value > least if more else value >= least
        if enough and value <= most:
            return
    kind = "a whole number" if whole else "a finite number"
    bounds = f"above {least:g}" if more else f"of {least:g} or more"
    bounds = bounds if most == math.inf else f"from {least:g} to {most:g}"
    message = f"{name} takes {kind} {bounds}, but was given {value!r:.80}"
    raise ConfigurationError(message)


def check_kind(name: str, value: object, kind: type | UnionType) -> None:
    """Refuse what is not an instance of a class, or of one of several."""
    if not isinstance(value, kind):
        takes = kind.__name__ if isinstance(kind, type) else kind
        message = f"{name} takes {takes}, but was given {type(value).__name__}"
        raise ConfigurationError(message)


def check_choice(name: str, value: object, choices: Any) -> None:
    """Refuse what is not one of the words of a `Literal`."""
    if not isinstance(value, str) or value not in get_args(choices):
        known = ", ".join(map(repr, get_args(choices)))
        message = f"{name} takes one of {known}, but was given {value!r:.80}"
        raise ConfigurationError(message)


def is_number(
    *, least: float = 0.0, whole: bool = False, more: bool = False, optional: bool = False
) -> Callable[[Any, Any, Any], None]:
    """Return an attrs validator that `check_number` does the work of."""

    def validate(instance: Any, attribute: Any, value: Any) -> None:
        if value is not None or not optional:
            name = f"{type(instance).__name__}({attribute.name}=)"
            check_number(name, value, least=least, whole=whole, more=more)

    return validate
