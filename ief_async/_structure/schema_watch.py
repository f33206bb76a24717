"""Fields and values that the models do not know, and fields of a model that no row has."""

import contextlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, get_args, get_origin

import attrs
import msgspec

from ief_async._structure.envelope import LARGE_ROW_BYTES, Row
from ief_async._structure.kinds import ARRAYS, MAPPINGS, key_of
from ief_async._structure.structure import resolve_names

WATCHED_NAMES = 100  # counted each by itself; all others are counted together
WATCHED_CHARACTERS = 64  # of a name


def decode_rows(rows: Sequence[Row]) -> list[Any]:
    """Return rows as plain values; those that can't be read are left out."""
    documents: list[Any] = []
    for row in rows:
        with contextlib.suppress(msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            documents.append(msgspec.json.decode(row))
    return documents


class SchemaWatch:
    """Counts fields and values that a model does not know: the first sign that the API changed.

    Attributes:
        unknown_fields: how often a key came that no class has, by its path.
        unknown_values: how often an unknown word of an open set came, as ``path=word``.
    """

    def __init__(self, model: type) -> None:
        self._shape = _shape(model)
        self.unknown_fields: Counter[str] = Counter()
        self.unknown_values: Counter[str] = Counter()

    def look(self, rows: Sequence[Row]) -> list[Any]:
        """Count what is unknown in some rows; return them decoded, so that it is done once.

        Rows that are too large are left out: a million keys would block the event loop for a
        second. So are rows that can't be decoded; structuring them raises the error.
        """
        documents = decode_rows([row for row in rows if _size(row) <= LARGE_ROW_BYTES])
        for document in documents:
            with contextlib.suppress(RecursionError):
                self._walk(document, self._shape, "")
        return documents

    def _walk(self, value: Any, shape: "_Shape", path: str) -> None:
        if not isinstance(value, dict):
            return
        for key, item in value.items():
            field = shape.get(key)
            if field is None:
                _count(self.unknown_fields, path + key[:WATCHED_CHARACTERS])
                continue
            inner, known = field
            if inner is not None and isinstance(item, list):
                for one in item:
                    self._walk(one, inner, f"{path}{key}[].")
            elif inner is not None:
                self._walk(item, inner, f"{path}{key}.")
            elif known and isinstance(item, str) and item and item not in known:
                _count(self.unknown_values, f"{path}{key}={item[:WATCHED_CHARACTERS]}")


def _size(row: Row) -> int:
    return len(row if isinstance(row, bytes) else memoryview(row))


_Shape = Mapping[str, tuple["_Shape | None", frozenset[str] | None]]


def _count(counter: Counter[str], name: str) -> None:
    """Count a name, or "…" if there are too many names already."""
    counter[name if name in counter or len(counter) < WATCHED_NAMES else "…"] += 1


@lru_cache(maxsize=32)
def _shape(model: type) -> _Shape:
    """Return for each key of a model the shape below it and the words known for it."""
    resolve_names(model)
    return {
        field.name: (_inner_shape(field.type), field.metadata.get("known"))
        for field in attrs.fields(model)
    }


def _inner_shape(annotation: Any) -> _Shape | None:
    """Return the shape of the attrs class in an annotation; a mapping's keys are its own."""
    if isinstance(annotation, type) and attrs.has(annotation):
        return _shape(annotation)
    inner = () if get_origin(annotation) in MAPPINGS else get_args(annotation)
    return next((shape for one in inner if (shape := _inner_shape(one)) is not None), None)


class ModelWatch:
    """Looks for fields of a model that no row has: one that is misspelt is always its default.

    What the documented model has is not looked for, as many rows lack many fields.

    Attributes:
        unknown: the fields that no row seen so far has, by their path.
    """

    def __init__(self, model: type, documented: type) -> None:
        self.unknown = {
            ".".join(parts).removesuffix("[]"): (parts, hint)
            for parts, hint in _all_undocumented(model, documented)
        }

    @property
    def names(self) -> tuple[str, ...]:
        """The paths of these fields, without those within others."""
        return tuple(
            name
            for name, (parts, _) in self.unknown.items()
            if not any(parts[:-1] == other for other, _ in self.unknown.values())
        )

    def look(self, documents: Sequence[Any]) -> None:
        """Look through some rows, decoded."""
        for document in documents:
            for name, (parts, _) in [*self.unknown.items()]:
                if _has(document, parts):
                    del self.unknown[name]

    def __str__(self) -> str:
        return ", ".join(f"{name}{self.unknown[name][1]}" for name in self.names)


@lru_cache(maxsize=128)
def _all_undocumented(model: type, documented: type) -> list[tuple[tuple[str, ...], str]]:
    if model is documented:
        return []
    return list(_undocumented(model, _shape(documented), (), (model,)))


def _undocumented(
    model: Any, shape: "_Shape", path: tuple[str, ...], within: tuple[type, ...]
) -> Iterator[tuple[tuple[str, ...], str]]:
    """Give the fields of a model that are not in a shape, and those of the models in it."""
    own = get_origin(model) or model
    resolve_names(own)
    for field in attrs.fields(own):
        key, inner = key_of(field), _model_in(field.type)
        if key is None:
            continue
        parts = (*path, f"{key}[]" if inner is not None and _holds_several(field.type) else key)
        below: _Shape | None = {}
        if key in shape:
            below, _ = shape[key]  # None where the document has other things than objects
        else:
            import difflib  # few models have such a field

            near = difflib.get_close_matches(key, shape, n=1)
            yield parts, f" (is {near[0]} meant?)" if near else ""
        if inner is not None and below is not None and inner not in within:
            yield from _undocumented(inner, below, parts, (*within, inner))


def _is_model(annotation: Any) -> bool:
    own = get_origin(annotation) or annotation
    return isinstance(own, type) and attrs.has(own)


def _model_in(annotation: Any) -> Any:
    """Return the attrs class in an annotation; a mapping's keys are its own."""
    if _is_model(annotation):
        return annotation
    inner = () if get_origin(annotation) in MAPPINGS else get_args(annotation)
    return next((found for one in inner if (found := _model_in(one)) is not None), None)


def _holds_several(annotation: Any) -> bool:
    if _is_model(annotation):
        return False
    return get_origin(annotation) in ARRAYS or any(map(_holds_several, get_args(annotation)))


def _has(value: Any, path: Sequence[str]) -> bool:
    """Tell whether some object has a key, at the end of a path."""
    if not path:
        return True
    key = path[0].removesuffix("[]")
    if not isinstance(value, dict) or key not in value:
        return False
    inner = value[key]
    several = inner if path[0].endswith("[]") and isinstance(inner, list) else [inner]
    return any(_has(one, path[1:]) for one in several)
