"""How values compare and print: what attrs would generate for each class, written once.

attrs compiles these methods for each class anew, at import, which takes half of the time of a class
with a hundred of them here. So classes that most processes import have ``eq=False, repr=False`` and
inherit from `Value`.
"""

from collections.abc import Callable
from functools import lru_cache
from reprlib import recursive_repr
from typing import Any

import attrs


class Value:
    """The base of frozen attrs classes; its methods are as attrs generates them."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        if other.__class__ is not self.__class__:
            return NotImplemented
        kind: Any = self.__class__
        return all(getattr(self, name) == getattr(other, name) for name in _compared(kind))

    def __hash__(self) -> int:
        kind: Any = self.__class__
        return hash((kind, *[getattr(self, name) for name in _hashed(kind)]))

    @recursive_repr()
    def __repr__(self) -> str:
        kind: Any = self.__class__
        fields = ", ".join(f"{name}={show(getattr(self, name))}" for name, show in _shown(kind))
        return f"{kind.__qualname__.rsplit('>.', 1)[-1]}({fields})"


@lru_cache(maxsize=256)
def _compared(kind: Any) -> tuple[str, ...]:
    return tuple(field.name for field in attrs.fields(kind) if field.eq)


@lru_cache(maxsize=256)
def _hashed(kind: Any) -> tuple[str, ...]:
    fields = attrs.fields(kind)
    return tuple(one.name for one in fields if (one.eq if one.hash is None else one.hash))


@lru_cache(maxsize=256)
def _shown(kind: Any) -> tuple[tuple[str, Callable[[Any], str]], ...]:
    fields = [field for field in attrs.fields(kind) if field.repr]
    return tuple((one.name, one.repr if callable(one.repr) else repr) for one in fields)
